"""Moses's tokens to readable text and back."""

import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parents[3] / "examples" / "recipes"
sys.path.insert(0, str(RECIPES))

from moses_text import (  # noqa: E402
    as_moses_tokens,
    detokenise,
    readable,
    split_compounds,
    splits_hyphens,
    tokenise,
)


@pytest.mark.parametrize(
    ("tokens", "text", "split"),
    [
        ("don &apos;t you know ?", "don 't you know ?", False),
        ("a &quot; b &quot; &#91; c &#93; &#124; d", 'a " b " [ c ] | d', False),
        ("R &amp; D , x &lt; y &gt; z", "R & D , x < y > z", False),
        ("it is written &amp;lt;", "it is written &lt;", False),  # the text itself had an escape
        ("state @-@ of @-@ the @-@ art", "state-of-the-art", True),
        ("state-of-the-art", "state-of-the-art", False),
        ("- no , a - b", "- no , a - b", True),  # hyphens that stand alone
        ("", "", True),
    ],
)
def test_readable_text_and_the_way_back(tokens, text, split):
    assert readable(tokens) == text
    assert as_moses_tokens(text, split_hyphens=split) == tokens


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "raw", ['Jack\'s "low-cost" shop & co. [x|y]', "U.S.-led, 3-4 <b>", "Ein &amp; Müller-Straße's"]
)
def test_what_moses_tokenises_comes_back(raw, split):
    tokens = tokenise(raw, "en", split)
    assert ("@-@" in tokens) == split
    assert as_moses_tokens(readable(tokens), split) == tokens


def test_a_hyphen_of_stanfords_files_is_joined_too():
    assert readable("rich ##AT##-##AT## text") == "rich-text"


def test_split_hyphens_are_recognised_as_tokens():
    assert splits_hyphens(["a", "low @-@ cost"])
    assert not splits_hyphens(["me@-@you", "low-cost"])


def test_detokenised_text_has_neither_escapes_nor_split_hyphens():
    assert detokenise("don &apos;t buy low @-@ cost , ok ?", "en") == "don't buy low-cost, ok?"


@pytest.mark.parametrize(
    ("tokens", "split"),
    [
        ("rich-text format", "rich ##AT##-##AT## text format"),
        ("rich @-@ text format", "rich ##AT##-##AT## text format"),
        ("a-b-c", "a ##AT##-##AT## b-c"),  # as the Perl rule, whose matches do not overlap
        ("ab-cd-ef", "ab ##AT##-##AT## cd ##AT##-##AT## ef"),
        ("a - b -", "a - b -"),
    ],
)
def test_compounds(tokens, split):
    assert split_compounds(tokens) == split


def test_a_missing_sacremoses_is_named(monkeypatch, capsys):
    import corpus
    import moses_text

    monkeypatch.setitem(sys.modules, "sacremoses", None)
    moses_text._moses.cache_clear()
    with pytest.raises(SystemExit, match="2"):
        corpus.run(lambda: tokenise("a", "en"))
    said = capsys.readouterr().err
    assert "sacremoses" in said
    assert "pip install 'fairseq-bert-kd[recipes]'" in said
