"""Runs a teacher over chunks of a corpus, and keeps the device busy while it does.

One thread prepares batches, the caller's thread runs the teacher, and the results of a batch leave the device while the
next one is computed. The caller writes a chunk while the following one is scored.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_bert_kd.functional.teacher_rows import TeacherRows
from fairseq_bert_kd.storage.entity_mentions import MentionsByRow, Spans
from fairseq_bert_kd.storage.fairseq_data import Sides, sentence_hash
from fairseq_bert_kd.storage.schema import NOT_FINITE, SCORED, TOO_LONG, ChunkData, empty_records
from fairseq_bert_kd.storage.topk import OTHER_FOLD, TopKInfo
from fairseq_bert_kd.teachers.interface import TokenTeacher
from fairseq_bert_kd.teachers.pair_batches import EncoderBatch, PairBatcher
from fairseq_bert_kd.teachers.plan import Batch, plan_chunk
from fairseq_bert_kd.teachers.token_rows import TokenScorer

AHEAD = 4  # batches prepared in advance
IN_FLIGHT = 2  # batches whose results are still on a GPU

Item = TypeVar("Item")


@dataclass
class Chunk:
    """Consecutive sentences that are scored and written together; a row is a target position, in corpus order.

    Attributes:
        number: number of the chunk in the corpus.
        sources: ``(src_len,)`` ids of each sentence, without end of sentence; empty where the teacher reads single texts.
        targets: ``(tgt_len,)`` ids of each sentence, with end of sentence.
        seeds: seed of each sentence's draws.
        data: sentences and rows for the store, rows of zeros until they are scored.
        plan: batches to score.
        mentions: of each sentence, see `PairBatcher.lay_out`; None for a teacher without entities.
        remaining: batches that have no results yet.
        first_rows: ``(sentences,)`` first row of each sentence.
        gold_nll: ``(rows,)`` nats.
        gold_correct: ``(rows,)`` whether the best token is the gold token.
        finite: ``(rows,)`` False where the teacher gave a NaN or an infinity.
    """

    number: int
    sources: list[Tensor]
    targets: list[Tensor]
    seeds: list[list[int]]
    data: ChunkData
    plan: list[Batch]
    mentions: list[list[Spans]] | None = None

    def __post_init__(self) -> None:
        rows = len(self.data.records)
        self.remaining = len(self.plan)
        self.first_rows = np.cumsum(self.data.lengths) - self.data.lengths
        self.gold_nll = np.zeros(rows)
        self.gold_correct = np.zeros(rows, dtype=np.bool_)
        self.finite = np.ones(rows, dtype=np.bool_)

    def enter(self, batch: EncoderBatch, results: TeacherRows) -> None:
        """Put a batch's results, on the CPU, into the rows of their sentences and positions."""
        rows = self.first_rows[batch.sentences] + batch.target_positions
        gold = batch.gold.numpy()
        records = np.empty(len(rows), self.data.records.dtype)
        for name in records.dtype.names or ():
            records[name] = gold if name == "gold_id" else getattr(results, name).numpy()
        self.data.records[rows] = records  # all fields of a record at once
        self.gold_nll[rows] = results.gold_nll.numpy()
        self.gold_correct[rows] = results.topk_ids[:, 0].numpy() == gold
        self.finite[rows] = results.finite.numpy()
        self.remaining -= 1

    def close(self) -> "Chunk":
        """Mark sentences with a non-finite row as missing."""
        data = self.data
        bad_before = np.concatenate([[0], np.cumsum(~self.finite)])  # (rows + 1,) bad rows before each row
        bad = bad_before[self.first_rows + data.lengths] > bad_before[self.first_rows]  # (sentences,)
        data.status[bad] = NOT_FINITE
        data.records[~data.scored] = 0
        return self

    def gold_summary(self) -> dict[str, Any]:
        """Over scored sentences: rows whose best token is the gold token, and the gold tokens' nats, summed."""
        scored = self.data.scored
        return {
            "gold_correct": int(self.gold_correct[scored].sum()),
            "gold_nll": float(self.gold_nll[scored].sum()),
        }


@dataclass
class ChunkBatch:
    """A prepared batch of a chunk.

    Attributes:
        chunk: chunk that it belongs to.
        inputs: inputs of the model, on the CPU; pinned if there is a GPU.
        tokens: source and target tokens.
    """

    chunk: Chunk
    inputs: EncoderBatch
    tokens: int


# a batch, results of each slice of its rows on their way to the CPU, and the CUDA event after the last copy
InFlight = tuple[ChunkBatch, list[TeacherRows], Any]


class ChunkScorer:
    """Scores every target position of some chunks of a corpus.

    Args:
        model: a teacher in evaluation mode on its device.
        pairs: sides of the corpus that the store's schema names, see `fairseq_data.Sides`; the last one has the rows.
        info: description of the store that is being made.
        excluded_ids: ``(n,)`` int64 ids that no target holds.
        pad: padding index of the dictionaries.
        device: device of the model.
        wanted: ``(corpus sentences,)`` bool, sentences of the fold to score; None for all.
        mentions: of the corpus, for a teacher that reads entities.
    """

    def __init__(
        self,
        model: TokenTeacher,
        pairs: Sides,
        info: TopKInfo,
        excluded_ids: Tensor,
        pad: int,
        device: torch.device,
        wanted: NDArray[np.bool_] | None = None,
        mentions: MentionsByRow | None = None,
    ):
        self._mentions = mentions
        self.pairs, self.info, self.device = pairs, info, device
        self._wanted = wanted
        self._scorer = TokenScorer(
            model,
            excluded_ids.to(device),
            info.dictionary_size,
            k=info.k,
            temperatures=info.temperatures,
            samples=info.samples,
            keep_gold=info.gold,
        )
        every_piece = mentions is not None and mentions.every_piece
        self._batcher = PairBatcher(
            model.text_layout(), info.passes, pad, info.samples, info.hides, every_piece
        )
        self._limit = model.max_positions()

    def score(self, chunks: Iterable[int], progress: Any = None) -> Iterator[Chunk]:
        """Score chunks one after the other.

        Args:
            chunks: numbers of chunks of ``info.chunk_sentences`` sentences.
            progress: function that is called with the tokens of each batch.
        """
        in_flight: deque[InFlight] = deque()
        for item in self.prepared(chunks):
            if isinstance(item, Chunk):  # nothing to score in it
                yield item.close()
                continue
            in_flight.append(self.enqueue(item))
            while len(in_flight) > (IN_FLIGHT if self.device.type == "cuda" else 0):
                yield from self.collect(in_flight.popleft(), progress)
        while in_flight:
            yield from self.collect(in_flight.popleft(), progress)

    def prepared(self, chunks: Iterable[int]) -> Iterator[ChunkBatch | Chunk]:
        """Batches of the chunks, prepared by another thread; a chunk without any batch comes itself."""
        return prefetched(self._prepare(chunks), AHEAD)

    # ------------------------------------------------------------ before the teacher

    def _prepare(self, chunks: Iterable[int]) -> Iterator[ChunkBatch | Chunk]:
        for number in chunks:
            chunk = self._open(number)
            if not chunk.plan:
                yield chunk
            for batch in chunk.plan:
                inputs = self._batcher.lay_out(
                    batch, chunk.sources, chunk.targets, chunk.seeds, chunk.mentions
                )
                yield ChunkBatch(chunk, inputs.pinned(self.device), batch.tokens)

    def _open(self, number: int) -> Chunk:
        """Read a chunk's sentences and plan its batches."""

        def hashes(sentences: list[NDArray[Any]]) -> NDArray[np.uint64]:
            return np.array([sentence_hash(tokens) for tokens in sentences], dtype="<u8")

        info = self.info
        first = number * info.chunk_sentences
        *others, row_side = info.sides
        last = min(first + info.chunk_sentences, len(self.pairs[row_side]))
        sides = {side: [np.asarray(self.pairs[side][i]) for i in range(first, last)] for side in info.sides}
        targets = sides[row_side]
        sources = sides[others[0]] if others else []
        tgt_lengths = np.array([len(target) for target in targets], dtype=np.int64)
        src_lengths = np.array([len(source) - 1 for source in sources], dtype=np.int64)
        src_lengths = src_lengths if others else np.zeros_like(tgt_lengths)
        scored = src_lengths + tgt_lengths <= self._limit
        status = np.where(scored, SCORED, TOO_LONG)
        if self._wanted is not None:
            wanted = self._wanted[first:last]
            scored, status = scored & wanted, np.where(wanted, status, OTHER_FOLD)
        data = ChunkData(
            hashes={side: hashes(sentences) for side, sentences in sides.items()},
            lengths=tgt_lengths,
            status=status.astype(np.uint8),
            records=empty_records(int(tgt_lengths.sum()), info),
        )
        return Chunk(
            number=number,
            sources=[torch.from_numpy(source[:-1].astype(np.int64)) for source in sources],
            targets=[torch.from_numpy(target.astype(np.int64)) for target in targets],
            seeds=[[info.sample_seed, sentence] for sentence in range(first, last)],
            data=data,
            plan=plan_chunk(src_lengths, tgt_lengths, scored, info.passes, info.max_tokens),
            mentions=[self._mentions.spans(i) for i in range(first, last)] if self._mentions else None,
        )

    # ------------------------------------------------------------ teacher and after

    def enqueue(self, batch: ChunkBatch) -> InFlight:
        """Start a batch; on a GPU nothing is waited for."""
        with torch.inference_mode():
            results = [
                TeacherRows(*map(self._fetch, rows))
                for _, rows, _ in self._scorer.score(batch.inputs.to(self.device))
            ]
        arrived = None
        if self.device.type == "cuda":
            arrived = torch.cuda.Event()
            arrived.record()
        return batch, results, arrived

    def _fetch(self, tensor: Tensor) -> Tensor:
        """The tensor on the CPU; from a GPU it is there once an event after this call has passed."""
        if self.device.type != "cuda":
            return tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)

    def collect(self, flight: InFlight, progress: Any = None) -> Iterator[Chunk]:
        """Wait for a batch's results and enter them into its chunk; the chunk, if that was its last batch."""
        batch, results, arrived = flight
        if arrived is not None:
            arrived.synchronize()
        chunk = batch.chunk
        fields = zip(*results, strict=True)  # the slices of each field
        chunk.enter(batch.inputs, TeacherRows(*map(torch.cat, fields)))
        if progress is not None:
            progress(batch.tokens)
        if not chunk.remaining:
            yield chunk.close()


def prefetched(items: Iterator[Item], ahead: int) -> Iterator[Item]:
    """Items of an iterator that another thread advances up to ``ahead`` items in advance.

    An error of the iterator is raised here, as it is, in the place of its item. (A DataLoader's worker would send a batch
    through a process boundary, and wrap the error in a traceback.)
    """
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(ahead))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, items, end))
                yield item
        finally:  # the caller stops early, or an error was raised
            for future in waiting:
                future.cancel()
