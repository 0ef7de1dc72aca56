"""Mentions of entities: from characters of a text to pieces, and by a dictionary of names."""

import bisect
import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

# Chinese has no spaces between words: each character is one, as BERT's tokenizers see it
_IDEOGRAPH = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_PART = re.compile(rf"{_IDEOGRAPH}|(?:(?!{_IDEOGRAPH})\w)+|[^\w\s]")


class Mention(NamedTuple):
    """A part of a text that names an entity.

    Attributes:
        begin: first character, or piece.
        end: the one after the last.
        entity: its id.
    """

    begin: int
    end: int
    entity: str


def outermost(mentions: Iterable[Mention], first: Sequence[Mention] = ()) -> list[Mention]:
    """The longest mentions, without those that overlap a longer one, in their order.

    Args:
        mentions: of one text.
        first: those among them that are kept whatever overlaps them.

    Raises:
        ValueError: two of the first ones overlap.
    """
    kept = sorted(first)
    for one, other in itertools.pairwise(kept):
        if other.begin < one.end:
            raise ValueError(
                f"the arguments {one.entity} and {other.entity} overlap; name mentions that stand apart"
            )
    for mention in sorted(mentions, key=lambda one: (one.begin - one.end, one.begin)):
        if all(mention.end <= other.begin or mention.begin >= other.end for other in kept):
            kept.append(mention)
    return sorted(kept)


def align_mentions(
    tokenizer: HfTokenizer,
    text: str,
    pieces: Sequence[str],
    mentions: Sequence[Mention],
    skip_inside: bool = False,
) -> list[Mention]:
    """Mentions in pieces instead of characters.

    Args:
        tokenizer: tokenizer that makes the pieces.
        text: the text before the tokenizer's rules changed case, accents or spaces.
        pieces: symbols of the text.
        mentions: mentions in characters of ``text``.
        skip_inside: whether a mention that begins or ends inside a piece is left out; otherwise it is an error.

    Raises:
        ValueError: a mention is empty, lies outside the text, or begins or ends inside a piece.
    """
    if not mentions:
        return []
    normal = tokenizer.normalise(text)

    @functools.cache
    def spelled(count: int) -> str:
        return tokenizer.decode(pieces[:count])

    def most(place: int) -> int:
        """How many pieces, the most, spell no more than so many characters."""
        return bisect.bisect_right(range(len(pieces) + 1), place, key=lambda n: len(spelled(n))) - 1

    aligned = []
    for begin, end, entity in mentions:
        if not 0 <= begin < end <= len(text):
            raise ValueError(
                f"mention {begin} to {end} of {entity} is not inside the text of {len(text)} characters; correct its offsets"
            )
        said = tokenizer.normalise(text[begin:end]).strip()
        start = _after_space(normal, len(tokenizer.normalise(text[:begin]).rstrip()))
        stop = start + len(said)
        first, last = most(start), most(stop)
        whole = (  # a piece may end inside a letter, of which it spells a U+FFFD
            normal.startswith(spelled(first))
            and _after_space(normal, len(spelled(first))) == start
            and normal[start:stop] == said
            and normal[:stop] == spelled(last)
        )
        if said and not whole and skip_inside:
            continue
        if not said or not whole:
            raise ValueError(
                f"mention {begin} to {end} of {entity}, {text[begin:end]!r}, begins or ends inside a piece of {' '.join(pieces)!r}; "
                "correct its offsets, or leave it out"
            )
        aligned.append(Mention(first, last, entity))
    return aligned


def _after_space(text: str, place: int) -> int:
    """The first place from this one on that is no white space."""
    return len(text) - len(text[place:].lstrip())


class Word(NamedTuple):
    """A word of a text without case, or a sign that belongs to none; first character, and the one after the last."""

    said: str
    begin: int
    end: int


def words_of(text: str) -> list[Word]:
    """Words and signs of a text. A combining mark, such as an accent or a vowel sign, belongs to what it stands in."""
    words: list[Word] = []
    for part in _PART.finditer(text):
        said, begin, end = part[0].casefold(), part.start(), part.end()
        mark = _is_mark(text[begin])
        goes_on = mark or (part[0].isalnum() and _is_mark(text[begin - 1]))
        if words and words[-1].end == begin and goes_on:
            words[-1] = Word(words[-1].said + said, words[-1].begin, end)
        else:
            words.append(Word(said, begin, end))
    return words


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


class DictionaryLinker:
    """Finds names of entities in a text, the longest at each word.

    Args:
        names: names with their entities; names are compared by words, without case, and the first of equal ones counts.
        normalise: what was done to the texts, as `HfTokenizer.normalise` does; it is done to the names too.

    Attributes:
        ambiguous: names left out, since an equal one before them names another entity.
        found: words of the names that `link` has found so far.
    """

    def __init__(self, names: Iterable[tuple[str, str]], normalise: Callable[[str], str] = str):
        self._entities: dict[tuple[str, ...], str] = {}
        self.ambiguous: list[str] = []
        self.found: set[tuple[str, ...]] = set()
        for name, entity in names:
            words = tuple(word.said for word in words_of(normalise(name)))
            if words and self._entities.setdefault(words, entity) != entity:
                self.ambiguous.append(name)
        self._longest = max(map(len, self._entities), default=0)

    def __len__(self) -> int:
        """Number of different names."""
        return len(self._entities)

    def link(self, text: str) -> list[Mention]:
        """Mentions in characters of a text, from left to right, none of which overlap."""
        words = words_of(text)
        found, place = [], 0
        while place < len(words):
            for size in range(min(self._longest, len(words) - place), 0, -1):
                name = tuple(word.said for word in words[place : place + size])
                entity = self._entities.get(name)
                if entity is not None:
                    self.found.add(name)
                    found.append(Mention(words[place].begin, words[place + size - 1].end, entity))
                    place += size - 1
                    break
            place += 1
        return found
