"""Word vectors as GloVe's text files hold them: a word and its numbers on each line."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.text_lines import open_lines


@dataclass(frozen=True)
class WordVectors:
    """Vectors by word.

    Attributes:
        words: words in the file's order, the most frequent ones first in GloVe's.
        vectors: ``(words, dim)`` float32.
    """

    words: tuple[str, ...]
    vectors: NDArray[np.float32]


def read_word_vectors(path: str | Path) -> WordVectors:
    """Read a text file of vectors. A word that comes again keeps its first vector.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8 text, empty, a word2vec file with a heading, or a line has no word, another number of numbers, or
            something that is no finite number.
    """
    rows: dict[str, NDArray[np.float32]] = {}
    dim = 0
    for number, line in enumerate(open_lines(path), start=1):
        fields = line.split(" ")
        dim = dim or len(fields) - 1
        if number == 1 and dim < 2:
            raise ValueError(
                f"{path}, line 1: expected a word and its vector, got {line.rstrip()!r}; a heading of word2vec's text "
                "format must be removed"
            )
        # a few of GloVe's words hold spaces
        word = " ".join(fields[: len(fields) - dim])
        try:
            vector = np.array(fields[len(fields) - dim :], dtype=np.float32)
        except ValueError:
            vector = np.array([np.nan], dtype=np.float32)
        if not word or len(vector) != dim or not np.isfinite(vector).all():
            raise ValueError(
                f"{path}, line {number}: expected a word and {dim} finite numbers, separated by single spaces, got "
                f"{line.rstrip()[:60]!r}; fix or remove the line"
            )
        rows.setdefault(word, vector)
    if not rows:
        raise ValueError(f"{path} is empty; give a file of word vectors, such as glove.6B.300d.txt")
    return WordVectors(tuple(rows), np.stack(list(rows.values())))
