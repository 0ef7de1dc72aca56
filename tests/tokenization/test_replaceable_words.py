import pytest

from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.replaceable_words import (
    STOP_WORDS,
    SentenceSplitter,
    Word,
    read_stop_words,
    split_word,
)
from tests.tokenization.tiny_tokenizers import KINDS, build_tokenizer


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / request.param
    build_tokenizer(request.param, folder)
    return HfTokenizer(str(folder))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("movie", ("", "movie", "")),
        ('("movie",', ('("', "movie", '",')),
        ("don't", ("", "don't", "")),
        ("_x_", ("_", "x", "_")),
        ("--", ("--", "", "")),
        ("état.", ("", "état", ".")),
    ],
)
def test_punctuation_at_the_edges_of_a_word_is_apart(text, expected):
    assert split_word(text) == Word(*expected)
    assert "".join(split_word(text)) == text


def test_pieces_are_those_of_the_sentence(tokenizer):
    for text in ("the man in a blue shirt", "Two men, (near) a man.", "don't, eat 1,000 people", "a", ""):
        sentence = SentenceSplitter(tokenizer).split(text)
        assert sentence.pieces == tokenizer.text_to_ids(text) or tokenizer.kind == "sentencepiece"
        assert " ".join(map("".join, sentence.words)) == text


def test_spans_hold_the_pieces_of_their_words(tokenizer):
    sentence = SentenceSplitter(tokenizer).split("the man, standing near people")
    texts = {place: sentence.words[place].core for place in sentence.spans}
    assert texts == {1: "man", 2: "standing", 3: "near", 4: "people"}
    for place, (start, stop) in sentence.spans.items():
        assert sentence.pieces[start:stop] == tokenizer.text_to_ids(f" {texts[place]}")


def test_only_words_of_letters_that_are_no_stop_words(tokenizer):
    splitter = SentenceSplitter(tokenizer)
    assert splitter.split("The THE a of isn't 10 x2 . --").spans == {}
    assert list(SentenceSplitter(tokenizer, {"man"}).split("man the Man").spans) == [1]


def test_word_in_brackets(tokenizer):
    """Its pieces are those of a word without white space before it, or it is left alone."""
    sentence = SentenceSplitter(tokenizer).split("men (near)")
    if tokenizer.kind == "sentencepiece":
        assert list(sentence.spans) == [0]
    else:
        start, stop = sentence.spans[1]
        assert sentence.pieces[start:stop] == tokenizer.text_to_ids("near")


def test_letters_that_the_tokenizer_does_not_know_are_left_alone(tmp_path):
    build_tokenizer("bert_uncased", tmp_path)
    sentence = SentenceSplitter(HfTokenizer(str(tmp_path))).split("man 漢字 man")
    assert list(sentence.spans) == [0, 2]


def test_whole_words_are_pieces_without_marks(tokenizer):
    whole = tokenizer.whole_words()
    assert "a" in whole.values()
    assert not any("##" in word or " " in word for word in whole.values())
    assert not set(whole) & {tokenizer.special_id(role) for role in ("cls", "mask", "pad", "unk")}
    assert list(whole) == sorted(whole)


def test_stop_words_are_lower_case_letters():
    assert all(word.isalpha() and word == word.lower() for word in STOP_WORDS)
    assert {"the", "not", "s"} <= STOP_WORDS
    assert not {"good", "film"} & STOP_WORDS


def test_stop_words_of_a_file(tmp_path):
    path = tmp_path / "stop"
    path.write_text("Man\nthe  a\n", encoding="utf-8")
    assert read_stop_words(str(path)) == {"man", "the", "a"}
    path.write_text(" \n")
    with pytest.raises(ValueError, match="has no words; leave the option out"):
        read_stop_words(str(path))
    path.write_bytes(b"M\xe4nner")
    with pytest.raises(ValueError, match="must be UTF-8"):
        read_stop_words(str(path))
