"""Encodes the sentences of one split, for a store of sentence vectors."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_bert_kd.data.sentence_dataset import padded
from fairseq_bert_kd.storage.fairseq_data import Sides, sentence_hash
from fairseq_bert_kd.storage.schema import NOT_FINITE, SCORED, TOO_LONG, ChunkData, empty_records
from fairseq_bert_kd.storage.shards import Shard
from fairseq_bert_kd.storage.vector_store import SIDE, VectorInfo, VectorReader, to_records
from fairseq_bert_kd.storage.writer import StoreWriter
from fairseq_bert_kd.teachers.chunk_scorer import AHEAD, prefetched
from fairseq_bert_kd.teachers.dump import Progress, ScoredChunk, StoreDump
from fairseq_bert_kd.teachers.interface import SentenceEncoder
from fairseq_bert_kd.teachers.plan import plan_texts

OWN = "own"  # the vector of a model that has a single one


class TextBatch(NamedTuple):
    """Sentences that are encoded together.

    Attributes:
        chunk: number of their chunk.
        places: ``(batch,)`` places within it.
        tokens: ``(batch, longest)`` ids, right-padded.
        lengths: ``(batch,)`` tokens of each.
    """

    chunk: int
    places: NDArray[np.int64]
    tokens: Tensor
    lengths: Tensor


class VectorDump(StoreDump):
    """Encodes one split and writes the store of its vectors.

    Args:
        model: encoder in evaluation mode on its device.
        sides: the split, its sentences on side ``input0``.
        info: description of the store.
        pad: padding index of the dictionary.
        device: device of the encoder.
    """

    info: VectorInfo

    def __init__(
        self, model: SentenceEncoder, sides: Sides, info: VectorInfo, pad: int, device: torch.device
    ):
        super().__init__(sides, info, model.max_positions())  # type: ignore[attr-defined]
        self.model, self.pad, self.device = model, pad, device
        self.texts = sides[SIDE]

    def open_writer(self, path: Any, shard: Shard, overwrite: bool) -> StoreWriter:
        lengths = np.broadcast_to(np.int64(1), (self.sentences,))
        return StoreWriter(path, self.info, lengths, {}, shard, overwrite)

    def open_reader(self, path: Path) -> VectorReader:
        return VectorReader(path, shard=True)

    def count_chunk(self, chunk: int) -> dict[str, int]:
        lengths = self._lengths(chunk)
        fits = self._fits(lengths)
        return {
            "positions": len(lengths),
            "sentences": len(lengths),
            "too_long": int((~fits).sum()),
            "tokens": int(lengths[fits].sum()),
        }

    def score(self, chunks: Iterable[int], progress: Progress) -> Iterator[ScoredChunk]:
        """Encode chunks; a chunk's vectors leave the device together."""
        found: list[tuple[NDArray[np.int64], Tensor]] = []
        for item in prefetched(self._batches(chunks), AHEAD):
            if isinstance(item, int):  # a chunk's end
                yield ScoredChunk(item, self._chunk(item, found), {})
                found = []
                continue
            tokens, lengths = (tensor.to(self.device) for tensor in (item.tokens, item.lengths))
            with torch.inference_mode():
                found.append(
                    (item.places, self.model.sentence_vectors(tokens, lengths, self._vector).float())
                )
            progress(int(item.lengths.sum()))

    @property
    def _vector(self) -> str | None:
        """Name of the vector for the encoder."""
        return None if self.info.vector == OWN else self.info.vector

    def _batches(self, chunks: Iterable[int]) -> Iterator[TextBatch | int]:
        """Batches of sorted sentences of each chunk, then its number."""
        for chunk in chunks:
            lengths = self._lengths(chunk)
            first = chunk * self.info.chunk_sentences
            for places in plan_texts(lengths, self._fits(lengths), self.info.max_tokens):
                texts = [self.texts[first + place] for place in places.tolist()]
                yield TextBatch(chunk, places, padded(texts, self.pad), torch.from_numpy(lengths[places]))
            yield chunk

    def _chunk(self, chunk: int, found: list[tuple[NDArray[np.int64], Tensor]]) -> ChunkData:
        """Vectors of a chunk's batches as its rows."""
        first, lengths = chunk * self.info.chunk_sentences, self._lengths(chunk)
        vectors = np.zeros((len(lengths), self.info.width), np.float32)
        for places, batch in found:
            vectors[places] = batch.cpu().numpy()
        status = np.where(self._fits(lengths), SCORED, TOO_LONG).astype(np.uint8)
        status[~np.isfinite(vectors).all(axis=1)] = NOT_FINITE
        vectors[status != SCORED] = 0
        records = to_records(vectors, self.info, first) if len(vectors) else empty_records(0, self.info)
        hashes = np.array([sentence_hash(self.texts[first + place]) for place in range(len(lengths))], "<u8")
        return ChunkData({SIDE: hashes}, np.ones(len(lengths), np.int64), status, records)

    def _lengths(self, chunk: int) -> NDArray[np.int64]:
        """``(sentences,)`` tokens, end of sentence included."""
        size = self.info.chunk_sentences
        return self.texts.sizes[chunk * size : (chunk + 1) * size].astype(np.int64)

    def _fits(self, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        return lengths <= (np.iinfo(np.int64).max if self.limit is None else self.limit)
