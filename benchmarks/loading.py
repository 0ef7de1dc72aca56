"""What the teachers' rows add to the time of loading a batch, and how that compares with a training step.

The same corpus in fairseq's mmap format is loaded by torch's `DataLoader`, as fairseq uses it, with and without rows; the
ways take turns. "Loading" is the time of a batch when nothing is done with it. With a worker the rows are read beside
training, so what can be noticed is the time that training waits: "waiting" has a pause after each batch that stands
for the step and keeps no processor busy. The step to compare with is a plain one of `benchmarks.step`.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import LanguagePairDataset
from fairseq.data.data_utils import batch_by_size
from fairseq.data.indexed_dataset import MMapIndexedDataset
from numpy.typing import NDArray

from benchmarks.synthetic import DICTIONARY, make_info, make_pairs, write_corpus, write_store_for
from benchmarks.table import Row
from benchmarks.training_batches import Setting, make_batches, make_dictionary, make_student, make_task
from benchmarks.training_losses import PLAIN, make_loss, training_step
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
_SKIPPED = 3  # first batches: the worker's start, and what it has ready by then
_PAUSE = 0.03  # seconds; longer than a worker needs for a batch


def run(quick: bool) -> list[Row]:
    """A row for each kind of rows and number of workers."""
    sentences, rounds = (2_000, 2) if quick else (16_000, 7)
    with tempfile.TemporaryDirectory() as folder:
        datasets = prepare(Path(folder), sentences)
        batches = choose_batches(datasets[BARE])
        tokens = statistics.mean(
            int(datasets[BARE].collater([datasets[BARE][i] for i in batch])["ntokens"]) for batch in batches
        )
        loading = {n: in_turns(datasets, batches, n, 0.0, rounds) for n in (0, 1)}
        waiting = in_turns(datasets, batches, 1, 0.001 if quick else _PAUSE, min(rounds, 3))
    step, what = step_seconds(quick)
    rows = [
        _row(f"plain step of about as many target tokens, {what}", f"{step * 1000:,.1f} ms"),
        _row(
            f"{BARE}, a batch of {tokens:,.0f} target tokens: loading without workers; with one; waiting with one",
            "; ".join(f"{1000 * np.median(found[BARE]):.2f} ms" for found in (*loading.values(), waiting)),
        ),
    ]
    for name in (BASE, RICH, TWICE):
        for how, found in (
            ("loading without workers", loading[0]),
            ("loading with one worker", loading[1]),
            ("waiting with one worker", waiting),
        ):
            rows.append(compare(f"{name}: {how}", found[BARE], found[name], tokens, step))
    return rows


def compare(
    what: str, bare: NDArray[np.float64], found: NDArray[np.float64], tokens: float, step: float
) -> Row:
    """What the rows add, of which the goal is a share of a step.

    The median over batches of a round's differences, each of one batch with and without rows, is hardly moved by what
    else the machine does.

    Args:
        what: was measured.
        bare: ``(rounds, batches)`` seconds without rows.
        found: with rows.
        tokens: of a batch.
        step: seconds.
    """
    more = np.median(found - bare, axis=1).tolist()
    middle = statistics.median(more)
    share = middle / step
    return Row(
        "loading",
        f"{what}, what it adds to a batch; a target token; a step",
        f"{middle * 1e3:.2f} ms ({min(more) * 1e3:.2f} to {max(more) * 1e3:.2f}); {middle / tokens * 1e6:.3f} µs; {share:.5f} "
        f"(within the goal for steps from {max(middle, 0) / GOAL * 1e3:.0f} ms)",
        f"at most {GOAL:g} of a step",
        share <= GOAL,
    )


def prepare(folder: Path, sentences: int) -> dict[str, Any]:
    """A corpus, two stores, and the datasets by name."""
    pairs = make_pairs(sentences, DICTIONARY, "talks")
    write_corpus((folder / "source", folder / "target"), pairs, DICTIONARY)
    dictionary = make_dictionary(DICTIONARY)
    source, target = (MMapIndexedDataset(str(folder / name)) for name in ("source", "target"))
    plain = LanguagePairDataset(
        source, source.sizes, dictionary, target, target.sizes, dictionary, shuffle=False
    )
    rich = {"gold": True, "samples": SAMPLES}
    for name, fields in (("base", {}), ("rich", rich)):
        info = make_info(K, temperatures=TEMPERATURES, **fields)
        write_store_for(folder / name, info, pairs["target"].sizes)

    def rows(name: str) -> StoreRows:
        return StoreRows([TopKReader(folder / name)], TeacherRequirements(K, samples=name == "rich"))

    return {
        BARE: plain,
        BASE: DistilledPairDataset(plain, [rows("base")]),
        RICH: DistilledPairDataset(plain, [rows("rich")]),
        TWICE: DistilledPairDataset(plain, [rows("base"), rows("base")]),
    }


def choose_batches(dataset: Any) -> list[Any]:
    """Batches as fairseq makes them of sorted sentences, in a shuffled order."""
    found = batch_by_size(
        dataset.ordered_indices(), dataset.num_tokens, max_tokens=MAX_TOKENS, required_batch_size_multiple=8
    )
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))]


def in_turns(
    datasets: dict[str, Any], batches: list[Any], workers: int, pause: float, rounds: int
) -> dict[str, NDArray[np.float64]]:
    """``(rounds, batches)`` seconds by dataset; in every round another dataset comes first."""
    names = list(datasets)
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(batch_seconds(datasets[name], batches, workers, pause))
    return {name: np.array(found) for name, found in seconds.items()}


def batch_seconds(dataset: Any, batches: list[Any], workers: int, pause: float) -> list[float]:
    """Time until each next batch is there; the start of workers and the batches they have ready are not counted."""
    loader = torch.utils.data.DataLoader(
        dataset, collate_fn=dataset.collater, batch_sampler=batches, num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    iterator, seconds = iter(loader), []
    for chosen in batches:
        started = time.perf_counter()
        batch = next(iterator)
        seconds.append(time.perf_counter() - started)
        assert batch["target"].size(0) == len(chosen)
        if pause:
            time.sleep(pause)
    return seconds[_SKIPPED:]


def step_seconds(quick: bool) -> tuple[float, str]:
    """Median of a plain step on batches of that size, and what student on what device."""
    on_gpu = torch.cuda.is_available()
    setting = Setting("small", DICTIONARY, MAX_TOKENS, "cpu")
    if quick:
        setting = Setting("tiny", 1000, 400, "cpu")
    elif on_gpu:
        setting = Setting("base", DICTIONARY, MAX_TOKENS, "cuda", "fp16")  # the shortest step there
    task = make_task(setting.dictionary)
    student, batches = make_student(setting, task), make_batches(setting, task.target_dictionary)
    loss = make_loss(PLAIN, task)

    def seconds(batch: dict[str, Any]) -> float:
        started = time.perf_counter()
        training_step(setting, loss, student, batch)
        if setting.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    seconds(batches[0])
    return statistics.median(
        seconds(batch) for batch in batches
    ), f"{setting.size}, {setting.precision}, {setting.device}"


def _row(what: str, measured: str) -> Row:
    return Row("loading", what, measured, "-", None)
