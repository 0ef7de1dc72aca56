import dataclasses
import json

import numpy as np
import pytest
from fairseq.data import Dictionary
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.tokenization.dictionary import (
    dictionary_digests,
    excluded_ids,
    full_dictionary,
    map_dictionary,
    piece_ids,
    sentence_vocabulary,
    teacher_vocabulary,
)
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.tokenization.tiny_tokenizers import KINDS, TEXT, build_tokenizer

# ids of the tiny tokenizers: start, padding, last (end of sentence), unknown
SPECIAL_IDS = {
    "bert_uncased": (2, 0, 3, 1),
    "bert_cased": (2, 0, 3, 1),
    "roberta": (0, 1, 2, 3),
    "xlmr": (0, 1, 2, 3),
}
TEXT_FORMATS = {
    "bert_uncased": TextFormat((2,), (3,), mask=4, pad=0, segments=(0, 1)),
    "bert_cased": TextFormat((2,), (3,), mask=4, pad=0, segments=(0, 1)),
    "roberta": TextFormat((0,), (2, 2), mask=4, pad=1, segments=(0, 0)),
    "xlmr": TextFormat((0,), (2, 2), mask=4, pad=1, segments=(0, 0)),
}
WORDPIECE = ("bert_uncased", "bert_cased")  # the kinds that write `@@` before a glued piece
OTHER_ID = {
    "bert_uncased": ("the", "##the"),
    "bert_cased": ("the", "##the"),
    "roberta": ("the", "Ġthe"),
    "xlmr": ("the", "▁the"),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    path = tmp_path_factory.mktemp(kind)
    build_tokenizer(kind, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return HfTokenizer(str(folder))


def dictionary_of(*symbols):
    dictionary = Dictionary()
    for symbol in symbols:
        dictionary.add_symbol(symbol)
    return dictionary


def corpus_dictionary(tokenizer):
    """Dictionary of the tiny corpus in pieces, some characters only as bytes, padded with filler words."""
    dictionary = dictionary_of(
        *(symbol for line in [*TEXT, "a 🙂 and ǆ"] for symbol in tokenizer.encode(line))
    )
    dictionary.finalize(padding_factor=8)
    return dictionary


def slow_id(symbol, vocabulary, special):
    """Teacher id of one symbol from the tokenizer's file: marker off, then a look-up."""
    cls_id, pad_id, last_id, unk_id = special
    own = {"<s>": cls_id, "<pad>": pad_id, "</s>": last_id, "<unk>": unk_id}
    if symbol in own:
        return own[symbol]
    if symbol.startswith("madeupword"):
        return unk_id
    piece = symbol.removeprefix("@@")
    return vocabulary[piece] if piece in vocabulary else unk_id if piece.startswith("<0x") else None


def vocabulary_of(folder):
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: (piece, score)
        vocabulary = {piece: place for place, (piece, _) in enumerate(vocabulary)}
    return vocabulary | {token["content"]: token["id"] for token in content["added_tokens"]}


def test_every_symbol_has_exactly_one_id(kind, folder, tokenizer):
    dictionary = corpus_dictionary(tokenizer)
    ids = map_dictionary(tokenizer, dictionary, "source")
    assert ids.dtype == np.int64
    assert ids.shape == (len(dictionary),)
    assert ids.min() >= 0
    assert ids.max() < tokenizer.vocab_size
    vocabulary = vocabulary_of(folder)
    expected = [slow_id(symbol, vocabulary, SPECIAL_IDS[kind]) for symbol in dictionary.symbols]
    assert ids.tolist() == expected
    assert len(set(expected)) > 50  # not all the same


def test_specials(kind, tokenizer):
    cls_id, pad_id, last_id, unk_id = SPECIAL_IDS[kind]
    ids = map_dictionary(tokenizer, Dictionary(), "source")
    assert ids.tolist() == [cls_id, pad_id, last_id, unk_id]  # fairseq's <s> <pad> </s> <unk>


def test_end_of_sentence_is_the_id_that_closes_the_pair(kind, tokenizer):
    dictionary = Dictionary()
    ids = map_dictionary(tokenizer, dictionary, "target")
    assert ids[dictionary.eos()] == SPECIAL_IDS[kind][2] == tokenizer.closing_id


def test_filler_words_are_unknown(kind, tokenizer):
    dictionary = dictionary_of("a")
    dictionary.pad_to_multiple_(8)
    assert dictionary.symbols[-3:] == ["madeupword0000", "madeupword0001", "madeupword0002"]
    ids = map_dictionary(tokenizer, dictionary, "source")
    assert ids[-3:].tolist() == [SPECIAL_IDS[kind][3]] * 3
    assert ids[4] == tokenizer.piece_to_id("a")


def test_excluded_are_start_padding_and_filler_words():
    dictionary = dictionary_of("a", "madeupword", "madeupword12", "madeupword00001")
    dictionary.pad_to_multiple_(8)
    assert dictionary.symbols == [
        "<s>", "<pad>", "</s>", "<unk>", "a", "madeupword", "madeupword12", "madeupword00001",
    ]  # fmt: skip
    assert excluded_ids(dictionary).tolist() == [0, 1]  # words that only look like fillers may be targets
    dictionary.add_symbol("b")
    dictionary.pad_to_multiple_(4)
    assert dictionary.symbols[8:] == ["b", "madeupword0000", "madeupword0001", "madeupword0002"]
    assert excluded_ids(dictionary).tolist() == [0, 1, 9, 10, 11]


def test_word_that_only_looks_like_a_filler_is_refused(tokenizer):
    with pytest.raises(ValueError, match="'madeupword12'"):
        map_dictionary(tokenizer, dictionary_of("madeupword12"), "source")


def test_glued_symbol_shares_the_id_of_its_piece(kind, tokenizer):
    dictionary = dictionary_of("the", "@@the")
    if kind in WORDPIECE:
        ids = map_dictionary(tokenizer, dictionary, "source")
        assert ids[4] == ids[5] == tokenizer.piece_to_id("the")
    else:  # no marker of theirs
        with pytest.raises(ValueError, match="1 of 6 are not: '@@the'. Likely"):
            map_dictionary(tokenizer, dictionary, "source")


def test_symbols_that_differ_in_their_marker(kind, tokenizer):
    ids = map_dictionary(tokenizer, dictionary_of(*OTHER_ID[kind]), "source")
    assert ids[4] != ids[5]


def test_byte_symbols_are_unknown(kind, tokenizer):
    ids = map_dictionary(tokenizer, dictionary_of("<0xF0>", "<0x9F>"), "source")
    assert ids[4:].tolist() == [SPECIAL_IDS[kind][3]] * 2


def test_unknown_symbols_are_refused_with_their_names_count_and_cause(tokenizer):
    strangers = [f"qqxz{place}" for place in range(10)]
    with pytest.raises(ValueError, match="symbol of the target dictionary must be a piece") as refusal:
        map_dictionary(tokenizer, dictionary_of("a", *strangers), "target")
    message = str(refusal.value)
    assert "10 of 15 are not: 'qqxz0', 'qqxz1'," in message
    assert "'qqxz7' and 2 more." in message
    assert "'qqxz8'" not in message
    assert "tokenised with another tokenizer (or not at all)" in message
    assert "Run `fairseq-bert-kd tokenize`" in message


def test_few_unknown_symbols_are_all_named(tokenizer):
    with pytest.raises(ValueError, match="2 of 6 are not: 'qqxz', 'xzqq'. Likely") as refusal:
        map_dictionary(tokenizer, dictionary_of("qqxz", "xzqq"), "source")
    assert "source dictionary" in str(refusal.value)


def test_vocabulary_of_both_sides(kind, tokenizer):
    source, target = dictionary_of("a", "n"), dictionary_of("n", "a", "e")
    vocabulary = teacher_vocabulary(tokenizer, {"source": source, "target": target})
    assert vocabulary.text_format == TEXT_FORMATS[kind]
    a, n, e = (tokenizer.piece_to_id(letter) for letter in "ane")
    assert vocabulary.to_teacher["source"].tolist() == [*SPECIAL_IDS[kind], a, n]
    assert vocabulary.to_teacher["target"].tolist() == [*SPECIAL_IDS[kind], n, a, e]
    assert vocabulary.digests == {
        "tokenizer": tokenizer.digest(),
        **dictionary_digests({"source": source, "target": target}),
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        vocabulary.digests = {}


def test_digests_tell_dictionaries_apart():
    one, other = dictionary_of("a", "n"), dictionary_of("n", "a")
    digests = dictionary_digests({"source": one, "target": other})
    assert set(digests) == {"source_dictionary", "target_dictionary"}
    assert digests["source_dictionary"] != digests["target_dictionary"]
    swapped = dictionary_digests({"source": other, "target": one})
    assert swapped["source_dictionary"] == digests["target_dictionary"]
    assert dictionary_digests({"source": one, "target": dictionary_of("n", "a")}) == digests


@pytest.mark.parametrize("side", ["source", "target"])
def test_refusal_names_the_side(tokenizer, side):
    dictionaries = {"source": dictionary_of("a"), "target": dictionary_of("a")}
    dictionaries[side] = dictionary_of("qqxz")
    with pytest.raises(ValueError, match=f"every symbol of the {side} dictionary"):
        teacher_vocabulary(tokenizer, dictionaries)


def test_real_pieces_are_no_special_symbols_fillers_or_bytes():
    dictionary = dictionary_of(
        "the",
        "<0xF0>",
        "@@<0x9F>",
        "@@s",
        "##ing",
        "madeupword0000",
        "madeupword",
        "[unused7]",
        "@@[unused8]",
    )
    assert [dictionary[index] for index in piece_ids(dictionary)] == ["the", "@@s", "##ing", "madeupword"]


ANYTHING = [
    "a b  c",
    "don't",
    "\u4e2d\u6587 🙂",
    "x" * 200,
    "½\u200b",
    "TÄST-äst",
    "<s> [SEP] @@a ##b",
    "\u01c6",
    "(well-known) 'tis \u0645\u0631\u062d\u0628\u0627 @@ ## \u2581 madeupword0000 \u0130 \u1e9e <0x41> \ufeff",
]


def test_the_full_dictionary_spells_any_text(tokenizer):
    dictionary = full_dictionary(tokenizer)
    pieces = {piece for line in (*TEXT, *ANYTHING) for piece in tokenizer.encode(line)}
    assert [piece for piece in pieces if piece not in dictionary.indices] == []
    assert len(set(dictionary.symbols)) == len(dictionary)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_nor_is_any_other_text_unknown(tokenizer, line):
    assert full_dictionary(tokenizer).indices.keys() >= set(tokenizer.encode(line))


def test_the_full_dictionary_is_known_to_the_encoder(tokenizer):
    dictionary = full_dictionary(tokenizer)
    vocabulary = sentence_vocabulary(tokenizer, dictionary)
    ids = vocabulary.token_to_encoder
    assert ids.shape == (len(dictionary),)
    assert ids.max() < vocabulary.encoder_size == tokenizer.vocab_size
    piece = tokenizer.encode("the man")[0]
    assert ids[dictionary.index(piece)] == tokenizer.piece_to_id(piece)
    assert vocabulary.digests["tokenizer"] == tokenizer.digest()
    # nothing of the vocabulary that a text can hold is missing
    assert set(ids) >= {tokenizer.piece_to_id(piece) for line in TEXT for piece in tokenizer.encode(line)}
