"""Marker tokens around the arguments of a relation, or around the mention to type (released code of ERNIE)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.entity_mentions import NO_ARGUMENT, Mentions


class MarkedText:
    """Indexed sentences with tokens inserted.

    Args:
        text: indexed ids with ``sizes``.
        rows: ``(insertions,)`` int64 sentence of each, ascending.
        places: ``(insertions,)`` int64 token before which it is inserted; several before one token in this order.
        tokens: ``(insertions,)`` int64 ids.
    """

    def __init__(
        self, text: Any, rows: NDArray[np.int64], places: NDArray[np.int64], tokens: NDArray[np.int64]
    ):
        self._text, self._places, self._tokens = text, places, tokens
        self._starts = np.searchsorted(rows, np.arange(len(text) + 1))
        self.sizes: NDArray[np.int64] = np.asarray(text.sizes, np.int64) + np.diff(self._starts)

    def __len__(self) -> int:
        return len(self._text)

    def __getitem__(self, row: int) -> NDArray[np.int64]:
        part = slice(self._starts[row], self._starts[row + 1])
        return np.insert(np.asarray(self._text[row], np.int64), self._places[part], self._tokens[part])


def mark_arguments(
    texts: Sequence[Any], mentions: Mentions, markers: Sequence[int]
) -> tuple[list[MarkedText], Mentions]:
    """Texts with each argument between two of its marker, ``# head #`` and ``$ tail $``, and mentions moved with their pieces.

    Args:
        texts: indexed ids of each text of the rows.
        mentions: of the same rows.
        markers: id of argument 1, 2 and so on; further arguments get none.
    """
    table, found = mentions.rows.copy(), []
    for number, text in enumerate(texts):
        own = mentions.rows[mentions.rows[:, 1] == number]
        arguments = own[(own[:, 5] != NO_ARGUMENT) & (own[:, 5] <= len(markers))]
        # of two that touch, the first one closes before the second one opens
        arguments = arguments[np.lexsort((arguments[:, 2], arguments[:, 0]))]
        rows, places = arguments[:, 0].repeat(2), arguments[:, 2:4].ravel()
        tokens = np.asarray(markers, np.int64)[arguments[:, 5].repeat(2) - 1]
        found.append(MarkedText(text, rows, places, tokens))
        table[mentions.rows[:, 1] == number, 2:4] = _moved(own, rows, places)
    return found, mentions._replace(rows=table)


def _moved(
    mentions: NDArray[np.int64], rows: NDArray[np.int64], places: NDArray[np.int64]
) -> NDArray[np.int64]:
    """``(mentions, 2)`` first piece, and piece after the last, with what is inserted before and between them."""
    row, _, begin, end, *_ = mentions.T
    width = max(int(places.max(initial=0)), int(end.max(initial=0))) + 1
    inserted, start = rows * width + places, row * width
    before = np.searchsorted(inserted, start)
    return np.stack(
        [
            begin + np.searchsorted(inserted, start + begin, side="right") - before,
            end + np.searchsorted(inserted, start + end, side="left") - before,
        ],
        axis=1,
    )


def rows_without(mentions: Mentions, arguments: int, rows: int) -> int:
    """Number of rows that have not all of the first arguments."""
    columns = mentions.rows[(mentions.rows[:, 5] != NO_ARGUMENT) & (mentions.rows[:, 5] <= arguments)]
    return int((np.bincount(columns[:, 0], minlength=rows) < arguments).sum())
