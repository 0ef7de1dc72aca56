"""Where a text differs from its reference, word by word."""

import difflib
from typing import NamedTuple

MOST_WORDS = 200  # of each side; what follows is not compared, and only counted


class Part(NamedTuple):
    """Words of a comparison.

    Attributes:
        kind: "same", "extra" (not in the reference) or "lacking" (of the reference only).
        text: words with spaces between.
    """

    kind: str
    text: str


def marked_words(reference: str, text: str, lowercase: bool = False) -> list[Part]:
    """The text as a sequence of parts; where words were replaced, the lacking ones come first.

    Words are what stands between white space. Python's `difflib.SequenceMatcher` aligns them.

    Args:
        reference: what should have been written.
        text: what was written.
        lowercase: compare without case; parts of the text keep theirs.
    """
    wanted, words = reference.split(), text.split()
    more = max(len(words) - MOST_WORDS, 0)
    wanted, words = wanted[:MOST_WORDS], words[:MOST_WORDS]
    first, second = ([word.lower() for word in side] if lowercase else side for side in (wanted, words))
    parts = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(Part("same", " ".join(words[k:m])))
            continue
        parts += [Part("lacking", " ".join(wanted[i:j]))] if j > i else []
        parts += [Part("extra", " ".join(words[k:m]))] if m > k else []
    if more:
        parts.append(Part("same", f"… ({more:,} more words)"))
    return parts


def shortened(text: str) -> str:
    """The first words of a text, and how many more there are."""
    words = text.split()
    return (
        text
        if len(words) <= MOST_WORDS
        else f"{' '.join(words[:MOST_WORDS])} … ({len(words) - MOST_WORDS:,} more words)"
    )
