"""Candidates of a fake masked language model that are known, and those of transformers on its own input."""

import numpy as np
import pytest
import torch
import transformers

from fairseq_bert_kd.functional.text_input import BIDIRECTIONAL, TextLayout
from fairseq_bert_kd.storage.word_vectors import WordVectors
from fairseq_bert_kd.teachers.interface import WordPredictor
from fairseq_bert_kd.teachers.load_masked_lm import load_masked_lm
from fairseq_bert_kd.teachers.word_candidates import MASKED_ONLY, ORIGINAL, WordCandidates
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.replaceable_words import STOP_WORDS, SentenceSplitter
from tests.one_sided_chain import without_head
from tests.tiny_chain import build_teacher_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_teacher_folder("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return HfTokenizer(str(folder))


class FakeMaskedLM:
    """Ranks pieces in a known order, by what is masked; notes the inputs that it was given."""

    def __init__(self, tokenizer, ranked, max_positions=40):
        self.tokenizer, self.ranked, self.positions = tokenizer, ranked, max_positions
        self.inputs = []

    def text_layout(self):
        every = torch.arange(self.tokenizer.vocab_size)
        return TextLayout(BIDIRECTIONAL, (every,), self.tokenizer.text_format())

    def extract_features(self, positions, input_ids, token_type_ids, attention_mask=None):
        assert (input_ids.flatten()[positions] == self.tokenizer.special_id("mask")).all()
        self.inputs.append((input_ids, token_type_ids, attention_mask))
        return positions[:, None].float()

    def project(self, features):
        scores = torch.full((len(features), self.tokenizer.vocab_size), -1e3)
        for rank, piece in enumerate(self.ranked):
            scores[:, self.tokenizer._vocab[piece]] = -float(rank)
        return scores

    def input_embeddings(self):
        return torch.eye(self.tokenizer.vocab_size)

    def max_positions(self):
        return self.positions

    def tokenizer_digest(self):
        return self.tokenizer.digest()


def finder(model, tokenizer, count=4, context=ORIGINAL, batch_size=64, vectors=None):
    return WordCandidates(model, tokenizer, count, context, batch_size, vectors)


def split(tokenizer, *texts):
    return [SentenceSplitter(tokenizer).split(text) for text in texts]


RANKED = ["##s", "man", "[SEP]", "people", "[UNK]", "eat"]


def test_best_whole_words_in_their_order(tokenizer):
    model = FakeMaskedLM(tokenizer, RANKED)
    assert isinstance(model, WordPredictor)
    sentences = split(tokenizer, "the men eat", "(men), the", "the of")
    # the best four are a continuing piece, a word, a special symbol and a word
    expected = [{1: ["man", "people"], 2: ["man", "people"]}, {0: ["(man),", "(people),"]}, {}]
    assert finder(model, tokenizer).of(sentences) == expected
    assert finder(model, tokenizer, count=6).of(sentences)[0][1] == ["man", "people", "eat"]
    assert finder(model, tokenizer, count=1).of(sentences) == [{}, {}, {}]  # nothing but the continuing piece


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_inputs_by_hand_and_a_sentence_in_one_batch(tokenizer, batch_size):
    model = FakeMaskedLM(tokenizer, RANKED)
    finder(model, tokenizer, batch_size=batch_size).of(split(tokenizer, "the men eat", "men eat", "men"))
    cls, sep, mask = 2, 3, 4
    the, men, eat = (tokenizer.text_to_ids(word)[0] for word in ("the", "men", "eat"))
    rows = {
        (cls, mask, sep, men, sep), (cls, mask, eat, sep, men, eat, sep), (cls, men, mask, sep, men, eat, sep),
        (cls, the, mask, eat, sep, the, men, eat, sep), (cls, the, men, mask, sep, the, men, eat, sep),
    }  # fmt: skip
    seen = []
    for ids, segments, attention in model.inputs:
        for row in range(len(ids)):
            length = ids.size(1) if attention is None else int(attention[row].sum())
            seen.append(tuple(ids[row, :length].tolist()))
            middle = seen[-1].index(sep) + 1
            assert segments[row, :length].tolist() == [0] * middle + [1] * (length - middle)
    assert len(seen) == 5
    assert set(seen) == rows
    sizes = [len(ids) for ids, _, _ in model.inputs]
    assert sizes == {1: [1, 2, 2], 3: [3, 2], 64: [5]}[batch_size]


def test_masked_sentence_alone(tokenizer):
    model = FakeMaskedLM(tokenizer, RANKED)
    finder(model, tokenizer, context=MASKED_ONLY).of(split(tokenizer, "the men"))
    ((ids, segments, attention),) = model.inputs
    assert ids.tolist() == [[2, *tokenizer.text_to_ids("the"), 4, 3]]
    assert not segments.any()
    assert attention is None


def test_words_of_several_pieces_take_the_nearest_embeddings(tokenizer):
    """With one axis a piece, the mean over pieces is nearest to the pieces themselves."""
    model = FakeMaskedLM(tokenizer, RANKED)
    (sentence,) = split(tokenizer, "manman")
    assert {tokenizer._vocab[piece] for piece in ("man", "##man")} == set(sentence.pieces)
    model.input_embeddings = lambda: (
        torch.eye(tokenizer.vocab_size)
        + 0.1
        * torch.eye(tokenizer.vocab_size).roll(tokenizer._vocab["people"] - tokenizer._vocab["man"], dims=1)
    )
    assert finder(model, tokenizer, count=1).of([sentence]) == [{0: ["man"]}]
    assert model.inputs == []


def test_words_of_several_pieces_by_word_vectors(tokenizer):
    listed = WordVectors(
        ("manman", "eatman", "a b", "far"), np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1]], np.float32)
    )
    model = FakeMaskedLM(tokenizer, RANKED)
    find = finder(model, tokenizer, count=2, vectors=listed)
    # itself and what holds a space are left out; an unknown word has none
    assert find.of(split(tokenizer, "ManMan, menmen")) == [{0: ["eatman,"]}]
    assert find.of(split(tokenizer, "manman")) == [{0: ["eatman"]}]


def test_sentences_that_do_not_fit(tokenizer):
    (sentence,) = split(tokenizer, "the men eat")
    # [CLS] 3 [SEP] 3 [SEP] is 9 positions; positions of the model do not count [CLS]
    assert finder(FakeMaskedLM(tokenizer, RANKED, max_positions=8), tokenizer).fits(sentence)
    assert not finder(FakeMaskedLM(tokenizer, RANKED, max_positions=7), tokenizer).fits(sentence)
    assert finder(FakeMaskedLM(tokenizer, RANKED, max_positions=4), tokenizer, context=MASKED_ONLY).fits(
        sentence
    )


@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "distilbert"])
@pytest.mark.parametrize("context", [ORIGINAL, MASKED_ONLY])
def test_transformers_gives_the_same_words(tmp_path, name, context):
    folder = build_teacher_folder(name, tmp_path / name)
    model, tokenizer = load_masked_lm(str(folder))
    whole = tokenizer.whole_words()
    known = [word for word in whole.values() if len(word) > 1 and word.islower() and word not in STOP_WORDS]
    words = [word for word in known if len(tokenizer.text_to_ids(f" {word}")) == 1][:3]
    text = " ".join(["of", *words])
    (found,) = finder(model, tokenizer, count=tokenizer.vocab_size, context=context).of(
        split(tokenizer, text)
    )
    assert list(found) == list(range(1, len(words) + 1))
    assert len(words) == 3
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    mark = "" if tokenizer.kind == "byte-level" else " "  # the word's piece holds the space
    for place, word in enumerate(words, 1):
        masked = text.replace(f" {word}", mark + hf_tokenizer.mask_token, 1)
        texts = (masked, text) if context == ORIGINAL else (masked,)
        inputs = hf_tokenizer(*texts, return_tensors="pt")
        if name in ("roberta", "distilbert"):
            inputs.pop("token_type_ids", None)
        at = inputs["input_ids"][0].tolist().index(hf_tokenizer.mask_token_id)
        order = theirs(**inputs).logits[0, at].argsort(descending=True).tolist()
        expected = list(dict.fromkeys(whole[token] for token in order if token in whole))
        assert found[place][:20] == expected[:20]


def test_folder_without_a_head_is_refused(tmp_path):
    folder = without_head(build_teacher_folder("bert", tmp_path / "bert"), tmp_path / "encoder")
    with pytest.raises(
        ValueError, match=r"lacks .* weights of its masked language modelling head .*--cmlm-one-sided"
    ):
        load_masked_lm(str(folder))


def test_checkpoint_of_pairs_is_refused(chain):
    with pytest.raises(
        ValueError, match="is not a masked language model of single sentences but a `hf_masked_lm` of pairs"
    ):
        load_masked_lm(str(chain.teacher))
