"""Small top-k stores: by hand, of random rows, and files that only one check can see through."""

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_bert_kd.storage.chunk import table_entry
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest, encode_dictionary, sentence_hash
from fairseq_bert_kd.storage.header import Header, encode_header, plan_header, read_header
from fairseq_bert_kd.storage.schema import (
    OFFSET_DTYPE,
    SCORED,
    TOO_LONG,
    ChunkData,
    empty_records,
    new_digest,
)
from fairseq_bert_kd.storage.shards import WHOLE, Shard
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "c", "d", "e", "f"]
NAME = "train.de-en.en.topk"
# A row: probabilities 1/2, 1/4 and 1/8 at temperature 1 for tokens 4, 5, 6; the other seven share 1/8.
IDS = (4, 5, 6)
LOGITS = (0.0, -np.log(2), -np.log(4))
NORMALISERS = (np.log(2), np.log(8))  # at temperatures 1 and 10


def make_info(**changes: Any) -> TopKInfo:
    """Header fields of a store over `SYMBOLS`, two sentences per chunk."""
    info = TopKInfo(
        k=3,
        dictionary_size=len(SYMBOLS),
        dictionary_digest=dictionary_digest(SYMBOLS),
        split="train",
        source_lang="de",
        target_lang="en",
        passes=7,
        teacher="bert-base-multilingual-cased",
        teacher_digest="ab" * 32,
        mask_ratio=0.15,
        versions={"numpy": "2.0", "straße": "ü"},
        temperatures=(1.0, 10.0),
        chunk_sentences=2,
    )
    return replace(info, **changes)


def make_chunk(info: TopKInfo, pairs: Any, missing: Any = (), status: int = 1) -> ChunkData:
    """A chunk whose every row is the one above, over ``pairs`` of source and target ids.

    Args:
        info: of the store.
        pairs: source and target ids of each sentence.
        missing: sentences that were not scored, by their place in the chunk.
        status: of these.
    """
    lengths = np.array([len(target) for _, target in pairs], dtype=np.int64)
    records = empty_records(int(lengths.sum()), info)
    records["topk_ids"], records["topk_logits"] = IDS[: info.k], LOGITS[: info.k]
    if info.temperatures:
        records["log_normalisers"] = NORMALISERS[: len(info.temperatures)]
    if info.gold:
        records["gold_id"], records["gold_logit"] = IDS[1], np.float16(LOGITS[1])
    if info.samples:
        records["sample_ids"], records["sample_logits"] = 7, np.float16(-3)
    statuses = np.full(len(pairs), SCORED, dtype=np.uint8)
    statuses[list(missing)] = status
    hashes = {
        side: np.array([sentence_hash(pair[place]) for pair in pairs], dtype=np.uint64)
        for place, side in enumerate(info.sides)
    }
    data = ChunkData(hashes, lengths, statuses, records)
    records[~data.scored] = 0
    return data


# Five sentences in three chunks; sentence 1 is missing.
PAIRS = [
    ([5, 2], [4, 5, 2]),
    ([6, 7, 2], [6, 2]),
    ([4, 2], [9, 8, 7, 2]),
    ([8, 2], [2]),
    ([9, 9, 2], [4, 4, 2]),
]


def make_chunks(info: TopKInfo, pairs: Any = PAIRS, missing: Any = (1,)) -> list[ChunkData]:
    """All chunks of a corpus."""
    size = info.chunk_sentences
    return [
        make_chunk(info, pairs[i : i + size], [m - i for m in missing if i <= m < i + size])
        for i in range(0, len(pairs), size)
    ]


def write_store(
    path: Path,
    info: TopKInfo | None = None,
    pairs: Any = PAIRS,
    missing: Any = (1,),
    shard: Shard = WHOLE,
    **measured: Any,
) -> Path:
    """A store, or a shard of it, through the writer, with ``measured`` in each chunk's table entry; its path."""
    info = info or make_info()
    lengths = np.array([len(target) for _, target in pairs], dtype=np.int32)
    chunks = make_chunks(info, pairs, missing)
    with TopKWriter(path, info, lengths, SYMBOLS, shard) as writer:
        for chunk in writer.chunks():
            writer.write_chunk(chunk, chunks[chunk], **measured)
        if not writer.complete:
            writer.finish()
    return writer.path


@dataclass
class Parts:
    """Parts of a file; change them and `assemble` the file with all digests fitting.

    Attributes:
        info: header fields.
        chunks: data; nobody looks at the rows.
        entries: of the chunk table, by chunk; computed where absent.
        symbols: of the dictionary section.
        first_row: where the index starts, after rows that belong to nobody.
        last_rows: rows after the index's end.
        summary: other than the chunks give.
        table_digest: other than the chunk table's.
        shard: what the header says.
        corpus_sentences: what the header says; by default those of the chunks.
    """

    info: TopKInfo
    chunks: list[ChunkData]
    entries: dict[int, np.ndarray]
    symbols: list[str]
    first_row: int = 0
    last_rows: int = 0
    summary: Any = None
    table_digest: str = ""
    shard: Shard = WHOLE
    corpus_sentences: int = 0


def make_parts(info: TopKInfo | None = None, **changes: Any) -> Parts:
    info = info or make_info()
    return Parts(info, make_chunks(info), {}, SYMBOLS, **changes)


def assemble(path: Path, parts: Parts) -> Path:
    """Write a file whose every digest fits, without the writer and its checks; its path."""
    info, chunks, shard = parts.info, parts.chunks, parts.shard
    numbers = [local * shard.count + shard.index for local in range(len(chunks))]
    entries = [parts.entries.get(n, table_entry(n, c, info)) for n, c in zip(numbers, chunks, strict=True)]
    table = np.stack(entries)
    lengths = np.concatenate([chunk.lengths for chunk in chunks])
    records = np.concatenate(
        [
            empty_records(parts.first_row, info),
            *(c.records for c in chunks),
            empty_records(parts.last_rows, info),
        ]
    )
    sections = {
        "dictionary": encode_dictionary(parts.symbols),
        "offsets": (parts.first_row + np.concatenate([[0], np.cumsum(lengths)]))
        .astype(OFFSET_DTYPE)
        .tobytes(),
        **{
            f"{side}_hashes": b"".join(chunk.hashes[side].tobytes() for chunk in chunks)
            for side in info.sides
        },
        "status": b"".join(chunk.status.tobytes() for chunk in chunks),
        "records": records.tobytes(),
        "chunk_table": table.tobytes(),
    }
    corpus = parts.corpus_sentences or len(lengths)
    blob_bytes = {"dictionary": len(sections["dictionary"])}
    layout = plan_header(info, shard, corpus, blob_bytes, len(records)).layout
    digest = new_digest()
    digest.update(sections["chunk_table"])
    summary = info.summarise(table) if parts.summary is None else parts.summary
    table_digest = parts.table_digest or digest.hexdigest()
    head = encode_header(Header(info, shard, corpus, layout, summary, "", table_digest))
    content = bytearray(layout.file_bytes)
    content[: len(head)] = head
    for name, section in sections.items():
        content[layout.starts[name] : layout.ends[name]] = section
    path.write_bytes(content)
    return path


def header_of(path: Path) -> Any:
    with open(path, "rb") as file:
        return read_header(file, path, (TopKInfo,))


def flip(path: Path, place: int) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def write_index(prefix: Path, sentences: Any) -> None:
    """One side as fairseq-preprocess writes it, in its mmap format with 16-bit ids."""
    sizes = np.array([len(sentence) for sentence in sentences], dtype="<i4")
    pointers = 2 * (np.cumsum(sizes, dtype="<i8") - sizes)
    head = struct.pack("<9sQBQ", b"MMIDIDX\x00\x00", 1, 8, len(sentences))
    Path(f"{prefix}.idx").write_bytes(head + sizes.tobytes() + pointers.astype("<i8").tobytes())
    Path(f"{prefix}.bin").write_bytes(np.concatenate(sentences).astype("<u2").tobytes())


def write_data(folder: Path, pairs: Any = PAIRS, split: str = "train", symbols: Any = SYMBOLS) -> Path:
    """Data as fairseq-preprocess writes them: both sides in its mmap format and the dictionaries."""
    folder.mkdir(exist_ok=True)
    for side, lang in enumerate(("de", "en")):
        write_index(folder / f"{split}.de-en.{lang}", [pair[side] for pair in pairs])
        lines = "".join(f"{symbol} 1\n" for symbol in symbols[4:])
        (folder / f"dict.{lang}.txt").write_text(lines, encoding="utf-8")
    return folder


# ---------------------------------------------------------------- random rows


def make_symbols(size: int) -> list[str]:
    """A dictionary of ``size`` symbols, the special ones first."""
    return (["<s>", "<pad>", "</s>", "<unk>"] + [f"ü{i}" for i in range(size)])[:size]


def random_info(dictionary_size: int = 20, **changes: Any) -> TopKInfo:
    """Header fields of a store of random rows: k=3, two temperatures, 4 sentences per chunk."""
    symbols = make_symbols(dictionary_size)
    fields: dict[str, Any] = {"temperatures": (1.0, 5.0), "chunk_sentences": 4}
    fields |= {"dictionary_size": len(symbols), "dictionary_digest": dictionary_digest(symbols)}
    return make_info(**fields | changes)


@dataclass(frozen=True)
class Corpus:
    """A teacher's rows for a corpus; the rows of a chunk follow from ``seed`` and the chunk's number.

    Attributes:
        info: of the store.
        lengths: ``(sentences,)`` int32 target tokens.
        missing: share of sentences that the teacher did not score, 0 to 1.
        seed: of everything random.
    """

    info: TopKInfo
    lengths: np.ndarray
    missing: float = 0.2
    seed: int = 0

    @property
    def symbols(self) -> list[str]:
        return make_symbols(self.info.dictionary_size)

    @property
    def chunks(self) -> int:
        return -(-len(self.lengths) // self.info.chunk_sentences)

    def chunk(self, chunk: int) -> ChunkData:
        """Data of a chunk, by its number in the corpus."""
        rng = np.random.default_rng([self.seed, chunk])
        size = self.info.chunk_sentences
        lengths = self.lengths[chunk * size : (chunk + 1) * size]
        status = np.where(rng.random(len(lengths)) < self.missing, TOO_LONG, SCORED).astype(np.uint8)
        hashes = rng.integers(0, 2**64, (2, len(lengths)), dtype=np.uint64)
        records = random_records(self.info, int(lengths.sum()), rng)
        data = ChunkData(dict(zip(self.info.sides, hashes, strict=True)), lengths, status, records)
        records[~data.scored] = 0
        return data

    def open(self, path: Path, shard: Shard = WHOLE, **options: Any) -> TopKWriter:
        """A writer of this corpus."""
        return TopKWriter(path, self.info, self.lengths, self.symbols, shard, **options)

    def write(
        self, path: Path, shard: Shard = WHOLE, order: Iterable[int] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Write what is not yet there and finish; the summary."""
        with self.open(path, shard, **options) as writer:
            if writer.complete:
                return TopKReader(writer.path, shard=True).header.summary or {}
            for chunk in writer.chunks() if order is None else order:
                if not writer.is_done(chunk):
                    self.write_chunk(writer, chunk)
            return writer.finish()

    def write_chunk(self, writer: TopKWriter, chunk: int) -> None:
        """Write one chunk, with made-up counts of gold tokens."""
        data = self.chunk(chunk)
        scored = int(data.scored.sum())
        measured = {"gold_correct": scored // 2, "gold_nll": scored * 0.7} if self.info.gold else {}
        writer.write_chunk(chunk, data, **measured)


def make_corpus(
    lengths: Any = (3, 0, 5, 1, 2, 4, 4, 1, 7, 2), missing: float = 0.2, seed: int = 0, **changes: Any
):
    """A small corpus; ``changes`` are those of `random_info`."""
    return Corpus(random_info(**changes), np.asarray(lengths, dtype=np.int32), missing, seed)


def random_records(info: TopKInfo, rows: int, rng: np.random.Generator) -> np.ndarray:
    """``(rows,)`` records from random logits over the whole dictionary, as a teacher's would be."""
    logits = 3 * rng.standard_normal((rows, info.dictionary_size), dtype=np.float32)
    order = np.argsort(-logits, axis=1, kind="stable")
    logits = np.take_along_axis(logits, order, axis=1)
    logits = (logits - logits[:, :1]).astype(np.float16)  # of the best token 0
    records = empty_records(rows, info)
    records["topk_ids"], records["topk_logits"] = order[:, : info.k], logits[:, : info.k]
    for column, temperature in enumerate(info.temperatures):
        scaled = logits.astype(np.float64) / temperature
        records["log_normalisers"][:, column] = np.log(np.exp(scaled).sum(axis=1))
    gold = rng.integers(0, info.dictionary_size, rows)
    if info.gold:
        records["gold_id"] = order[np.arange(rows), gold]
        records["gold_logit"] = logits[np.arange(rows), gold]
    if info.samples:
        others = rng.integers(info.k, info.dictionary_size - 1, (rows, info.samples))
        others += info.gold * (others >= gold[:, None])  # never the gold token
        records["sample_ids"] = np.take_along_axis(order, others, axis=1)
        records["sample_logits"] = np.take_along_axis(logits, others, axis=1)
    return records


def write_sparse(path: Path, info: TopKInfo, sentences: int, rows: int, offsets: dict[int, int]) -> Header:
    """A file with a sound header whose sections are holes, but for ``offsets[place]``; takes no real disk."""
    dictionary = encode_dictionary(make_symbols(info.dictionary_size))
    header = plan_header(info, WHOLE, sentences, {"dictionary": len(dictionary)}, rows)
    summary = info.summarise(np.zeros(0, dtype=info.table_dtype))
    layout = header.layout
    with open(path, "w+b") as file:
        file.write(encode_header(replace(header, summary=summary, table_digest="00" * 16)))
        file.truncate(layout.file_bytes)
        for place, row in ({0: 0, sentences: rows} | offsets).items():
            os.pwrite(file.fileno(), np.int64(row).tobytes(), layout.starts["offsets"] + 8 * place)
        file.seek(0)
        return read_header(file, path, (TopKInfo,))


def read_in_child(reader: TopKReader, queue: Any) -> None:
    """Rows of a reader that came from another process, for `multiprocessing`."""
    try:
        rows = [reader.rows(index).tobytes() for index in range(len(reader))]
        records, present = reader.gather_records(range(len(reader)), 9)
        queue.put((rows, records.tobytes(), present.tolist()))
    except Exception as error:
        queue.put(repr(error))


def tokens_in_child(tokens: Any, queue: Any) -> None:
    """All sentences of data that came from another process, for `multiprocessing`."""
    queue.put([tokens[index].tolist() for index in range(len(tokens))])
