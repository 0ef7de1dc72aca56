"""Rewards: texts in, numbers from 0 to 1 out."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fairseq_bert_kd.rewards.combined import WeightedSum, format_terms, parse_terms
from fairseq_bert_kd.rewards.controls import controlled
from fairseq_bert_kd.rewards.evaluator import (
    Evaluator,
    check_held_out,
    check_same_case,
    load_evaluator,
    positive_class,
)
from fairseq_bert_kd.rewards.interface import CachedReward, Reward
from fairseq_bert_kd.rewards.overlap import BleuReward, RougeReward, SourceBleu
from fairseq_bert_kd.rewards.registry import NAMES, build_reward, parts_of
from fairseq_bert_kd.rewards.similarity import CosineReward, PretrainedVectors
from fairseq_bert_kd.storage.sentence_data import SentenceSpec
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.rewards.case_readers import evaluator_reading
from tests.tiny_chain import logged
from tests.tiny_sentences import prepare, write_table
from tests.tiny_sentences import train as train_sentences


class Known(Reward):
    """Rewards by hypothesis; counts what it is asked."""

    name = "known"

    def __init__(self, by_text):
        self.by_text, self.asked = by_text, []

    def _scores(self, sources, hypotheses, references):
        self.asked += hypotheses
        return np.array([self.by_text[text] for text in hypotheses])


def test_empty_texts_get_0_and_are_not_scored():
    reward = Known({"a": 0.5})
    assert reward(["x"] * 3, ["", "a", "  "], ["y"] * 3).tolist() == [0, 0.5, 0]
    assert reward.asked == ["a"]
    assert reward(["x"], [""], ["y"]).tolist() == [0]


@pytest.mark.parametrize("value", [1.1, -0.1, float("nan")])
def test_a_reward_out_of_range_is_refused_with_its_pair(value):
    with pytest.raises(
        ValueError, match=r"`known` must be a number from 0 to 1, got .* source 'x2' and hypothesis 'b'"
    ):
        Known({"a": 0.5, "b": value})(["x1", "x2"], ["a", "b"], ["y", "y"])


def test_scored_once_by_source_text_and_reference():
    inner = Known({"a": 0.5, "b": 0.25})
    reward = CachedReward(inner, limit=2)
    asked = (["x", "x", "x", "z"], ["a", "b", "a", "a"], ["y"] * 4)
    assert reward(*asked).tolist() == [0.5, 0.25, 0.5, 0.5]
    assert inner.asked == ["a", "b", "a"]
    assert (reward.asked, reward.scored) == (4, 3)
    reward(["z"], ["a"], ["y"])
    assert reward.scored == 3
    reward(["x"], ["a"], ["y"])  # the oldest was forgotten
    assert reward.scored == 4


def test_what_is_remembered_is_of_the_same_reference():
    found = CachedReward(BleuReward())(["x", "x"], ["a b", "a b"], ["a b", "c d"])
    assert found == pytest.approx([1, 0], abs=1e-9)


def test_overlap_by_hand():
    pairs = (["the cat sat", "x"], ["the cat sat", "a b c d"], ["the cat ran", "a b c d"])
    assert RougeReward("rouge-1")(*pairs) == pytest.approx([2 / 3, 1])
    assert RougeReward("rouge-2")(*pairs) == pytest.approx([1 / 2, 1])
    assert RougeReward("rouge-l")(*pairs) == pytest.approx([2 / 3, 1])
    assert BleuReward()(*pairs)[1] == pytest.approx(1)
    # 1- to 3-grams: 2/3, 1/2, and none of one, which smoothing counts as a half
    assert BleuReward()(*pairs)[0] == pytest.approx((2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3))
    assert SourceBleu()(*pairs) == pytest.approx([1, 0], abs=1e-9)
    # half of the source: all of its 1- and 2-grams, and the brevity penalty of 2 words for 4
    assert SourceBleu()(["a b c d"], ["a b"], ["x"]) == pytest.approx([np.exp(1 - 4 / 2)])


@pytest.mark.parametrize(
    ("references", "said"), [(["Wie schön ist es"], 0), (["ein Hund", "Собака спит"], 1), (["Собака"], 1)]
)
def test_rouge_says_once_that_it_does_not_read_a_script(references, said):
    reward = RougeReward("rouge-2")
    with logged("fairseq_bert_kd.rewards.overlap") as messages:
        for _ in range(2):
            assert len(reward(references, references, references)) == len(references)
    assert len(messages) == said
    assert all("Reward by `bleu` instead" in message for message in messages)


@pytest.mark.parametrize(
    ("text", "tokenize", "score", "said"),
    [
        ("我们喜欢翻译。", "13a", 0, 1),  # one word, and another one
        ("我们喜欢翻译。", "zh", 0.61297524, 0),
        ("我 们 喜 欢 翻 译 。", "13a", 0.61297524, 0),  # as BERT's tokenizer leaves it
        ("we like to translate .", "13a", 1, 0),
    ],
)
def test_bleu_of_text_without_spaces_between_words(text, tokenize, score, said):
    reference = text.replace("们", "们 很" if " " in text else "们很")
    with logged("fairseq_bert_kd.rewards.overlap") as messages:
        for reward in (BleuReward(tokenize), SourceBleu(tokenize)):
            for _ in range(2):
                assert reward([reference], [text], [reference]) == pytest.approx([score])
    assert len(messages) == 2 * said
    assert all("(Han)" in message and "give --rl-tokenize zh" in message for message in messages)


def test_the_tokenizer_of_bleu_reaches_the_reward():
    pair = ["我们很喜欢翻译。"], ["我们喜欢翻译。"], ["我们很喜欢翻译。"]
    assert build_reward("0.5*bleu+0.5*rouge-1", {}, tokenize="zh")(*pair) == pytest.approx([0.30648762])
    with pytest.raises(ValueError, match="sacreBLEU has no tokenizer `words`"):
        build_reward("bleu", {}, tokenize="words")


def test_sums():
    one, other = Known({"a": 0.5}), Known({"a": 1.0})
    found = WeightedSum([one, other], [0.75, 0.25])
    assert found(["x"], ["a"], ["y"]).tolist() == [0.625]
    assert found.name == "0.75*known+0.25*known"
    assert parse_terms("0.7*evaluator + 0.3 * rouge-2") == [(0.7, "evaluator"), (0.3, "rouge-2")]
    assert parse_terms("bleu") == [(1.0, "bleu")]
    assert format_terms(parse_terms("0.7*evaluator+0.3*rouge-2")) == "0.7*evaluator+0.3*rouge-2"


@pytest.mark.parametrize("text", ["", "0.5*", "2", "bleu+", "0.5.1*bleu+0.5*bleu", "Bleu"])
def test_terms_of_another_form_are_refused(text):
    with pytest.raises(ValueError, match="a reward is a name or a weighted sum such as"):
        parse_terms(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0*rouge-1+1*bleu", "`rouge-1` has weight 0"),
        ("0.5*bleu+0.5*bleu", "`bleu` stands there more than once"),
    ],
)
def test_terms_without_effect_are_refused(text, fault):
    with pytest.raises(
        ValueError, match=f"each term of a reward must count once, in .* {fault}; leave it out"
    ):
        parse_terms(text)


def test_by_name():
    assert isinstance(build_reward("rouge-2", {}), RougeReward)
    found = build_reward("0.5*bleu+0.5*rouge-l", {})
    assert [part.name for part in parts_of(found)] == ["bleu", "rouge-l"]
    assert {"evaluator", "cosine", "rouge-1", "rouge-2", "rouge-l", "bleu"} == set(NAMES)


def test_controls():
    rewards = np.linspace(0, 1, 20)
    assert controlled(rewards, "none", [1]).tolist() == rewards.tolist()
    assert controlled(rewards, "constant", [1]).tolist() == [1.0] * 20
    dealt = controlled(rewards, "shuffled", [1, 2])
    assert sorted(dealt) == rewards.tolist() != dealt.tolist()
    assert dealt.tolist() == controlled(rewards, "shuffled", [1, 2]).tolist()
    assert dealt.tolist() != controlled(rewards, "shuffled", [1, 3]).tolist()


# ---------------------------------------------------------------- evaluators


@pytest.fixture(scope="module")
def evaluator(chain, tmp_path_factory):
    """Checkpoint of a classifier of pairs, classes bad and good."""
    folder = tmp_path_factory.mktemp("evaluator")
    tables = [
        argument
        for seed, split in enumerate(("train", "valid"))
        for argument in (f"--{split}", write_table(folder / f"{split}.tsv", 40, seed, pairs=True))
    ]
    columns = ("--columns", "text,other", "--label-column", "label")
    assert prepare(chain.bert, folder / "data", *columns, *tables) == 0
    return train_sentences(folder / "data", folder / "model", updates=4)


def test_evaluator_gives_the_probability_of_the_named_class(evaluator):
    good, bad = (load_evaluator(str(evaluator), name, "--rl-evaluator") for name in ("good", "bad"))
    sources, hypotheses = ["a man", "an an der", "he"], ["a man eat", "is und", "he is near the people"]
    found = good(sources, hypotheses, hypotheses)
    assert found + bad(sources, hypotheses, hypotheses) == pytest.approx([1, 1, 1])
    assert len(set(found.tolist())) == 3
    turned = good(sources[::-1], hypotheses[::-1], hypotheses)
    assert turned[::-1] == pytest.approx(found, abs=1e-6)  # sorted by length within
    assert not good.model.training
    assert not any(parameter.requires_grad for parameter in good.model.parameters())


def test_evaluator_of_two_classes_is_a_sigmoid():
    logits = torch.tensor([[0.3, 1.5]])

    class Model(torch.nn.Linear):
        def forward(self, texts, lengths, features_only, classification_head_name):
            return logits, {}

        def max_positions(self):
            return 4

    dictionary = SimpleNamespace(index=len, eos=lambda: 2, pad=lambda: 1)
    tokenizer = SimpleNamespace(encode_batch=lambda texts: [text.split() for text in texts])
    found = Evaluator("m", Model(1, 1), "head", dictionary, tokenizer, 1)(["a b c d"], ["a"], ["a"])
    assert found == pytest.approx([1 / (1 + np.exp(0.3 - 1.5))])


def test_evaluator_cuts_pairs_to_its_positions_and_keeps_their_ends():
    """Of 5 and 2 tokens with their ends 2 and 2 are left; of 2 and 1, which comes in another order, all."""
    read = []

    class Model(torch.nn.Linear):
        def forward(self, texts, lengths, features_only, classification_head_name):
            read.append(([text.tolist() for text in texts], [length.tolist() for length in lengths]))
            return torch.tensor([[0.0, 0.0], [0.0, 1.0]]), {}

        def max_positions(self):
            return 4

    dictionary = SimpleNamespace(index=ord, eos=lambda: 2, pad=lambda: 1)
    tokenizer = SimpleNamespace(encode_batch=lambda texts: [text.split() for text in texts])
    found = Evaluator("m", Model(1, 1), "head", dictionary, tokenizer, 1)(
        ["a b c d", "e"], ["f", "."], [""] * 2
    )
    a, e, f, dot = map(ord, "aef.")
    assert read == [([[[e, 2], [a, 2]], [[dot, 2], [f, 2]]], [[2, 2], [2, 2]])]
    assert found == pytest.approx([1 / (1 + np.exp(-1)), 0.5])


def spec(names=("no", "yes"), texts=2, positive=None, kind="classes"):
    return SentenceSpec(kind, names, texts, "t", "d", positive=positive)


def test_positive_class():
    assert positive_class(spec(), "yes", "x") == 1
    assert positive_class(spec(positive="no"), None, "x") == 0
    for wrong, positive, message in (
        (
            spec(),
            None,
            "has the classes no, yes, and none is named as the one of paraphrases; name it with --rl-positive",
        ),
        (spec(), "paraphrase", "has the classes no, yes; `paraphrase` is none of them"),
        (spec(texts=1), "yes", "must classify pairs of texts, but was trained on rows of 1"),
        (spec((), kind="numbers"), "yes", "labels of kind numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            positive_class(wrong, positive, "--rl-evaluator `x`")


def test_another_checkpoint_is_refused(chain):
    with pytest.raises(ValueError, match="is not a classifier of sentences"):
        load_evaluator(str(chain.teacher), "good", "--rl-evaluator")


def test_case_must_agree(chain, tmp_path):
    from tests.tokenization.tiny_tokenizers import build_tokenizer

    build_tokenizer("bert_cased", tmp_path)
    uncased, cased = HfTokenizer(str(chain.bert)), HfTokenizer(str(tmp_path))
    check_same_case(uncased, uncased)
    check_same_case(cased, cased)
    for pair in ((uncased, cased), (cased, uncased)):
        with pytest.raises(ValueError, match="take two tokenizers that agree on case"):
            check_same_case(*pair)


def test_lower_case_is_not_for_an_evaluator_that_reads_case():
    cased, uncased = evaluator_reading(lower_case=False), evaluator_reading(lower_case=True)
    sources, lowered = ["Who is he ?", "a man", "A man"], ["who", "a", "the man"]
    for reward in (cased, WeightedSum([RougeReward("rouge-1"), cased], [0.5, 0.5])):
        with pytest.raises(
            ValueError, match=r"`held_out`, `t`, reads case, 2 of 3 .*: source 'Who is he \?', output 'who'"
        ):
            reward.check_case(sources, lowered)
    uncased.check_case(sources, lowered)
    cased.check_case(sources, ["who", "a", "The man"])
    cased.check_case(["who", "a man", "A man"], lowered)  # a corpus in lower case, but for a name


def test_what_rewards_does_not_judge(tmp_path):
    one, copy, other = (tmp_path / name for name in ("one.pt", "copy.pt", "other.pt"))
    for path, content in ((one, "1"), (copy, "1"), (other, "2")):
        path.write_text(content, encoding="utf-8")
    for second in (one, copy):
        with pytest.raises(ValueError, match=r"--a `.*one.pt` and --b `.*` are the same checkpoint"):
            check_held_out(("--a", str(one)), ("--b", str(second)))
    for second in (str(other), None, "missing.pt"):
        check_held_out(("--a", str(one)), ("--b", second))


def test_an_evaluator_without_its_data_is_refused(evaluator, monkeypatch, tmp_path):
    state = torch.load(evaluator, weights_only=False)
    state["cfg"]["task"]["data"] = "data-evaluator"
    torch.save(state, tmp_path / "evaluator.pt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"--rl-evaluator `.*` was trained on `data-evaluator`, which is not here"
    ):
        load_evaluator(str(tmp_path / "evaluator.pt"), "good", "--rl-evaluator")


def test_cosine_by_hand():
    """At 0, 45, 90 and 180 degrees; below 0 it counts as 0."""
    vectors = {"a": [2, 0], "b": [1, 1], "c": [0, 3], "d": [-1, 0]}
    reward = object.__new__(CosineReward)
    reward._vectors = SimpleNamespace(
        of_texts=lambda texts: torch.tensor([vectors[t] for t in texts]).float()
    )
    found = reward(["a", "a", "c", "a"], ["a", "b", "a", "d"], [""] * 4)
    assert found == pytest.approx([1, 0.5**0.5, 0, 0], abs=1e-6)


def test_cosine_is_that_of_the_mean_vectors(chain):
    from transformers import AutoModel, AutoTokenizer

    reward = CosineReward(str(chain.bert))
    sources, hypotheses = ["a man", "he is near the people"], ["a man", "und"]
    found = reward(sources, hypotheses, hypotheses)
    tokenizer, model = AutoTokenizer.from_pretrained(chain.bert), AutoModel.from_pretrained(chain.bert).eval()
    with torch.no_grad():
        first, second = (
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
            for text in (sources[1], hypotheses[1])
        )
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert found[1] == pytest.approx(max(0.0, float(torch.cosine_similarity(first, second, dim=0))), abs=1e-4)


def test_long_texts_are_cut_and_weights_are_float32(chain, tmp_path):
    """The tokenizer may know no limit, and a folder may be saved in half precision."""
    from transformers import AutoModel

    shutil.copytree(chain.bert, tmp_path / "bert")
    AutoModel.from_pretrained(chain.bert).half().save_pretrained(tmp_path / "bert")
    vectors = PretrainedVectors(str(tmp_path / "bert"))
    vectors._tokenizer.model_max_length = 10**30
    positions = vectors._model.config.max_position_embeddings
    long = " ".join(["man"] * (positions + 50))
    found = vectors.of_texts([long, long + " man", "a man"])
    assert found.dtype == next(vectors._model.parameters()).dtype == torch.float32
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_the_declared_vector_is_taken(chain, tmp_path):
    """Most declare the mean, which is also the default."""
    folder = tmp_path / "bert"
    shutil.copytree(chain.bert, folder)
    mean = PretrainedVectors(str(folder)).of_texts(["a man"])
    (folder / "1_Pooling").mkdir()
    for mode in ("mean_tokens", "cls_token", "max_tokens"):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
        if mode == "mean_tokens":
            torch.testing.assert_close(PretrainedVectors(str(folder)).of_texts(["a man"]), mean)
        elif mode == "cls_token":
            vectors = PretrainedVectors(str(folder))
            inputs = vectors._tokenizer("a man", return_tensors="pt")
            first = vectors._model(**inputs).last_hidden_state[:, 0]
            torch.testing.assert_close(vectors.of_texts(["a man"]), first)
            assert not torch.allclose(first, mean)
        else:
            with pytest.raises(ValueError, match="was made for the pooling max_tokens"):
                CosineReward(str(folder))


def test_an_encoder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not an encoder of sentences that can be loaded"):
        CosineReward(str(tmp_path))


# prints whether the task of sentence models is known where one is loaded
LOADS = """
import sys
from fairseq.tasks import TASK_REGISTRY
import fairseq_bert_kd.rewards.similarity as similarity
def load(path, option):
    raise ValueError(f"registered: {'sentence_prediction_with_teacher' in TASK_REGISTRY}")
similarity.load_vectors = load
from fairseq_bert_kd.cli.main import cli_main
cli_main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["mine-negatives", "score"])
def test_commands_know_the_task_of_a_checkpoint_that_gives_vectors(tmp_path, command):
    """In a process of their own: where tests run, every task is registered."""
    (tmp_path / "pairs.tsv").write_text("cluster\tsource\ttarget\n1\ta\tb\n2\tc\td\n", encoding="utf-8")
    (tmp_path / "text").write_text("a\n", encoding="utf-8")
    (tmp_path / "out").write_text("D-0\t0\ta\n", encoding="utf-8")
    given = {
        "mine-negatives": ("--input", "pairs.tsv", "--output", "mined.tsv"),
        "score": ("out", "--reference", "text", "--sources", "text"),
    }[command]
    call = [sys.executable, "-c", LOADS, command, *given, "--sentence-encoder", "lstm.pt"]
    found = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "registered: True" in found.stderr


def test_a_reward_without_its_file_names_the_option_that_chooses_another():
    files = {"evaluator": ("--evaluator", None)}
    with pytest.raises(ValueError, match="give it, or choose another reward with --rl-reward"):
        build_reward("evaluator", files)
    with pytest.raises(ValueError, match="give it, or choose another reward with --by"):
        build_reward("evaluator", files, option="--by")
