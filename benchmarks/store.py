"""The store: bytes per target position, the time to open 2 GB, and shuffled reads beside fairseq's memory map.

Both sides read the same sentences in the same order from the page cache. "bytes" gives the rows of a sentence as they are
stored, which fairseq's data set returns as an int64 tensor; "decoded" gives int32 ids and float32 logits.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from fairseq.data.indexed_dataset import MMapIndexedDataset, MMapIndexedDatasetBuilder
from torch.utils.benchmark import Timer

from benchmarks.synthetic import TOKENS, make_info, write_store
from benchmarks.table import Length, Row, at_least, at_most, spread
from benchmarks.timing import in_turns, ratios
from fairseq_bert_kd.storage.topk_store import TopKReader

GOAL_BYTES = 36  # with k=8: 8 ids and 8 logits of 16 bits, one normaliser of 32
GOAL_MILLISECONDS = 10  # to open


def run(length: Length) -> list[Row]:
    """Rows of bytes, opening and reads."""
    with tempfile.TemporaryDirectory() as name:
        folder, quick = Path(name), length is Length.QUICK
        return [
            *bytes_per_position(folder, 300 if quick else 5_000),
            opening(folder, 20_000_000 if quick else 2_000_000_000),
            *reads(folder, 400 if quick else 20_000, 2 if quick else 5),
        ]


def bytes_per_position(folder: Path, sentences: int) -> list[Row]:
    """Exact sizes of a record alone, and of everything that grows with the corpus."""
    path, positions = folder / "bytes", sentences * TOKENS
    write_store(path, make_info(), np.full(sentences, TOKENS))
    layout = TopKReader(path).header.layout
    record = (layout.ends["records"] - layout.starts["records"]) / positions
    growing = (layout.file_bytes - layout.starts["offsets"]) / positions
    what = f"k=8: bytes per position with index, hashes and chunk table, {TOKENS} positions per sentence"
    return [
        at_most("store", "k=8: bytes per record", [record], GOAL_BYTES, "g"),
        Row("store", what, f"{growing:.2f}"),
    ]


def opening(folder: Path, size: int) -> Row:
    """Time to open a store of ``size`` bytes."""
    path = folder / "large"
    write_store(path, make_info(), np.full(size // (GOAL_BYTES * TOKENS + 25), TOKENS))
    timer = Timer("TopKReader(path)", globals={"TopKReader": TopKReader, "path": path})
    what = f"opening {path.stat().st_size / 1e9:.2f} GB, ms"
    row = at_most("store", what, [timer.timeit(20).median * 1000], GOAL_MILLISECONDS)
    path.unlink()
    return row


def reads(folder: Path, sentences: int, rounds: int) -> list[Row]:
    """Sentences per second of each way, and the store's rate over fairseq's."""
    write_store(folder / "ours", make_info(), np.full(sentences, TOKENS))
    ours = TopKReader(folder / "ours")
    theirs = write_fairseq(folder / "fairseq", ours)
    dtype = ours.rows(0).dtype
    order = np.random.default_rng(2).permutation(sentences).tolist()
    ways = {
        "this store, bytes": lambda: [ours.rows(i).copy() for i in order],
        "fairseq, bytes": lambda: [theirs[i] for i in order],
        "this store, decoded": lambda: [decode(ours.rows(i)) for i in order],
        "fairseq, decoded": lambda: [decode(theirs[i].numpy().astype(np.uint16).view(dtype)) for i in order],
    }
    times = in_turns(ways, rounds)
    rates = {name: spread([sentences / one for one in found], ",.0f") for name, found in times.items()}
    rows = [Row("store", f"reads: {name}", f"{rate} sentences/s") for name, rate in rates.items()]
    for form in ("bytes", "decoded"):
        faster = ratios(times[f"fairseq, {form}"], times[f"this store, {form}"])
        rows.append(at_least("store", f"reads: this store over fairseq, {form}", faster, 1))
    return rows


def write_fairseq(prefix: Path, reader: TopKReader) -> MMapIndexedDataset:
    """The store's record bytes as fairseq's indexed data set of uint16."""
    builder = MMapIndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for sentence in range(len(reader)):
        builder.add_item(torch.from_numpy(reader.rows(sentence).copy().view(np.uint16)))
    builder.finalize(f"{prefix}.idx")
    return MMapIndexedDataset(str(prefix))


def decode(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return records["topk_ids"].astype(np.int32), records["topk_logits"].astype(np.float32)
