"""A file that is going to be written: its header, its index, and its differences from an existing file."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.header import Header, plan_header
from fairseq_bert_kd.storage.schema import OFFSET_DTYPE, StoreInfo, differing_fields
from fairseq_bert_kd.storage.shards import Shard
from fairseq_bert_kd.storage.store_file import Read


class StorePlan:
    """Everything about a file but its rows.

    Args:
        info: statement of the creator.
        lengths: ``(corpus sentences,)`` integers, rows of every sentence of the corpus; may be a memory map.
        blobs: sections of bytes by name.
        shard: part of the corpus that the file holds.

    Attributes:
        header: without summary and digests.

    Raises:
        ValueError: impossible ``info``, ``lengths`` or ``blobs``.
    """

    def __init__(self, info: StoreInfo, lengths: NDArray[Any], blobs: Mapping[str, bytes], shard: Shard):
        info.check()
        for name in info.blobs:
            info.check_blob(name, blobs[name])
        self.info, self.shard, self.blobs, self._lengths = info, shard, blobs, lengths
        rows = sum(int(self.lengths(chunk).sum()) for chunk in self.chunks())
        sizes = {name: len(blobs[name]) for name in info.blobs}
        self.header = plan_header(info, shard, len(lengths), sizes, rows)

    def chunks(self) -> range:
        """Numbers of the file's chunks in the corpus, ascending."""
        return self.shard.chunks(len(self._lengths), self.info.chunk_sentences)

    def sentences(self, chunk: int) -> range:
        """Corpus indices of a chunk's sentences."""
        start = chunk * self.info.chunk_sentences
        return range(start, min(start + self.info.chunk_sentences, len(self._lengths)))

    def lengths(self, chunk: int) -> NDArray[np.int64]:
        """``(sentences,)`` rows of a chunk's sentences."""
        sentences = self.sentences(chunk)
        lengths = np.asarray(self._lengths[sentences.start : sentences.stop])
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any():
            raise ValueError(
                f"lengths must be (sentences,) integers, not negative, got {lengths.dtype} of shape {lengths.shape}, "
                f"least {lengths.min(initial=0)}; pass the rows of each sentence"
            )
        if self.info.row_side is None and (lengths != 1).any():
            raise ValueError(
                f"{self.info.schema} have one row per sentence, got {lengths[lengths != 1][0]} for sentence "
                f"{sentences[int((lengths != 1).argmax())]}"
            )
        return lengths.astype(np.int64)

    def offset_blocks(self) -> Iterator[NDArray[np.int64]]:
        """The offsets section in pieces: its 0, then the ends of each chunk's sentences."""
        yield np.zeros(1, dtype=OFFSET_DTYPE)
        total = 0
        for chunk in self.chunks():
            ends = total + np.cumsum(self.lengths(chunk))
            yield ends.astype(OFFSET_DTYPE)
            total = int(ends[-1])

    def differences(self, found: Header, read: Read) -> list[str]:
        """Differences of an existing file, finished or not, from this plan; rows are not compared."""
        differences = differing_fields(found.info, self.info)
        mine = self.header
        if (found.shard, found.corpus_sentences) != (mine.shard, mine.corpus_sentences):
            differences.append(
                f"shard {found.shard} of {found.corpus_sentences} sentences against {mine.shard} of "
                f"{mine.corpus_sentences}"
            )
        elif not differences and found.layout != mine.layout:
            differences.append(f"{found.layout.rows} rows against {mine.layout.rows}")
        return differences or self._moved_sentences(read)

    def _moved_sentences(self, read: Read) -> list[str]:
        place = self.header.layout.starts["offsets"]
        for offsets in self.offset_blocks():
            if bytes(read(place, place + offsets.nbytes)) != offsets.tobytes():
                return ["sentences have other lengths"]
            place += offsets.nbytes
        return []
