"""Rows of sentences as numbers of pieces, for a data folder or for a model."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fairseq_bert_kd.cli.sentence_scan import Scanned
from fairseq_bert_kd.cli.sentence_table import Row, TableFormat
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer


def most_tokens(tokenizer: HfTokenizer, texts: int, max_tokens: int) -> int:
    """Most tokens of a row, ends of sentence included, such that the encoder's input has at most ``max_tokens``.

    Raises:
        ValueError: nothing of the texts would be left.
    """
    text_format = tokenizer.text_format()
    # of a pair the separator between the texts stands for the first one's end of sentence
    special = len(text_format.prefix) + (len(text_format.middle) - 1 if texts == 2 else 0)
    least = special + 2 * texts  # a token and the end of each text
    if max_tokens < least:
        raise ValueError(
            f"--max-tokens must be at least {least} for rows of {texts} texts with this tokenizer's special tokens, got "
            f"{max_tokens}"
        )
    return max_tokens - special


class PieceNumbers:
    """Pieces as ids of a dictionary, or, where there is none yet, as provisional ids in the order of their appearance.

    Args:
        dictionary: fairseq's; None to make one.

    Attributes:
        unknown: pieces that the dictionary does not have.
    """

    def __init__(self, dictionary: Any):
        self.unknown = 0
        self._unk = -1 if dictionary is None else dictionary.unk()
        self._ids: dict[str, int] = {} if dictionary is None else dictionary.indices
        self._growing = dictionary is None
        self._counts: Counter[int] = Counter()

    def ids(self, pieces: Sequence[str]) -> list[int]:
        """Ids of the pieces of a text."""
        if self._growing:
            ids = [self._ids.setdefault(piece, len(self._ids)) for piece in pieces]
            self._counts.update(ids)
            return ids
        ids = [self._ids.get(piece, self._unk) for piece in pieces]
        self.unknown += ids.count(self._unk)
        return ids

    def finish(self) -> tuple[Any, NDArray[np.int64]]:
        """A dictionary of the pieces so far, frequent ones first, and the final id of each provisional one."""
        from fairseq.data import Dictionary

        dictionary = Dictionary()
        for piece, number in self._ids.items():
            dictionary.add_symbol(piece, self._counts[number])
        dictionary.finalize(padding_factor=1)
        return dictionary, np.array([dictionary.index(piece) for piece in self._ids], np.int64)


def tokenise(
    scanned: Scanned, table: TableFormat, tokenizer: HfTokenizer, numbering: PieceNumbers, name: str
) -> Any:
    """A split's texts as ids, a `sentence_folder.Split`.

    Raises:
        ValueError: a text of which the tokenizer leaves nothing.
    """
    from fairseq_bert_kd.cli.sentence_folder import Split, Texts

    split = Split(name, [Texts() for _ in range(table.texts)], scanned.labels)
    with tqdm(total=scanned.rows, desc=name, unit=" rows", unit_scale=True) as progress:
        for path, rows in scanned.chunks(table):
            for column, side in enumerate(split.texts):
                pieces = tokenizer.encode_batch([row.texts[column] for row in rows])
                for row, symbols in zip(rows, pieces, strict=True):
                    _check_left(path, row, column, symbols)
                    side.append(numbering.ids(symbols))
            progress.update(len(rows))
    return split


def _check_left(path: str, row: Row, column: int, pieces: Sequence[str]) -> None:
    if not pieces:
        raise ValueError(
            f"`{path}`, line {row.line:,}: the tokenizer leaves nothing of {row.texts[column]!r}. Remove the line"
        )
