"""Shards of a store: every n-th chunk of the corpus in a file of its own."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Shard:
    """Shard ``index`` of ``count``, from 0; it holds the chunks c with ``c % count == index``."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"

    def chunks(self, corpus_sentences: int, chunk_sentences: int) -> range:
        """Numbers of the shard's chunks in the corpus, ascending."""
        return range(self.index, -(-corpus_sentences // chunk_sentences), self.count)

    def sentences(self, corpus_sentences: int, chunk_sentences: int) -> int:
        """Sentences in the shard."""
        whole, rest = divmod(corpus_sentences, chunk_sentences)
        full_chunks = len(range(self.index, whole, self.count))
        return full_chunks * chunk_sentences + (rest if rest and whole % self.count == self.index else 0)


WHOLE = Shard(0, 1)  # the corpus in one file


def shard_path(path: str | os.PathLike[str], shard: Shard) -> Path:
    """Path of a shard of a store; the store's own path when there is one shard only."""
    path = Path(path)
    if shard.count == 1:
        return path
    return path.with_name(f"{path.name}.shard-{shard.index + 1}-of-{shard.count}")


def store_of_shard(path: str | os.PathLike[str]) -> Path:
    """Path of the store that a shard's file belongs to.

    Raises:
        ValueError: the file is not named like a shard.
    """
    name, separator, _ = Path(path).name.rpartition(".shard-")
    if not separator:
        raise ValueError(f"{path} is not named like a shard (`STORE.shard-1-of-7`); give --output")
    return Path(path).with_name(name)
