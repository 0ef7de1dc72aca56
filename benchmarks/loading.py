"""What the teachers' rows add to the time of loading a batch, as a share of the training step that the batch feeds.

The same corpus in fairseq's mmap format is loaded by torch's `DataLoader`, as fairseq uses it, with and without rows. It has
no workers, which would read the rows beside training: the figure bounds what can be noticed.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import LanguagePairDataset
from fairseq.data.data_utils import batch_by_size
from fairseq.data.indexed_dataset import MMapIndexedDataset
from numpy.typing import NDArray

from benchmarks import vector_batches
from benchmarks.step import measure_times
from benchmarks.synthetic import DICTIONARY, make_dictionary, make_info, make_pairs, write_corpus, write_store
from benchmarks.table import Length, Row
from benchmarks.timing import seconds
from benchmarks.training_batches import Setting
from benchmarks.training_losses import PLAIN
from fairseq_bert_kd.batch import TeacherRequirements
from fairseq_bert_kd.data.distilled_pair_dataset import DistilledPairDataset
from fairseq_bert_kd.data.store_rows import StoreRows
from fairseq_bert_kd.storage.topk_store import TopKReader

GOAL = 0.02  # of a step; our choice for "not noticeable"
K = SAMPLES = 8
TEMPERATURES = (1.0, 5.0, 10.0)  # as a dump has by default
MAX_TOKENS = 6000  # padding and the longer side counted; about 4,100 target tokens
BARE = "without rows"
BASE = f"k={K}, {len(TEMPERATURES)} temperatures"
RICH = f"{BASE}, gold and {SAMPLES} samples"
TWICE = f"two stores of {BASE}"
NO_VECTORS, HALF_VECTORS = "sentences without vectors", "vectors of 384 numbers in float16"
VECTORS = {NO_VECTORS: None, HALF_VECTORS: "float16", "vectors of 384 numbers in float32": "float32"}


def run(length: Length) -> list[Row]:
    """A row for each kind of rows, and for sentence vectors."""
    quick = length is Length.QUICK
    sentences, rounds = (2_000, 2) if quick else (16_000, 7)
    return [*token_rows(quick, sentences, rounds), *vector_rows(quick, sentences, rounds)]


def token_rows(quick: bool, sentences: int, rounds: int) -> list[Row]:
    """Rows of token rows."""
    with tempfile.TemporaryDirectory() as folder:
        datasets = prepare(Path(folder), sentences)
        times = loading_times(datasets, choose_batches(datasets[BARE]), rounds)
    step, what = step_seconds(quick)
    return [
        Row("loading", f"plain step of about as many target tokens, {what}", f"{step * 1000:,.1f} ms"),
        Row("loading", f"{BARE}, a batch", f"{1000 * np.median(times[BARE]):.2f} ms"),
        *(compare(name, times[BARE], times[name], step) for name in (BASE, RICH, TWICE)),
    ]


def vector_rows(quick: bool, sentences: int, rounds: int) -> list[Row]:
    """Rows of sentence vectors, beside a step of the student that learns them."""
    device = "cuda" if torch.cuda.is_available() and not quick else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        datasets = vector_batches.datasets(Path(folder), sentences, VECTORS)
        batches = choose_batches(datasets[NO_VECTORS], max_sentences=vector_batches.BATCH)
        times = loading_times(datasets, batches, rounds)
        hidden, counted = (8, 3) if quick else (300, 40)
        step = statistics.median(
            vector_batches.step_seconds(datasets[HALF_VECTORS], batches[:counted], hidden, device)
        )
    what = f"step of sentence_lstm, {hidden} states each way, {vector_batches.BATCH} sentences, {device}"
    return [
        Row("loading", what, f"{step * 1000:,.1f} ms"),
        Row("loading", f"{NO_VECTORS}, a batch", f"{1000 * np.median(times[NO_VECTORS]):.2f} ms"),
        *(compare(name, times[NO_VECTORS], times[name], step) for name in VECTORS if name != NO_VECTORS),
    ]


def loading_times(
    datasets: dict[str, Any], batches: list[Any], rounds: int
) -> dict[str, NDArray[np.float64]]:
    """``(rounds, batches)`` seconds of each dataset, by name."""
    loading: dict[str, list[list[float]]] = {name: [] for name in datasets}
    for turn in range(rounds):
        for name in reversed(datasets) if turn % 2 else datasets:  # type: ignore[call-overload]
            loading[name].append(batch_seconds(datasets[name], batches))
    return {name: np.array(found) for name, found in loading.items()}


def compare(what: str, bare: NDArray[np.float64], found: NDArray[np.float64], step: float) -> Row:
    """What the rows add, of which the goal is a share of a step.

    The median over batches of a round's differences, each of one batch with and without rows, is hardly moved by what
    else the machine does.

    Args:
        what: what was measured.
        bare: ``(rounds, batches)`` seconds without rows.
        found: with rows.
        step: seconds.
    """
    more = np.median(found - bare, axis=1).tolist()
    middle = statistics.median(more)
    return Row(
        "loading",
        f"{what}: what it adds to a batch; to a step",
        f"{middle * 1e3:.2f} ms ({min(more) * 1e3:.2f} to {max(more) * 1e3:.2f}); {middle / step:.5f}",
        f"at most {GOAL:g} of a step",
        middle / step <= GOAL,
    )


def prepare(folder: Path, sentences: int) -> dict[str, Any]:
    """A corpus, two stores, and the datasets by name."""
    pairs = make_pairs(sentences, DICTIONARY)
    write_corpus((folder / "source", folder / "target"), pairs, DICTIONARY)
    dictionary = make_dictionary(DICTIONARY)
    source, target = (MMapIndexedDataset(str(folder / name)) for name in ("source", "target"))
    plain = LanguagePairDataset(
        source, source.sizes, dictionary, target, target.sizes, dictionary, shuffle=False
    )
    base = make_info(K, temperatures=TEMPERATURES)
    rich = make_info(K, temperatures=TEMPERATURES, gold=True, samples=SAMPLES)
    for name, info in (("base", base), ("rich", rich)):
        write_store(folder / name, info, pairs["target"].sizes)

    def rows(name: str) -> StoreRows:
        return StoreRows([TopKReader(folder / name)], TeacherRequirements(K, samples=name == "rich"))

    return {
        BARE: plain,
        BASE: DistilledPairDataset(plain, [rows("base")]),
        RICH: DistilledPairDataset(plain, [rows("rich")]),
        TWICE: DistilledPairDataset(plain, [rows("base"), rows("base")]),
    }


def choose_batches(dataset: Any, max_sentences: int | None = None) -> list[Any]:
    """Batches as fairseq makes them of sorted sentences, in a shuffled order."""
    found = batch_by_size(
        dataset.ordered_indices(),
        dataset.num_tokens,
        max_tokens=MAX_TOKENS,
        max_sentences=max_sentences,
        required_batch_size_multiple=8,
    )
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))]


def batch_seconds(dataset: Any, batches: list[Any]) -> list[float]:
    """Time of each batch."""
    loader = torch.utils.data.DataLoader(
        dataset, collate_fn=dataset.collater, batch_sampler=batches, pin_memory=torch.cuda.is_available()
    )
    iterator = iter(loader)
    return [seconds(lambda: next(iterator)) for _ in batches]


def step_seconds(quick: bool) -> tuple[float, str]:
    """Median of a plain step on batches of that size, and what student on what device."""
    if quick:
        setting = Setting("tiny", 1000, 400, "cpu")
    elif torch.cuda.is_available():
        setting = Setting("base", DICTIONARY, MAX_TOKENS, "cuda", "fp16")  # the shortest step there
    else:
        setting = Setting("small", DICTIONARY, MAX_TOKENS, "cpu")
    step = statistics.median(measure_times(setting, [PLAIN], rounds=1)[PLAIN])
    return step, f"{setting.size}, {setting.precision}, {setting.device}"
