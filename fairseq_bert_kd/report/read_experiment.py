"""Reads an experiment's folder: ``experiment.json``, ``steps.jsonl`` and the ``run.json`` of every student.

What is missing or odd goes to the notes, which the page shows.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_bert_kd.evaluation.registry import find_metric
from fairseq_bert_kd.evaluation.task_kinds import TASK_KINDS, TaskKind
from fairseq_bert_kd.report.formatting import visible

FORMAT = 1
MAIN_GROUP = "main"  # of run.json; every other group is an ablation
# SYSTEM.SEED and SYSTEM.SEED.SUBSET; names of systems may hold dots
_STEP_OF_A_RUN = re.compile(r"(?P<system>(?:students|outputs)/.+)\.(?P<rest>\d+(?:\.[^.]+)?)")


class Note(NamedTuple):
    """A remark for the reader.

    Attributes:
        where: run or file; "" for the whole experiment.
        text: what is missing or odd, and what the report does about it.
    """

    where: str
    text: str


class Notes(list[Note]):
    """Notes in the order of reading, each once. Paths in them are relative to the experiment's folder.

    Args:
        folder: folder of the experiment.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self._prefixes = [f"{path}/" for path in dict.fromkeys((Path(folder).absolute(), Path(folder)))]

    def add(self, where: str, text: object) -> None:
        """Add a note; ``text`` may be an exception."""
        shown = str(text)
        for prefix in self._prefixes:
            shown = re.sub(rf"(?<![\w./-]){re.escape(prefix)}", "", shown)  # where a path begins
        note = Note(where, shown)
        if note not in self:
            self.append(note)


@dataclass(frozen=True)
class Step:
    """A finished step.

    Attributes:
        name: "teacher", "students/plain.1" and so on.
        seconds: wall-clock time.
    """

    name: str
    seconds: float


class StepRow(NamedTuple):
    """Steps of one kind.

    Attributes:
        name: name of the step, without seed and subset for students and their outputs.
        times: seed and subset ("1", "1.test"; "" for a single step), and seconds.
    """

    name: str
    times: list[tuple[str, float]]

    @property
    def total(self) -> float:
        return sum(seconds for _, seconds in self.times)


@dataclass(frozen=True)
class Run:
    """A student with a seed, trained or not.

    Attributes:
        name: name of its folder, ``SYSTEM.SEED``.
        system: system; its runs differ in their seeds.
        seed: seed of training.
        label: name of the system in tables.
        group: rows of a table: "main" or an ablation.
        value: what the group varies, as text.
        baseline: system with which it is compared; None, or itself, for a baseline.
        updates: requested updates.
        options: options of fairseq-train that make the system.
        store: name of its teacher store, or None.
        teacher: folder of its teacher, or None.
    """

    name: str
    system: str
    seed: int
    label: str
    group: str
    value: str
    baseline: str | None
    updates: int
    options: str
    store: str | None
    teacher: str | None

    def option(self, name: str) -> str | None:
        """Value of the last ``--name value`` among the options."""
        values = re.findall(rf"(?:^|\s){re.escape(name)}[=\s]+(\S+)", self.options)
        return values[-1] if values else None


@dataclass(frozen=True)
class Experiment:
    """Content of ``experiment.json``, and the folder's runs and steps.

    Attributes:
        folder: folder of the experiment.
        task: name of the data.
        size: "laptop" and so on.
        title: name in the page.
        source_lang: ending of the source texts.
        target_lang: ending of the target texts, or of the labels.
        metric: metric by which systems are compared, a name in `evaluation.registry`.
        lowercase: compare without case.
        bleu_tokenize: sacreBLEU's tokenizer.
        baseline: baseline of the main comparison.
        main: system of the main comparison.
        teacher: name of the teacher.
        hardware: hardware in words.
        code: commit or version.
        command: command that made the folder.
        runs: runs, by system and seed.
        steps: finished steps, the last of each name.
    """

    folder: Path
    task: str
    size: str
    title: str
    source_lang: str
    target_lang: str
    metric: str
    lowercase: bool
    bleu_tokenize: str
    baseline: str
    main: str
    teacher: str
    hardware: str
    code: str
    command: str
    runs: tuple[Run, ...]
    steps: tuple[Step, ...]

    @property
    def kind(self) -> TaskKind:
        """What the systems put out: what the metric compares; text for an unknown metric."""
        try:
            return TASK_KINDS[find_metric(self.metric).kind]
        except ValueError:
            return TASK_KINDS["text"]

    def text(self, subset: str, language: str) -> Path:
        """Raw text of a side."""
        return self.folder / "text" / f"{subset}.{language}"

    def log(self, step: str) -> Path:
        """Log of a step."""
        return self.folder / "logs" / f"{step}.log"

    def output(self, run: Run, subset: str) -> Path:
        """Output of a run for a subset, such as what fairseq-generate printed."""
        return self.folder / "outputs" / f"{run.name}.{subset}.out"


_TEXT, _OPTIONAL = (str,), (str, type(None))
_EXPERIMENT_FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("task", "size", "title", "source_lang", "target_lang", "metric", "baseline", "main"), _TEXT
    ),
    **dict.fromkeys(("teacher", "hardware", "code", "command"), _TEXT),
    "lowercase": (bool,),
}
RUN_FIELDS: dict[str, tuple[type, ...]] = {
    "system": _TEXT, "seed": (int,), "label": _TEXT, "group": _TEXT, "value": _TEXT, "baseline": _OPTIONAL,
    "updates": (int,), "options": _TEXT, "store": _OPTIONAL, "teacher": _OPTIONAL,
}  # fmt: skip


def read_experiment(folder: str | Path, notes: Notes) -> Experiment:
    """An experiment as far as it has come; broken runs and steps go to the notes.

    Raises:
        ValueError: the folder is not an experiment, or its ``experiment.json`` is not valid.
    """
    folder = Path(folder)
    path = folder / "experiment.json"
    if not path.is_file():
        raise ValueError(
            f"`{folder}` is not an experiment: it has no experiment.json; give a folder that examples/run.py wrote"
        )
    record = _read_json(path)
    if record.get("format") != FORMAT:
        raise ValueError(f"`{path}` has format {record.get('format')!r}, this code reads format {FORMAT}")
    _check_fields(path, record, _EXPERIMENT_FIELDS)
    values = {name: visible(record[name]) for name in _EXPERIMENT_FIELDS}
    return Experiment(
        folder=folder,
        **values,
        bleu_tokenize=str(record.get("bleu_tokenize", "13a")),
        runs=tuple(_read_runs(folder, notes)),
        steps=tuple(_read_steps(folder, notes)),
    )


def step_rows(steps: Iterable[Step]) -> list[StepRow]:
    """Steps by kind, in the order in which the first of each kind ended."""
    rows: dict[str, StepRow] = {}
    for step in steps:
        match = _STEP_OF_A_RUN.fullmatch(step.name)
        name, rest = (match["system"], match["rest"]) if match else (step.name, "")
        rows.setdefault(name, StepRow(name, [])).times.append((rest, step.seconds))
    return list(rows.values())


def _read_runs(folder: Path, notes: Notes) -> Iterator[Run]:
    runs: dict[tuple[str, int], Run] = {}
    for path in sorted((folder / "students").glob("*/run.json")):
        where = f"students/{path.parent.name}"
        try:
            record = _read_json(path)
            _check_fields(path, record, RUN_FIELDS)
        except ValueError as error:
            notes.add(where, f"left out: {error}")
            continue
        run = Run(name=path.parent.name, **{name: visible(record[name]) for name in RUN_FIELDS})
        if run.name != f"{run.system}.{run.seed}":
            notes.add(where, f"its run.json says {run.system}.{run.seed}, which is used")
        if (run.system, run.seed) in runs:
            notes.add(where, f"left out: {runs[run.system, run.seed].name} is the same system and seed")
            continue
        runs[run.system, run.seed] = run
    if not runs:
        notes.add("", "no run has begun yet: there is no students/*/run.json")
    yield from (runs[key] for key in sorted(runs))


def _read_steps(folder: Path, notes: Notes) -> Iterator[Step]:
    path = folder / "steps.jsonl"
    steps: dict[str, Step] = {}
    if not path.is_file():
        notes.add("steps.jsonl", "missing: no times of the steps")
        return
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            record = json.loads(line)
            step = Step(str(record["step"]), float(record["seconds"]))
            if not 0 <= step.seconds < math.inf:
                raise ValueError("not a time")
        except (ValueError, TypeError, KeyError):
            notes.add("steps.jsonl", f"line {number} is not readable and is left out: {line[:80]!r}")
            continue
        steps.pop(step.name, None)  # the last of repeated steps counts
        steps[step.name] = step
    yield from steps.values()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"`{path}` is not valid JSON ({error}); write it again") from None
    if not isinstance(record, dict):
        raise ValueError(f"`{path}` must hold a JSON object, got {type(record).__name__}; write it again")
    return record


def _check_fields(path: Path, record: dict[str, Any], fields: dict[str, tuple[type, ...]]) -> None:
    for name, kinds in fields.items():
        if name not in record:
            raise ValueError(f"`{path}` lacks `{name}`; add it")
        value = record[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            kind = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise ValueError(f"`{path}`: `{name}` must be {kind}, got {value!r}; fix it")
