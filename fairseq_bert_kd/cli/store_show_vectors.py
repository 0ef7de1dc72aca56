"""``fairseq-bert-kd store show`` of sentence vectors: length, largest numbers and the nearest other sentences."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.cli.store_sentence import find_sentence, sides_of_sentence, why_missing
from fairseq_bert_kd.cli.store_tools import printable
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, symbol_name
from fairseq_bert_kd.storage.vector_store import SIDE, VectorReader

NEAREST, LARGEST = 5, 5
_BLOCK = 1 << 14  # vectors compared together


def main(args: argparse.Namespace) -> None:
    """Print what `store show` is asked for.

    Raises:
        ValueError: an option of token rows, a sentence that is not there, or data that are not the store's.
    """
    if args.temperature is not None:
        raise ValueError("--temperature divides the logits of token rows; leave it out for sentence vectors")
    top = NEAREST if args.top is None else args.top
    if top < 0:
        raise ValueError(f"--top must not be negative, got {top}")
    reader = VectorReader(args.store, shard=True)
    index = find_sentence(reader, args.sentence)
    texts = _Texts(reader, args.sentence, index, args.data)
    info = reader.info
    lines = [
        f"sentence {args.sentence} of {reader.path.name} ({info.split}), vector {info.vector} of teacher {info.teacher}",
        *texts.lines(args.sentence),
        *why_missing(reader, index),
    ]
    if not reader.is_missing(index):
        lines += _vector_lines(reader, index, top, texts)
    for line in lines:
        print(printable(line).rstrip())


class _Texts:
    """Pieces of the data's sentences; nothing without data.

    Args:
        reader: the store.
        number: corpus index of the sentence that is checked against the data.
        index: its index in the file.
        folder: the data, or None.
    """

    def __init__(self, reader: VectorReader, number: int, index: int, folder: str | None):
        self._symbols: Sequence[str] = ()
        self._tokens: Any = None
        if folder is not None:
            _, symbols = sides_of_sentence(reader, number, index, folder)
            self._symbols = symbols[SIDE]
            self._tokens = IndexedTokens(reader.info.files(folder)[SIDE].prefix)

    def lines(self, number: int) -> list[str]:
        """The pieces of a sentence, a line or none."""
        if self._tokens is None:
            return []
        return [" ".join(symbol_name(self._symbols, int(token)) for token in self._tokens[number])]


def _vector_lines(reader: VectorReader, index: int, top: int, texts: _Texts) -> Iterator[str]:
    vector = reader.rows(index)["vector"][0].astype(np.float64)
    length = float(np.sqrt((vector**2).sum()))
    yield f"length {length:.4f}"
    largest = np.argsort(-np.abs(vector), kind="stable")[:LARGEST]
    yield "largest numbers: " + ", ".join(f"{vector[place]:+.4f} ({place})" for place in largest)
    for cosine, other in _nearest(reader, index, vector, top):
        number = reader.sentences(other // reader.info.chunk_sentences)[other % reader.info.chunk_sentences]
        yield f"cosine {cosine:.4f}  sentence {number}"
        yield from (f"    {line}" for line in texts.lines(number))


def _nearest(
    reader: VectorReader, index: int, vector: NDArray[np.float64], top: int
) -> list[tuple[float, int]]:
    """Cosine and index in the file of the nearest other sentences, nearest first."""
    found: list[tuple[float, int]] = []
    for start in range(0, len(reader), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(reader)))
        vectors, present = reader.vectors(rows)
        lengths = np.linalg.norm(vectors.astype(np.float32), axis=1) * np.linalg.norm(vector)
        cosines = vectors.astype(np.float32) @ vector.astype(np.float32) / np.maximum(lengths, 1e-12)
        cosines[~present | (rows == index)] = -np.inf
        best = np.argsort(-cosines, kind="stable")[:top]
        found += [(float(cosines[place]), int(rows[place])) for place in best if np.isfinite(cosines[place])]
        found = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:top]
    return found
