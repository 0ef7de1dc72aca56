"""The teacher stores of an experiment: what they say about themselves, and how much mass their tokens hold."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_bert_kd.report.experiment import Experiment
from fairseq_bert_kd.report.notes import Notes
from fairseq_bert_kd.storage.probabilities import token_probs
from fairseq_bert_kd.storage.topk_stat import (
    row_stat,
    sampled_chunks,
    suggested_k,
    suggested_temperature,
    warnings,
)
from fairseq_bert_kd.storage.topk_store import DEFAULT_NAME, TopKReader

ROWS = 200_000  # looked at, about, in whole chunks spread evenly


@dataclass(frozen=True)
class StoreStat:
    """A store of the training set.

    Attributes:
        name: as students name it, or the name of its folder where that is not ``data-bin``.
        data: folder of its binarised data.
        reader: open.
        mass: mean captured mass of the best 1 to k tokens, by temperature; empty where not known.
        looked_at: rows that ``mass`` is the mean of.
        suggested_k: of `topk_stat`'s rule; None without rows.
        suggested_temperature: of `topk_stat`'s rule; None where not known.
        warnings: of `topk_stat`.
    """

    name: str
    data: Path
    reader: TopKReader
    mass: dict[float, list[float]]
    looked_at: int
    suggested_k: int | None
    suggested_temperature: float | None
    warnings: list[str]

    @property
    def gold_accuracy(self) -> float | None:
        """Share of the training targets, each masked, that the teacher predicts; None where not known."""
        return self._summary["gold_accuracy"]

    @property
    def gold_perplexity(self) -> float | None:
        """Of the training targets, each masked; None where not known."""
        nll = self._summary["gold_nll"]
        return None if nll is None or nll >= 700 else math.exp(nll)

    @property
    def scored_share(self) -> float:
        """Positions that the teacher scored, 0 to 1."""
        rows = self.reader.header.layout.rows
        return self._summary["scored_rows"] / rows if rows else 0.0

    @property
    def _summary(self) -> dict:
        assert self.reader.header.summary is not None
        return self.reader.header.summary


def store_files(experiment: Experiment) -> Iterator[tuple[str, Path]]:
    """Name and path of every store of the training set, the default one first."""
    languages = f"{experiment.source_lang}-{experiment.target_lang}.{experiment.target_lang}"
    for folder in sorted(experiment.folder.glob("data-*")):
        found = []
        for path in folder.glob(f"train.{languages}*.topk"):
            middle = path.name.removeprefix(f"train.{languages}").removesuffix(".topk").removeprefix(".")
            name = middle or DEFAULT_NAME
            if folder.name != "data-bin":
                name = folder.name.removeprefix("data-") + (f"/{middle}" if middle else "")
            found.append((name != DEFAULT_NAME, name, path))
        yield from ((name, path) for _, name, path in sorted(found))


def read_stores(experiment: Experiment, notes: Notes) -> dict[str, StoreStat]:
    """Stores by name; what cannot be read goes to the notes."""
    stores = {}
    for name, path in store_files(experiment):
        where = f"{path.parent.name}/{path.name}"
        try:
            stores[name] = _stat(name, path)
        except (ValueError, OSError) as error:
            notes.add(where, f"cannot be used: {error}")
            continue
        if not stores[name].reader.info.temperatures:
            notes.add(where, "holds no log-normalisers: the mass outside its tokens is not known")
    if not stores:
        notes.add(
            "data-bin",
            "no readable store of the training set: nothing is said of captured mass and soft labels",
        )
    wanted = {run.store for run in experiment.runs if run.store} - set(stores)
    for name in sorted(wanted) if stores else ():
        notes.add("data-bin", f"the store `{name}`, which a run names, is not there or cannot be read")
    return stores


def _stat(name: str, path: Path) -> StoreStat:
    reader = TopKReader(path)
    stat = row_stat(reader, ROWS)
    rows = bool(stat.temperatures)
    return StoreStat(
        name,
        path.parent,
        reader,
        mass_by_k(reader) if rows else {},
        stat.rows,
        suggested_k(stat) if rows else None,
        suggested_temperature(stat) if rows else None,
        warnings(stat) if rows else [],
    )


def mass_by_k(reader: TopKReader) -> dict[float, list[float]]:
    """Mean captured mass of the best 1 to k tokens by temperature, over the rows that `row_stat` looks at.

    Raises:
        ValueError: a damaged chunk.
    """
    info, layout = reader.info, reader.header.layout
    sums = {temperature: np.zeros(info.k) for temperature in info.temperatures}
    rows = 0
    for local in sampled_chunks(layout.chunks, layout.rows, ROWS):
        data = reader.checked_chunk(local)
        records = data.records[data.scored]
        rows += len(records)
        for temperature, total in sums.items():
            total += np.minimum(np.cumsum(token_probs(records, info.temperatures, temperature), axis=1), 1).sum(axis=0)
    return {temperature: (total / rows).tolist() for temperature, total in sums.items()} if rows else {}
