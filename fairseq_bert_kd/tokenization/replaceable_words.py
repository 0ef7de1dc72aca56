"""Words of a sentence that data augmentation may replace, and their pieces."""

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from fairseq_bert_kd.text_lines import open_lines
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

# our own list: words of grammar, and what is left of contractions
STOP_WORDS = frozenset(
    """
    a about above after again against all also although am an and another any are as at be because been before being below
    between both but by can cannot could d did do does doing down during each either else ever every few for from further
    had has have having he her here hers herself him himself his how i if in into is it its itself just ll m may me might
    mine more most much must my myself neither no nor not now nt of off often on once one only or other our ours ourselves
    out over own rather re s same shall she should since so some such t than that the their theirs them themselves then
    there these they this those though through thus to too under until up upon us ve very was we were what when where
    whether which while who whom whose why will with within without would yet you your yours yourself yourselves
    """.split()  # noqa: SIM905  readable as text
)
EDGES = re.compile(r"([\W_]*)(.*?)([\W_]*)")


class Word(NamedTuple):
    """A word between white space: ``before + core + after``, punctuation at its edges apart."""

    before: str
    core: str
    after: str


def split_word(text: str) -> Word:
    """``("movie",`` is ``("``, ``movie`` and ``",``."""
    match = EDGES.fullmatch(text)
    assert match is not None
    return Word(*match.groups())


@dataclass(frozen=True)
class SplitSentence:
    """A sentence in words and pieces.

    Attributes:
        words: words between white space.
        pieces: encoder ids of the sentence, without special tokens.
        spans: first piece and end of the core of each word that may be replaced, by the word's place.
    """

    words: tuple[Word, ...]
    pieces: tuple[int, ...]
    spans: dict[int, tuple[int, int]]


class SentenceSplitter:
    """Splits sentences at white space and finds the words that may be replaced: of letters only, no stop words.

    A word is left alone if its pieces are joined with those of the punctuation beside it, as SentencePiece does, or if the
    tokenizer does not know one of its letters.

    Args:
        tokenizer: tokenizer of the masked language model.
        stop_words: words that stay, in lower case.
    """

    def __init__(self, tokenizer: HfTokenizer, stop_words: Collection[str] = STOP_WORDS):
        self._stop_words, self._unknown = frozenset(stop_words), tokenizer.unk_id
        self._ids = functools.lru_cache(1 << 16)(tokenizer.text_to_ids)

    def split(self, text: str) -> SplitSentence:
        """The sentence in words and pieces."""
        words = tuple(map(split_word, text.split()))
        pieces: list[int] = []
        spans = {}
        for place, word in enumerate(words):
            space = " " if place else ""
            own = self._ids(space + "".join(word))
            if self._is_replaceable(word.core):
                before = self._ids(space + word.before) if word.before else ()
                core = self._ids(word.core if word.before else space + word.core)
                if own[: len(before) + len(core)] == before + core and self._unknown not in core:
                    start = len(pieces) + len(before)
                    spans[place] = (start, start + len(core))
            pieces += own
        return SplitSentence(words, tuple(pieces), spans)

    def _is_replaceable(self, core: str) -> bool:
        return core.isalpha() and core.lower() not in self._stop_words


def read_stop_words(path: str) -> frozenset[str]:
    """Stop words of a file, separated by white space; lower case.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty, or not UTF-8 text.
    """
    words = frozenset(word for line in open_lines(path) for word in line.lower().split())
    if not words:
        raise ValueError(f"--stop-words `{path}` has no words; leave the option out for the built-in list")
    return words
