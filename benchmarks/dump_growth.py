"""Memory and rate of the dump on corpora of 1, 10 and 100 times the size.

The teacher is tiny and each target is scored in one pass, so that what grows would show. Each size runs in a new
process, which reports its peak resident memory above what it had before the dump.
"""

import multiprocessing
import tempfile
import time
from pathlib import Path

import torch
from fairseq.data import indexed_dataset

from benchmarks.dump_throughput import make_pairs, make_teacher
from benchmarks.memory import peak_growth
from benchmarks.table import Row
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, Sides, dictionary_digest
from fairseq_bert_kd.storage.shards import WHOLE
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.teachers.dump import StoreDump

DICTIONARY = 1000


def write_corpus(folder: Path, pairs: Sides, dictionary_size: int) -> None:
    """Both sides in fairseq's mmap format."""
    for name, side in zip(("source", "target"), pairs.values(), strict=True):
        builder = indexed_dataset.make_builder(
            str(folder / f"{name}.bin"), "mmap", vocab_size=dictionary_size
        )
        for index in range(len(side)):
            builder.add_item(torch.from_numpy(side[index].astype("int64")))
        builder.finalize(str(folder / f"{name}.idx"))


def dump_in_child(folder: str, answer) -> None:
    """Put tokens per second, positions and MiB above the start into ``answer``."""
    torch.set_num_threads(1)
    teacher = make_teacher("tiny", DICTIONARY, torch.device("cpu"), torch.float32)
    symbols = teacher.task.target_dictionary.symbols
    info = TopKInfo(
        k=8, dictionary_size=DICTIONARY, dictionary_digest=dictionary_digest(symbols), split="train", source_lang="a",
        target_lang="b", passes=1, teacher="tiny", teacher_digest="", mask_ratio=0.15, versions={}, max_tokens=8192,
    )  # fmt: skip
    pairs = Sides(source=IndexedTokens(f"{folder}/source"), target=IndexedTokens(f"{folder}/target"))
    dump = StoreDump(teacher, pairs, info, torch.device("cpu"))
    counts = dump.count(WHOLE)
    list(dump.scorer.score([0] * 100))  # what is made once, and the allocator's settling
    started = time.perf_counter()
    with peak_growth() as grown:
        dump.run(f"{folder}/store", WHOLE, overwrite=True)
    answer.put((counts["tokens"] / (time.perf_counter() - started), counts["positions"], grown[0]))


def run(quick: bool) -> list[Row]:
    """A row for each size."""
    sizes = (500,) if quick else (2_000, 20_000, 200_000)
    context, rows, first = multiprocessing.get_context("spawn"), [], 0.0
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(Path(folder), make_pairs(size, DICTIONARY), DICTIONARY)
            answer = context.Queue()
            child = context.Process(target=dump_in_child, args=(folder, answer))
            child.start()
            rate, positions, grown = answer.get()
            child.join()
        first = first or rate
        rows.append(
            Row(
                "growth of the dump",
                f"{size:,} sentences, {positions:,} positions, tiny teacher, one core: tokens per second; peak memory "
                "above the start",
                f"{rate:,.0f} ({rate / first:.2f} of the first); {grown:.1f} MiB",
                "-",
                None,
            )
        )
    return rows
