"""Small top-k stores made by hand, and files that only one check can see through."""

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_bert_kd.storage.fairseq_data import sentence_hash
from fairseq_bert_kd.storage.header import (
    encode_dictionary,
    encode_header,
    plan_layout,
    read_header,
    summarise,
)
from fairseq_bert_kd.storage.records import ChunkData, empty_records, table_entry
from fairseq_bert_kd.storage.store_info import (
    OFFSET_DTYPE,
    SCORED,
    WHOLE,
    Shard,
    StoreInfo,
    dictionary_digest,
    new_digest,
)
from fairseq_bert_kd.storage.topk_writer import TopKWriter

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "c", "d", "e", "f"]
NAME = "train.de-en.en.topk"
# A row: probabilities 1/2, 1/4 and 1/8 at temperature 1 for tokens 4, 5, 6; the other seven share 1/8.
IDS = (4, 5, 6)
LOGITS = (0.0, -np.log(2), -np.log(4))
NORMALISERS = (np.log(2), np.log(8))  # at temperatures 1 and 10


def make_info(**changes: Any) -> StoreInfo:
    """Header fields of a store over `SYMBOLS`, two sentences a chunk."""
    info = StoreInfo(
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


def make_chunk(info: StoreInfo, pairs: Any, missing: Any = (), status: int = 1) -> ChunkData:
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
    hashes = [np.array([sentence_hash(pair[side]) for pair in pairs], dtype=np.uint64) for side in (0, 1)]
    data = ChunkData(hashes[0], hashes[1], lengths, statuses, records)
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


def make_chunks(info: StoreInfo, pairs: Any = PAIRS, missing: Any = (1,)) -> list[ChunkData]:
    """All chunks of a corpus."""
    size = info.chunk_sentences
    return [
        make_chunk(info, pairs[i : i + size], [m - i for m in missing if i <= m < i + size])
        for i in range(0, len(pairs), size)
    ]


def write_store(
    path: Path,
    info: StoreInfo | None = None,
    pairs: Any = PAIRS,
    missing: Any = (1,),
    shard: Shard = WHOLE,
    gold: tuple[int, float] = (-1, np.nan),
) -> Path:
    """A store, or a shard of it, through the writer; its path."""
    info = info or make_info()
    lengths = np.array([len(target) for _, target in pairs], dtype=np.int32)
    chunks = make_chunks(info, pairs, missing)
    with TopKWriter(path, info, lengths, SYMBOLS, shard) as writer:
        for chunk in writer.chunks():
            writer.write_chunk(chunk, chunks[chunk], *gold)
        if not writer.complete:
            writer.finish()
    return writer.path


@dataclass
class Parts:
    """What a file is made of; change it and `assemble` the file with all digests fitting.

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

    info: StoreInfo
    chunks: list[ChunkData]
    entries: dict[int, np.ndarray]
    symbols: list[str]
    first_row: int = 0
    last_rows: int = 0
    summary: Any = None
    table_digest: str = ""
    shard: Shard = WHOLE
    corpus_sentences: int = 0


def make_parts(info: StoreInfo | None = None, **changes: Any) -> Parts:
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
        "source_hashes": b"".join(chunk.source_hashes.tobytes() for chunk in chunks),
        "target_hashes": b"".join(chunk.target_hashes.tobytes() for chunk in chunks),
        "status": b"".join(chunk.status.tobytes() for chunk in chunks),
        "records": records.tobytes(),
        "chunk_table": table.tobytes(),
    }
    corpus = parts.corpus_sentences or len(lengths)
    layout = plan_layout(info, shard, corpus, len(sections["dictionary"]), len(lengths), len(records))
    digest = new_digest()
    digest.update(sections["chunk_table"])
    summary = summarise(table, info) if parts.summary is None else parts.summary
    head = encode_header(info, shard, corpus, layout, summary, parts.table_digest or digest.hexdigest())
    content = bytearray(layout.file_bytes)
    content[: len(head)] = head
    for name, section in sections.items():
        content[layout.starts[name] : layout.ends[name]] = section
    path.write_bytes(content)
    return path


def header_of(path: Path) -> Any:
    with open(path, "rb") as file:
        return read_header(file, path)


def flip(path: Path, place: int) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def write_data(folder: Path, pairs: Any = PAIRS, split: str = "train", symbols: Any = SYMBOLS) -> Path:
    """What fairseq-preprocess writes: both sides in its mmap format and the dictionaries."""
    folder.mkdir(exist_ok=True)
    for side, lang in enumerate(("de", "en")):
        sizes = np.array([len(pair[side]) for pair in pairs], dtype="<i4")
        pointers = 2 * (np.cumsum(sizes, dtype="<i8") - sizes)
        prefix = folder / f"{split}.de-en.{lang}"
        head = struct.pack("<9sQBQ", b"MMIDIDX\x00\x00", 1, 8, len(pairs))
        Path(f"{prefix}.idx").write_bytes(head + sizes.tobytes() + pointers.astype("<i8").tobytes())
        Path(f"{prefix}.bin").write_bytes(
            np.concatenate([pair[side] for pair in pairs]).astype("<u2").tobytes()
        )
        lines = "".join(f"{symbol} 1\n" for symbol in symbols[4:])
        (folder / f"dict.{lang}.txt").write_text(lines, encoding="utf-8")
    return folder
