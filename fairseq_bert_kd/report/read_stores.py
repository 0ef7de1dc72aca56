"""The teacher stores of an experiment: their headers, and the captured mass of their tokens."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fairseq_bert_kd.report.read_experiment import Experiment, Notes
from fairseq_bert_kd.storage.probabilities import default_temperature
from fairseq_bert_kd.storage.topk import PREFIX_PLAN, STRIDED_PLAN
from fairseq_bert_kd.storage.topk_stat import RowStat, row_stat
from fairseq_bert_kd.storage.topk_store import DEFAULT_NAME, TopKReader

ROWS = 200_000  # about as many rows are read, in whole chunks spread evenly


@dataclass(frozen=True)
class StoreStat:
    """A store of the training set.

    Attributes:
        name: name by which students choose it, or the name of its folder if that is not ``data-bin``.
        data: folder of its binarised data.
        reader: open reader.
        stat: statistics of a sample of its rows.
    """

    name: str
    data: Path
    reader: TopKReader
    stat: RowStat

    @property
    def mass(self) -> dict[float, dict[int, float]]:
        """Mean captured mass of the best 1, 2, 4 ... k tokens, by temperature and tokens; empty if not known."""
        return {
            at.temperature: dict(zip(at.tokens, at.mean_mass, strict=True)) for at in self.stat.temperatures
        }

    @property
    def temperature(self) -> float:
        """Temperature at which probabilities are shown: 1, or the lowest stored one."""
        return default_temperature(self.reader.info.temperatures)

    @property
    def gold_accuracy(self) -> float | None:
        """Share of the training targets, each masked once, that the teacher predicts; None if not known."""
        return self.reader.header.finished["gold_accuracy"]

    @property
    def gold_perplexity(self) -> float | None:
        """Perplexity of the training targets, each masked once; None if not known."""
        nll = self.reader.header.finished["gold_nll"]
        return None if nll is None or nll >= 700 else math.exp(nll)

    @property
    def scored_share(self) -> float:
        """Share of positions that the teacher scored, 0 to 1."""
        header = self.reader.header
        return header.finished["scored_rows"] / max(header.layout.rows, 1)


def store_files(experiment: Experiment) -> Iterator[tuple[str, Path]]:
    """Name and path of every store of the training set, the default one first."""
    languages = f"{experiment.source_lang}-{experiment.target_lang}.{experiment.target_lang}"
    for folder in sorted(experiment.folder.glob("data-*")):
        stores = []
        for path in folder.glob(f"train.{languages}*.topk"):
            middle = path.name.removeprefix(f"train.{languages}").removesuffix(".topk").removeprefix(".")
            name = middle or DEFAULT_NAME
            if folder.name != "data-bin":
                name = folder.name.removeprefix("data-") + (f"/{middle}" if middle else "")
            stores.append((name != DEFAULT_NAME, name, path))
        yield from ((name, path) for _, name, path in sorted(stores))


def read_stores(experiment: Experiment, notes: Notes) -> dict[str, StoreStat]:
    """Stores by name; those that are not readable go to the notes."""
    stores = {}
    for name, path in store_files(experiment):
        try:
            reader = TopKReader(path)
            stores[name] = StoreStat(name, path.parent, reader, row_stat(reader, ROWS))
        except (ValueError, OSError) as error:
            notes.add(f"{path.parent.name}/{path.name}", f"left out: {error}")
    missing = {run.store for run in experiment.runs if run.store} - set(stores)
    for name in sorted(missing):
        notes.add("data-bin", f"a run names the store `{name}`, which is missing or not readable")
    return stores


def store_record(stat: StoreStat) -> dict[str, Any]:
    """Facts of a store for the results file: digests, the teacher or that of each fold, how it was scored."""
    info, header = stat.reader.info, stat.reader.header
    return {
        "digest": header.digest,
        "dictionary_digest": info.dictionary_digest,
        "tokenizer_digest": info.tokenizer_digest,
        "teacher": info.teacher,
        "teacher_digest": info.teacher_digest,
        "folds": [asdict(teacher) for teacher in info.folds],
        "k": info.k,
        "passes": info.passes,
        "mask_plan": info.mask_plan,
        "temperatures": list(info.temperatures),
        "captured_mass": {
            f"{t:g}": {str(k): mass for k, mass in masses.items()} for t, masses in stat.mass.items()
        },
        "gold_accuracy": stat.gold_accuracy,
        "gold_perplexity": stat.gold_perplexity,
        "scored_share": stat.scored_share,
        "versions": dict(sorted(info.versions.items())),
    }


def store_of_main(experiment: Experiment, stores: dict[str, StoreStat]) -> StoreStat | None:
    """The store that the main system's runs name, else the first one."""
    named = [run.store for run in experiment.runs if run.system == experiment.main and run.store in stores]
    return stores[named[0]] if named and named[0] else next(iter(stores.values()), None)


def left_to_right_counterpart(stat: StoreStat, stores: dict[str, StoreStat]) -> StoreStat | None:
    """A left-to-right teacher's store of the same sentences and dictionary, the first by name; None without one."""
    info = stat.reader.info
    for other in stores.values():
        theirs = other.reader.info
        same = other.data == stat.data and len(other.reader) == len(stat.reader)
        same = same and theirs.dictionary_digest == info.dictionary_digest
        if same and (info.mask_plan, theirs.mask_plan) == (STRIDED_PLAN, PREFIX_PLAN):
            return other
    return None
