"""Made-up sentences and teacher rows, as skewed as a trained teacher's, and corpora and stores of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary, indexed_dataset

from fairseq_bert_kd.storage.fairseq_data import Sides, dictionary_digest, sentence_hash
from fairseq_bert_kd.storage.schema import ChunkData, empty_records
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKWriter

DICTIONARY = 30_000
TOKENS = 27  # target tokens of a sentence, as in IWSLT
SYMBOLS = [f"w{index}" for index in range(DICTIONARY)]


def make_dictionary(symbols: int) -> Dictionary:
    """A dictionary of that many symbols, including fairseq's own four."""
    dictionary = Dictionary()
    for index in range(symbols - len(dictionary)):
        dictionary.add_symbol(f"w{index}")
    return dictionary


def make_info(k: int = 8, chunk_sentences: int = 1024, **changes: Any) -> TopKInfo:
    """k tokens and one temperature; ``changes`` are other fields of `TopKInfo`."""
    info = TopKInfo(
        k=k, dictionary_size=DICTIONARY, dictionary_digest=dictionary_digest(SYMBOLS), split="train", source_lang="a",
        target_lang="b", passes=7, teacher="synthetic", teacher_digest="", mask_ratio=0.15, versions={},
        temperatures=(1.0,), chunk_sentences=chunk_sentences,
    )  # fmt: skip
    return replace(info, **changes)


def make_records(info: TopKInfo, rows: int) -> Any:
    """``(rows,)`` records; a gold token is the third best, drawn ones lie outside the stored."""
    rng = np.random.default_rng(0)
    records = empty_records(rows, info)
    gaps = rng.exponential(1.5, (rows, info.k)).astype(np.float16)
    gaps[:, 0] = 0
    logits = -np.cumsum(gaps / np.sqrt(np.arange(1, info.k + 1)), axis=1).astype(np.float16)
    step = info.dictionary_size // info.k
    others = step // 2 if info.samples else 0  # of each step, for drawn tokens
    ids = np.arange(info.k) * step + rng.integers(0, step - others, (rows, info.k))
    records["topk_ids"], records["topk_logits"] = ids, logits
    for column, temperature in enumerate(info.temperatures):
        masses = np.exp(logits.astype(np.float64) / temperature).sum(axis=1)
        records["log_normalisers"][:, column] = np.log(masses) + 0.1
    if info.gold:
        column = min(2, info.k - 1)
        records["gold_id"], records["gold_logit"] = ids[:, column], logits[:, column]
    if info.samples:
        steps = rng.integers(1, info.k + 1, (rows, info.samples)) * step
        records["sample_ids"] = steps - 1 - rng.integers(0, others, (rows, info.samples))
        records["sample_logits"] = logits[:, -1:] - rng.exponential(1.5, (rows, info.samples))
    return records


def write_store(
    path: Path, info: TopKInfo, lengths: Any, symbols: Sequence[str] = SYMBOLS, sides: Sides | None = None
) -> None:
    """A store of sentences of given ``lengths``; its chunks all hold the same rows, so that making them costs nothing.

    With ``sides`` it bears the hashes of these sentences, so that training takes it.
    """
    size = info.chunk_sentences
    longest = max(int(lengths[start : start + size].sum()) for start in range(0, len(lengths), size))
    records = make_records(info, longest)
    made_up = np.random.default_rng(1).integers(0, 2**63, size).astype("<u8")
    with TopKWriter(path, info, lengths, symbols) as writer:
        for number in writer.chunks():
            part = writer.lengths(number)
            status = np.zeros(len(part), np.uint8)
            hashes = dict.fromkeys(("source", "target"), made_up[: len(part)])
            if sides is not None:
                places = range(number * size, number * size + len(part))
                hashes = {
                    side: np.array([sentence_hash(tokens[i]) for i in places], "<u8")
                    for side, tokens in sides.items()
                }
            writer.write_chunk(number, ChunkData(hashes, part, status, records[: part.sum()]))
        writer.finish()


class Side:
    """Sentences in memory with the interface of `IndexedTokens`."""

    def __init__(self, sentences: list[np.ndarray]):
        self.sentences = sentences
        self.sizes = np.array([len(tokens) for tokens in sentences], np.int32)

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.sentences[index]


def make_pairs(sentences: int, dictionary_size: int) -> Sides:
    """Random tokens with the lengths of talks (TED's words): mean 20, standard deviation 13.5."""
    rng = np.random.default_rng(0)
    source = rng.lognormal(2.81, 0.61, sentences)
    target = source * rng.lognormal(0.0, 0.2, sentences)

    def side(lengths: np.ndarray) -> Side:
        lengths = np.clip(lengths.round(), 3, 150).astype(int)
        return Side([np.append(rng.integers(4, dictionary_size, n - 1), 2) for n in lengths])

    return Sides(source=side(source), target=side(target))


def write_corpus(prefixes: tuple[Path, Path], pairs: Sides, dictionary_size: int) -> None:
    """Both sides in fairseq's mmap format, to ``PREFIX.bin`` and ``PREFIX.idx``."""
    for prefix, side in zip(prefixes, pairs.values(), strict=True):
        builder = indexed_dataset.make_builder(f"{prefix}.bin", "mmap", vocab_size=dictionary_size)
        for index in range(len(side)):
            builder.add_item(torch.from_numpy(side[index].astype("int64")))
        builder.finalize(f"{prefix}.idx")
