"""Scores one split with a teacher of token distributions, for a store of token rows."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairseq_bert_kd.storage.entity_mentions import MentionsByRow
from fairseq_bert_kd.storage.fairseq_data import Sides
from fairseq_bert_kd.storage.folds import in_fold
from fairseq_bert_kd.storage.shards import Shard
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter
from fairseq_bert_kd.teachers.chunk_scorer import Chunk, ChunkScorer
from fairseq_bert_kd.teachers.dump import Progress, ScoredChunk, StoreDump
from fairseq_bert_kd.teachers.load import Teacher
from fairseq_bert_kd.teachers.plan import count_tokens
from fairseq_bert_kd.tokenization.dictionary import excluded_ids

TRIAL_SECONDS = 10.0  # measured for an estimate


class TopKDump(StoreDump):
    """Scores one split with a teacher and writes the store of its token rows.

    Args:
        teacher: teacher on its device.
        pairs: sides of the split that the schema names.
        info: description of the store.
        device: device of the teacher.
        mentions: of the split, for a teacher that reads entities.

    Raises:
        ValueError: more tokens per row than can be targets.
    """

    tokens_name = "source and target tokens"
    item_name = "pairs"
    without_rows = "learn them from labels alone"
    info: TopKInfo
    limit: int

    def __init__(
        self,
        teacher: Teacher,
        pairs: Sides,
        info: TopKInfo,
        device: torch.device,
        mentions: MentionsByRow | None = None,
    ):
        super().__init__(pairs, info, teacher.model.max_positions())
        self.pairs, self.device = pairs, device
        self.model = teacher.model
        dictionary = teacher.task.target_dictionary
        self.symbols = dictionary.symbols
        excluded = torch.from_numpy(excluded_ids(dictionary))
        self.wanted = None if info.fold is None else in_fold(pairs, info.fold)
        self.scorer = ChunkScorer(
            teacher.model, pairs, info, excluded, dictionary.pad(), device, self.wanted, mentions
        )

    def open_writer(self, path: Any, shard: Shard, overwrite: bool) -> TopKWriter:
        return TopKWriter(
            path, self.info, self.pairs[self.info.sides[-1]].sizes, self.symbols, shard, overwrite
        )

    def open_reader(self, path: Path) -> TopKReader:
        return TopKReader(path, shard=True)

    def score(self, chunks: Iterable[int], progress: Progress) -> Iterator[ScoredChunk]:
        for chunk in self.scorer.score(chunks, progress):
            yield ScoredChunk(chunk.number, chunk.data, chunk.gold_summary())

    def count_chunk(self, chunk: int) -> dict[str, int]:
        src_lengths, tgt_lengths = self._lengths(chunk)
        fits = src_lengths + tgt_lengths <= self.limit
        # of other folds too, as zeros
        stored = {"positions": int(tgt_lengths.sum()), "sentences": len(tgt_lengths)}
        if self.wanted is not None:
            part = self.wanted[chunk * self.info.chunk_sentences :][: len(fits)]
            src_lengths, tgt_lengths, fits = src_lengths[part], tgt_lengths[part], fits[part]
        return {
            **stored,
            "too_long": int((~fits).sum()),
            "tokens": count_tokens(src_lengths, tgt_lengths, fits, self.info.passes),
        }

    def measure(self, shard: Shard) -> float:
        """Tokens per second over some batches of the shard, without the first; 0 if there is nothing to score."""
        chunks, measured = self.chunks(shard), []
        middle = [*chunks[len(chunks) // 2 :], *chunks[: len(chunks) // 2]]
        for batch in self.scorer.prepared(middle):
            if isinstance(batch, Chunk):
                continue  # all its sentences are missing
            started = time.perf_counter()
            list(self.scorer.collect(self.scorer.enqueue(batch)))
            measured.append((batch.tokens, time.perf_counter() - started))
            if sum(seconds for _, seconds in measured) > TRIAL_SECONDS:
                break
        measured = measured[1:] or measured  # the first batch pays one-time costs
        return sum(tokens for tokens, _ in measured) / max(sum(seconds for _, seconds in measured), 1e-9)

    def _lengths(self, chunk: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``(sentences,)`` source lengths without and target lengths with end of sentence."""
        part = slice(chunk * self.info.chunk_sentences, (chunk + 1) * self.info.chunk_sentences)
        *others, target = (self.pairs[side].sizes[part].astype(np.int64) for side in self.info.sides)
        return (others[0] - 1 if others else np.zeros_like(target)), target
