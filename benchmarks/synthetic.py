"""Made-up teacher rows, as skewed as a trained teacher's, and stores of them."""

from pathlib import Path
from typing import Any

import numpy as np

from fairseq_bert_kd.storage.records import ChunkData, empty_records
from fairseq_bert_kd.storage.store_info import WHOLE, Shard, StoreInfo, dictionary_digest
from fairseq_bert_kd.storage.topk_writer import TopKWriter

DICTIONARY = 30_000
TOKENS = 27  # target tokens of a sentence, as in IWSLT
SYMBOLS = [f"w{index}" for index in range(DICTIONARY)]


def make_info(k: int = 8, chunk_sentences: int = 1024) -> StoreInfo:
    """k tokens and one temperature."""
    return StoreInfo(
        k=k, dictionary_size=DICTIONARY, dictionary_digest=dictionary_digest(SYMBOLS), split="train", source_lang="a",
        target_lang="b", passes=7, teacher="synthetic", teacher_digest="", mask_ratio=0.15, versions={},
        temperatures=(1.0,), chunk_sentences=chunk_sentences,
    )  # fmt: skip


def make_records(info: StoreInfo, rows: int, seed: int = 0) -> Any:
    """``(rows,)`` records."""
    rng = np.random.default_rng(seed)
    records = empty_records(rows, info)
    gaps = rng.exponential(1.5, (rows, info.k)).astype(np.float16)
    gaps[:, 0] = 0
    logits = -np.cumsum(gaps / np.sqrt(np.arange(1, info.k + 1)), axis=1).astype(np.float16)
    step = DICTIONARY // info.k
    records["topk_ids"] = np.arange(info.k) * step + rng.integers(0, step, (rows, info.k))
    records["topk_logits"] = logits
    records["log_normalisers"] = np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True)) + 0.1
    return records


def make_chunk(info: StoreInfo, sentences: int) -> ChunkData:
    """A chunk of sentences of one length."""
    lengths = np.full(sentences, TOKENS, dtype=np.int64)
    hashes = np.random.default_rng(1).integers(0, 2**63, sentences).astype("<u8")
    return ChunkData(
        hashes, hashes, lengths, np.zeros(sentences, np.uint8), make_records(info, sentences * TOKENS)
    )


def write_store(path: Path, info: StoreInfo, sentences: int, shard: Shard = WHOLE) -> None:
    """A store, or a shard, whose chunks all hold the same rows, so that making them costs nothing."""
    lengths = np.broadcast_to(np.int32(TOKENS), (sentences,))
    chunk = make_chunk(info, min(sentences, info.chunk_sentences))
    with TopKWriter(path, info, lengths, SYMBOLS, shard) as writer:
        for number in writer.chunks():
            count = len(writer.sentences(number))
            part = ChunkData(
                chunk.source_hashes[:count], chunk.target_hashes[:count], chunk.lengths[:count],
                chunk.status[:count], chunk.records[: count * TOKENS],
            )  # fmt: skip
            writer.write_chunk(number, part)
        writer.finish()
