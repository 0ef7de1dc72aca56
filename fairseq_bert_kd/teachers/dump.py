"""Scores one split and writes its store, or one shard of it, of whatever schema; goes on where an earlier run ended."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_bert_kd.storage.fairseq_data import Sides
from fairseq_bert_kd.storage.reader import StoreReader
from fairseq_bert_kd.storage.schema import ChunkData, StoreInfo
from fairseq_bert_kd.storage.shards import WHOLE, Shard
from fairseq_bert_kd.storage.writer import StoreWriter

logger = logging.getLogger(__name__)
Progress = Callable[[int], Any]  # takes a number of tokens

SYNC_SECONDS = 10.0  # between syncs: a crash of the machine loses at most this and the chunk in work


class ScoredChunk(NamedTuple):
    """A chunk with its rows.

    Attributes:
        number: number of the chunk in the corpus.
        data: all its sentences.
        measured: columns of the chunk table that do not follow from the rows.
    """

    number: int
    data: ChunkData
    measured: dict[str, Any]


class StoreDump(ABC):
    """Scores one split with a teacher and writes the store; a subclass knows the teacher and the schema.

    Args:
        sides: the split.
        info: description of the store.
        limit: most tokens of a sentence, or pair, that the teacher can read; None for no limit.
    """

    tokens_name = "tokens"  # what is counted, for messages
    item_name = "sentences"
    without_rows = "leave them out"  # what students do with missing ones

    def __init__(self, sides: Sides, info: StoreInfo, limit: int | None):
        self.sides, self.info, self.limit = sides, info, limit

    @property
    def sentences(self) -> int:
        """Sentences in the whole corpus."""
        return len(next(iter(self.sides.values())))

    # ------------------------------------------------------------ of a subclass

    @abstractmethod
    def open_writer(self, path: Any, shard: Shard, overwrite: bool) -> StoreWriter:
        """A writer of a shard of the store, see `StoreWriter`."""

    @abstractmethod
    def open_reader(self, path: Path) -> StoreReader:
        """A reader of a store or a shard."""

    @abstractmethod
    def score(self, chunks: Iterable[int], progress: Progress) -> Iterator[ScoredChunk]:
        """Score chunks one after the other; ``progress`` is called with the tokens of each batch."""

    @abstractmethod
    def count_chunk(self, chunk: int) -> dict[str, int]:
        """Counts of a chunk: ``sentences``, ``too_long`` ones, ``tokens`` to score and ``positions`` (rows)."""

    # ------------------------------------------------------------ the run

    def run(self, path: Any, shard: Shard, overwrite: bool, progress: Progress = lambda tokens: None) -> int:
        """Write a shard of the store, continuing unfinished work; the tokens that were scored.

        Args:
            path: final name of the whole store.
            shard: part to write.
            overwrite: replace an existing store.
            progress: function that is called with the tokens of each batch, and of chunks that an earlier run has written.

        Raises:
            ValueError: unfinished work with other settings.
            FileExistsError: another store has the name, or one of other data, or another process writes it.
            OSError: no room on the disk.
        """
        writer = self.open_writer(path, shard, overwrite)
        with writer, ThreadPoolExecutor(1) as background:
            if writer.complete:
                self.check_unchanged_data(writer.path)
                return 0
            left = self._unfinished(writer, progress)
            tokens = sum(map(self.chunk_tokens, left))
            pending: Future | None = None
            synced = time.monotonic()
            for chunk in self.score(left, progress):
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
        reader, size = self.open_reader(path), self.info.chunk_sentences
        chunks = self.chunks(reader.header.shard)
        sentences = (
            i for chunk in chunks for i in range(chunk * size, min((chunk + 1) * size, self.sentences))
        )
        for local, sentence in enumerate(sentences):
            known, now = reader.hashes(local), self.sides.hashes(sentence)
            if now != known:
                side = next(side for side in now if now[side] != known[side])
                raise FileExistsError(
                    f"store {path} exists and is of other data: sentence {sentence} has another {side} now; pass "
                    "--overwrite to score these data"
                )

    def chunk_tokens(self, chunk: int) -> int:
        """Tokens of a chunk to score."""
        return self.count_chunk(chunk)["tokens"]

    def chunks(self, shard: Shard = WHOLE) -> range:
        """Numbers of a shard's chunks."""
        return shard.chunks(self.sentences, self.info.chunk_sentences)

    def count(self, shard: Shard) -> dict[str, int]:
        """Sums of `count_chunk` over a shard, and the ``bytes`` of its rows and index."""
        totals = dict.fromkeys(("positions", "sentences", "too_long", "tokens"), 0)
        for chunk in self.chunks(shard):
            for name, count in self.count_chunk(chunk).items():
                totals[name] += count
        index_bytes = (9 + 8 * len(self.info.sides)) * totals["sentences"]  # offset, status, hashes
        return totals | {"bytes": totals["positions"] * self.info.record_dtype.itemsize + index_bytes}

    # ------------------------------------------------------------ inside

    def _unfinished(self, writer: StoreWriter, progress: Progress) -> list[int]:
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
            if self.sides.hashes(sentence) != {side: known[place] for side, known in data.hashes.items()}:
                logger.warning(
                    "the data changed since the dump began (sentence %d): scoring it anew", sentence
                )
                return False
        return True


def _write(writer: StoreWriter, chunk: ScoredChunk, sync: bool) -> None:
    writer.write_chunk(chunk.number, chunk.data, **chunk.measured)
    if sync:
        writer.sync()
