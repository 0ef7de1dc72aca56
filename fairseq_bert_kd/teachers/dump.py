"""Scores one split and writes its store, or one shard of it."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import Sides
from fairseq_bert_kd.storage.schema import ChunkData
from fairseq_bert_kd.storage.shards import WHOLE, Shard
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter
from fairseq_bert_kd.teachers.chunk_scorer import Chunk, ChunkScorer
from fairseq_bert_kd.teachers.load import Teacher
from fairseq_bert_kd.teachers.plan import count_tokens
from fairseq_bert_kd.tokenization.dictionary import excluded_ids

logger = logging.getLogger(__name__)
Progress = Callable[[int], Any]  # takes a number of tokens

SYNC_SECONDS = 10.0  # between syncs: a crash of the machine loses at most this and the chunk in work
TRIAL_SECONDS = 10.0  # measured for an estimate


class StoreDump:
    """Scores one split with a teacher and writes the store.

    Args:
        teacher: teacher on its device.
        pairs: both sides of the split.
        info: description of the store.
        device: device of the teacher.

    Raises:
        ValueError: more tokens per row than can be targets.
    """

    def __init__(self, teacher: Teacher, pairs: Sides, info: TopKInfo, device: torch.device):
        self.pairs, self.info, self.device = pairs, info, device
        self.model = teacher.model
        dictionary = teacher.task.target_dictionary
        self.symbols = dictionary.symbols
        self.limit = teacher.model.max_positions()
        excluded = torch.from_numpy(excluded_ids(dictionary))
        self.scorer = ChunkScorer(teacher.model, pairs, info, excluded, dictionary.pad(), device)

    @property
    def sentences(self) -> int:
        """Sentences in the whole corpus."""
        return len(self.pairs["target"])

    def run(self, path: Any, shard: Shard, overwrite: bool, progress: Progress = lambda tokens: None) -> int:
        """Write a shard of the store, continuing unfinished work; the tokens that were scored.

        Args:
            path: final name of the whole store.
            shard: part to write.
            overwrite: replace an existing store.
            progress: called with the tokens of each batch, and of chunks that an earlier run has written.

        Raises:
            ValueError: unfinished work with other settings.
            FileExistsError: another store has the name, or one of other data, or another process writes it.
            OSError: no room on the disk.
        """
        writer = TopKWriter(path, self.info, self.pairs["target"].sizes, self.symbols, shard, overwrite)
        with writer, ThreadPoolExecutor(1) as background:
            if writer.complete:
                self.check_unchanged_data(writer.path)
                return 0
            left = self._unfinished(writer, progress)
            tokens = sum(map(self.chunk_tokens, left))
            pending: Future | None = None
            synced = time.monotonic()
            for chunk in self.scorer.score(left, progress):
                if pending is not None:
                    pending.result()  # raises the error of the write before
                due = time.monotonic() - synced > SYNC_SECONDS
                synced = time.monotonic() if due else synced
                pending = background.submit(_write, writer, chunk, due)
            if pending is not None:
                pending.result()
            writer.finish()
        return tokens

    def check_unchanged_data(self, path: Path) -> None:
        """FileExistsError if a finished store, or a shard of one, was made from other sentences than the present ones."""
        reader, size = TopKReader(path, shard=True), self.info.chunk_sentences
        chunks = self.chunks(reader.header.shard)
        sentences = (
            i for chunk in chunks for i in range(chunk * size, min((chunk + 1) * size, self.sentences))
        )
        for local, sentence in enumerate(sentences):
            known, now = reader.hashes(local), self.pairs.hashes(sentence)
            if now != known:
                side = next(side for side in now if now[side] != known[side])
                raise FileExistsError(
                    f"store {path} exists and is of other data: sentence {sentence} has another {side} now; pass "
                    "--overwrite to score these data"
                )

    def chunk_tokens(self, chunk: int) -> int:
        """Source and target tokens of a chunk over all passes."""
        src_lengths, tgt_lengths = self._lengths(chunk)
        return count_tokens(
            src_lengths, tgt_lengths, src_lengths + tgt_lengths <= self.limit, self.info.passes
        )

    def chunks(self, shard: Shard = WHOLE) -> range:
        """Numbers of a shard's chunks."""
        return range(shard.index, -(-self.sentences // self.info.chunk_sentences), shard.count)

    def count(self, shard: Shard) -> dict[str, int]:
        """Target positions, sentences, sentences beyond the teacher's positions, bytes, and tokens to score."""
        totals = dict.fromkeys(("positions", "sentences", "too_long", "tokens"), 0)
        for chunk in self.chunks(shard):
            src_lengths, tgt_lengths = self._lengths(chunk)
            totals["positions"] += int(tgt_lengths.sum())
            totals["sentences"] += len(tgt_lengths)
            totals["too_long"] += int((src_lengths + tgt_lengths > self.limit).sum())
            totals["tokens"] += self.chunk_tokens(chunk)
        index_bytes = 25 * totals["sentences"]  # offset, two hashes, status
        return totals | {"bytes": totals["positions"] * self.info.record_dtype.itemsize + index_bytes}

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

    # ------------------------------------------------------------ inside

    def _unfinished(self, writer: TopKWriter, progress: Progress) -> list[int]:
        """Chunks that earlier runs have not written, or have written from other sentences."""
        left = []
        for chunk in writer.chunks():
            data = writer.read_chunk(chunk)
            if data is None or not self._is_of_these_data(data, writer.sentences(chunk)):
                left.append(chunk)
            else:
                progress(self.chunk_tokens(chunk))
        done = len(writer.chunks()) - len(left)
        if done:
            logger.info("%d of %d chunks are there already: going on", done, len(writer.chunks()))
        return left

    def _is_of_these_data(self, data: ChunkData, sentences: range) -> bool:
        """Whether the chunk was made from the present sentences."""
        for place, sentence in enumerate(sentences):
            if self.pairs.hashes(sentence) != {side: known[place] for side, known in data.hashes.items()}:
                logger.warning(
                    "the data changed since the dump began (sentence %d): scoring it anew", sentence
                )
                return False
        return True

    def _lengths(self, chunk: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``(sentences,)`` source lengths without and target lengths with end of sentence."""
        part = slice(chunk * self.info.chunk_sentences, (chunk + 1) * self.info.chunk_sentences)
        source, target = (self.pairs[side].sizes[part].astype(np.int64) for side in ("source", "target"))
        return source - 1, target


def _write(writer: TopKWriter, chunk: Chunk, sync: bool) -> None:
    writer.write_chunk(chunk.number, chunk.data, **chunk.gold_summary())
    if sync:
        writer.sync()
