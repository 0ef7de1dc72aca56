"""Lines of ``store stat`` that are the same for every schema."""

from collections.abc import Iterable, Iterator
from typing import Any

from fairseq_bert_kd.cli.store_tools import printable
from fairseq_bert_kd.storage.header import Header
from fairseq_bert_kd.storage.reader import StoreReader

Fact = tuple[str, str]  # name and value


def print_facts(reader: StoreReader, facts: Iterable[Fact], lines: Iterable[str]) -> None:
    """Print a store's name, its facts and further lines."""
    for line in [str(reader.path), *(f"  {name:<14} {value}" for name, value in facts), "", *lines]:
        print(printable(line).rstrip())


def facts_of_origin(header: Header, data: str) -> Iterator[Fact]:
    """Format, data and teacher; ``data`` names the corpus."""
    info: Any = header.info
    yield "format", f"version {info.version}, {header.layout.file_bytes:,} bytes, digest {header.digest}"
    shard = (
        f"; shard {header.shard} of {header.corpus_sentences:,} sentences" if header.shard.count > 1 else ""
    )
    yield "data", f"{data}{shard}"
    sha = f"sha256 {info.teacher_digest}" if info.teacher_digest else "checkpoint not known"
    yield "teacher", f"{info.teacher} ({sha})"


def fact_of_sentences(header: Header) -> Fact:
    """Sentences, and why some are missing."""
    missing = header.missing
    reasons = f" ({', '.join(f'{count:,} {name}' for name, count in missing.items())})" if missing else ""
    return "sentences", f"{header.layout.sentences:,}, of them {sum(missing.values()):,} missing{reasons}"


def fact_of_versions(header: Header) -> Fact:
    """Origin of the rows, and the tools that made them."""
    info = header.info
    versions = ", ".join(f"{tool} {version}" for tool, version in sorted(info.versions.items()))
    return "origin", f"{info.origin}; {versions}"
