"""Runs a teacher over chunks of a corpus, and keeps the device busy while it does.

One thread prepares batches, the caller's thread runs the teacher, and results of the last batch are taken off
the device while it computes the next; the caller writes a chunk while the following one is scored.
"""

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_bert_kd.functional.teacher_rows import TeacherRows, teacher_rows
from fairseq_bert_kd.storage.fairseq_data import Sides, sentence_hash
from fairseq_bert_kd.storage.schema import NOT_FINITE, SCORED, TOO_LONG, ChunkData, empty_records
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.teachers.pair_batches import BatchLayout, LaidOut, draw_uniforms, pinned, slices
from fairseq_bert_kd.teachers.plan import Batch, plan_chunk

AHEAD = 4  # batches prepared in advance
IN_FLIGHT = 2  # batches whose results are still on a GPU


@dataclass
class ScoredChunk:
    """A finished chunk.

    Attributes:
        number: of the chunk in the corpus.
        data: for the store.
        gold_correct: rows whose best token is the gold token.
        gold_nll: of the gold tokens at temperature 1, summed, nats.
    """

    number: int
    data: ChunkData
    gold_correct: int
    gold_nll: float


@dataclass
class _Prepared:
    """A batch on its way to the device.

    Attributes:
        inputs: of the encoder; ``attention_mask`` is absent when there is no padding.
        slots: ``(rows,)`` masked positions in the flattened ``(batch, pair_len)``.
        gold: ``(rows,)`` target ids.
        rows: ``(rows,)`` where the results go in the chunk.
        uniforms: ``(rows, samples)``, or None.
        chunk: that it belongs to.
        tokens: source and target tokens.
    """

    inputs: dict[str, Tensor]
    slots: Tensor
    gold: Tensor
    rows: NDArray[np.int64]
    uniforms: Tensor | None
    chunk: "_OpenChunk"
    tokens: int


@dataclass
class _OpenChunk:
    """A chunk whose batches are being scored."""

    number: int
    first_sentence: int
    sources: list[Tensor]
    targets: list[Tensor]
    tgt_lengths: NDArray[np.int64]
    status: NDArray[np.uint8]
    hashes: dict[str, NDArray[np.uint64]]
    batches: list[Batch]
    records: NDArray[Any]
    gold_nll: NDArray[np.float64]
    gold_correct: NDArray[np.bool_]
    finite: NDArray[np.bool_]
    left: int = field(default=0)


@dataclass
class _InFlight:
    """A batch whose results are on their way back."""

    prepared: _Prepared
    results: list[TeacherRows]
    arrived: Any  # a CUDA event, or None on a CPU


class ChunkScorer:
    """Scores every target position of some chunks of a corpus.

    Args:
        model: an `HfMaskedLM` in evaluation mode on its device.
        pairs: both sides of the corpus, see `fairseq_data.Sides`.
        info: of the store that is being made.
        barred: ``(n,)`` ids that no target holds.
        pad: padding index of the dictionaries.
        device: of the model.
    """

    def __init__(
        self, model: Any, pairs: Sides, info: TopKInfo, barred: Tensor, pad: int, device: torch.device
    ):
        self.model, self.pairs, self.info = model, pairs, info
        self.barred, self.device = barred.to(device), device
        self._layout = BatchLayout(model, info.passes, pad)
        self._limit = model.max_positions()

    def score(self, chunks: Iterable[int], progress: Any = None) -> Iterator[ScoredChunk]:
        """Score chunks one after the other.

        Args:
            chunks: numbers of chunks of ``info.chunk_sentences`` sentences.
            progress: called with the tokens of each batch.
        """
        flying: deque[_InFlight] = deque()
        for item in self.prepared(chunks):
            if isinstance(item, _OpenChunk):  # nothing to score in it
                yield self._close(item)
                continue
            flying.append(self._launch(item))
            while len(flying) > (IN_FLIGHT if self.device.type == "cuda" else 0):
                yield from self._land(flying.popleft(), progress)
        while flying:
            yield from self._land(flying.popleft(), progress)

    def prepared(self, chunks: Iterable[int]) -> Iterator[Any]:
        """Batches of the chunks, prepared by another thread; chunks without any come as they are."""
        ready: queue.Queue = queue.Queue(maxsize=AHEAD)
        stop = threading.Event()

        def put(item: Any) -> bool:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def prepare() -> None:
            try:
                for number in chunks:
                    chunk = self._open(number)
                    if not chunk.batches and not put(chunk):
                        return
                    for batch in chunk.batches:
                        if not put(self._prepare(chunk, batch)):
                            return
                put(None)
            except BaseException as error:  # to be raised where the results are awaited
                put(error)

        thread = threading.Thread(target=prepare, daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def finish_batch(self, prepared: _Prepared, progress: Any = None) -> Iterator[ScoredChunk]:
        """Run the teacher on one batch and wait for its results."""
        yield from self._land(self._launch(prepared), progress)

    def features(self, prepared: Any) -> Tensor:
        """Teacher's hidden states of a prepared batch's masked positions, ``(rows, hidden)``, on its device."""
        inputs = {name: self._to_device(tensor) for name, tensor in prepared.inputs.items()}
        return self.model.slot_features(**inputs, slots=self._to_device(prepared.slots))

    def slices(self, rows: int) -> Iterator[slice]:
        """Parts of a batch's rows whose logits fit into memory together."""
        return slices(rows, self.info.dictionary_size)

    # ------------------------------------------------------------ before the teacher

    def _open(self, number: int) -> _OpenChunk:
        """Read a chunk's sentences and lay out its batches."""
        info = self.info
        first = number * info.chunk_sentences
        last = min(first + info.chunk_sentences, len(self.pairs["target"]))
        sources = [np.asarray(self.pairs["source"][i]) for i in range(first, last)]
        targets = [np.asarray(self.pairs["target"][i]) for i in range(first, last)]
        src_lengths = np.array([len(source) - 1 for source in sources], dtype=np.int64)
        tgt_lengths = np.array([len(target) for target in targets], dtype=np.int64)
        scored = src_lengths + tgt_lengths <= self._limit
        batches = plan_chunk(src_lengths, tgt_lengths, scored, info.passes, info.max_tokens)
        rows = int(tgt_lengths.sum())
        return _OpenChunk(
            number,
            first,
            [torch.from_numpy(source[:-1].astype(np.int64)) for source in sources],
            [torch.from_numpy(target.astype(np.int64)) for target in targets],
            tgt_lengths,
            np.where(scored, SCORED, TOO_LONG).astype(np.uint8),
            {"source": _hashes(sources), "target": _hashes(targets)},
            batches,
            empty_records(rows, info),
            np.zeros(rows),
            np.zeros(rows, dtype=np.bool_),
            np.ones(rows, dtype=np.bool_),
            left=len(batches),
        )

    def _prepare(self, chunk: _OpenChunk, batch: Batch) -> _Prepared:
        """Lay out a batch on the CPU."""
        laid_out = self._layout.lay_out(batch, chunk.sources, chunk.targets)
        ends = np.cumsum(chunk.tgt_lengths)
        rows = (ends - chunk.tgt_lengths)[laid_out.sentences] + laid_out.places
        return _Prepared(
            {name: self._pin(tensor) for name, tensor in laid_out.inputs.items()},
            self._pin(laid_out.slots),
            self._pin(laid_out.gold),
            rows,
            self._uniforms(chunk, laid_out),
            chunk,
            batch.tokens,
        )

    def _uniforms(self, chunk: _OpenChunk, laid_out: LaidOut) -> Tensor | None:
        """``(rows, samples)`` numbers that depend on seed, sentence and position alone."""
        info = self.info
        if not info.samples:
            return None
        drawn = draw_uniforms(
            laid_out, chunk.targets, info.samples, lambda i: [info.sample_seed, chunk.first_sentence + i]
        )
        return self._pin(drawn)

    def _pin(self, tensor: Tensor) -> Tensor:
        return pinned(tensor, self.device)

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    # ------------------------------------------------------------ teacher and after

    def _launch(self, prepared: _Prepared) -> _InFlight:
        """Start a batch; on a GPU nothing is waited for."""
        info, results = self.info, []
        with torch.inference_mode():
            features = self.features(prepared)
            gold = self._to_device(prepared.gold)
            uniforms = None if prepared.uniforms is None else self._to_device(prepared.uniforms)
            for part in self.slices(len(gold)):
                rows = teacher_rows(
                    self.model.head(features[part]).float(),
                    gold[part],
                    self.barred,
                    info.k,
                    info.temperatures,
                    None if uniforms is None else uniforms[part],
                    info.gold,
                )
                results.append(TeacherRows(*(self._fetch(tensor) for tensor in rows)))
        arrived = None
        if self.device.type == "cuda":
            arrived = torch.cuda.Event()
            arrived.record()
        return _InFlight(prepared, results, arrived)

    def _fetch(self, tensor: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)

    def _land(self, flight: _InFlight, progress: Any) -> Iterator[ScoredChunk]:
        """Put a batch's results into its chunk; the chunk, when it was the last batch."""
        if flight.arrived is not None:
            flight.arrived.synchronize()
        prepared, chunk = flight.prepared, flight.prepared.chunk
        parts = zip(*flight.results, strict=True)
        results = TeacherRows(*(torch.cat(part) if len(part) > 1 else part[0] for part in parts))
        records, rows = empty_records(len(prepared.rows), self.info), prepared.rows
        records["topk_ids"] = results.topk_ids.numpy()
        records["topk_logits"] = results.topk_logits.numpy()
        if self.info.temperatures:
            records["log_normalisers"] = results.log_normalisers.numpy()
        if self.info.gold:
            records["gold_id"], records["gold_logit"] = prepared.gold.numpy(), results.gold_logit.numpy()
        if self.info.samples:
            records["sample_ids"] = results.sample_ids.numpy()
            records["sample_logits"] = results.sample_logits.numpy()
        chunk.records[rows] = records
        chunk.gold_nll[rows] = results.gold_nll.numpy()
        chunk.gold_correct[rows] = results.topk_ids[:, 0].numpy() == prepared.gold.numpy()
        chunk.finite[rows] = results.finite.numpy()
        chunk.left -= 1
        if progress is not None:
            progress(prepared.tokens)
        if not chunk.left:
            yield self._close(chunk)

    def _close(self, chunk: _OpenChunk) -> ScoredChunk:
        """Mark sentences with a non-finite row as missing, and add up."""
        ends = np.cumsum(chunk.tgt_lengths)
        bad_before = np.concatenate([[0], np.cumsum(~chunk.finite)])
        bad = bad_before[ends] > bad_before[ends - chunk.tgt_lengths]
        chunk.status[bad] = NOT_FINITE
        data = ChunkData(chunk.hashes, chunk.tgt_lengths, chunk.status, chunk.records)
        scored = data.scored
        chunk.records[~scored] = 0
        return ScoredChunk(
            chunk.number, data, int(chunk.gold_correct[scored].sum()), float(chunk.gold_nll[scored].sum())
        )


def _hashes(sentences: Iterable[NDArray[Any]]) -> NDArray[np.uint64]:
    return np.array([sentence_hash(tokens) for tokens in sentences], dtype="<u8")
