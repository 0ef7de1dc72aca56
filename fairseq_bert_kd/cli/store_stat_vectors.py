"""``fairseq-bert-kd store stat`` of sentence vectors: header, mean length, mean cosine of random pairs."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fairseq_bert_kd.cli.store_facts import (
    fact_of_sentences,
    fact_of_versions,
    facts_of_origin,
    print_facts,
)
from fairseq_bert_kd.storage.vector_stat import PAIRS, VectorStat, vector_stat
from fairseq_bert_kd.storage.vector_store import VectorReader


def main(args: argparse.Namespace) -> None:
    """Print what `store stat` is asked for."""
    reader = VectorReader(args.store, shard=True)
    stat = vector_stat(reader, args.rows)
    if args.json:
        print(json.dumps(as_json(reader, stat), indent=2))
        return
    print_facts(reader, _facts(reader), _lines(stat))


def _facts(reader: VectorReader) -> Iterator[tuple[str, str]]:
    header, info = reader.header, reader.info
    yield from facts_of_origin(header, info.split)
    how = [word for word in (info.precision, info.device and f"on {info.device}") if word]
    how += [f"batches of {info.max_tokens:,} tokens"] if info.max_tokens else []
    yield "encoded", " ".join(how) or "precision and device not known"
    compared = f", compared by {info.similarity}" if info.similarity else ""
    yield "vector", f"{info.vector}, {info.width:,} numbers in {info.dtype}{compared}"
    yield fact_of_sentences(header)
    yield "not finite", f"{100 * _not_finite(reader):.2f} % of the sentences"
    yield fact_of_versions(header)


def _not_finite(reader: VectorReader) -> float:
    """Share of sentences whose vector was not finite."""
    return reader.header.missing.get("not_finite", 0) / max(len(reader), 1)


def _lines(stat: VectorStat) -> Iterator[str]:
    yield f"vectors: {stat.rows:,} sampled"
    if stat.mean_length is not None:
        yield f"mean length {stat.mean_length:.4f}"
    if stat.random_cosine is not None:
        yield f"mean cosine of {PAIRS:,} random pairs {stat.random_cosine:.4f} (near 1, vectors hardly differ in direction)"


def as_json(reader: VectorReader, stat: VectorStat) -> dict[str, Any]:
    """Header and statistics as plain values."""
    header = reader.header
    return {
        "path": str(reader.path),
        "version": header.info.version,
        "digest": header.digest,
        "file_bytes": header.layout.file_bytes,
        "info": asdict(header.info),
        "shard": [header.shard.index, header.shard.count],
        "corpus_sentences": header.corpus_sentences,
        "sentences": header.layout.sentences,
        "chunks": header.layout.chunks,
        "summary": header.summary,
        "share_not_finite": _not_finite(reader),
        **stat._asdict(),
    }
