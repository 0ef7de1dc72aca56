"""Reads an experiment's folder: ``experiment.json``, ``steps.jsonl`` and the ``run.json`` of every student.

What is missing or odd goes to the notes, which the page shows.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from fairseq_bert_kd.compat import file_digest
from fairseq_bert_kd.evaluation.registry import find_metric
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
        self._prefix = f"{Path(folder).absolute()}/"

    def add(self, where: str, text: object) -> None:
        """Add a note; ``text`` may be an exception."""
        note = Note(where, str(text).replace(self._prefix, ""))
        if note not in self:
            self.append(note)


@dataclass(frozen=True)
class Run:
    """A student with a seed, trained or not.

    Attributes:
        system: system; its runs differ in their seeds.
        seed: seed of training.
        label: name of the system in tables.
        group: rows of a table: "main" or an ablation.
        value: what the group varies, as text.
        baseline: system with which it is compared; None, or itself, for a baseline.
        options: options of fairseq-train that make the system.
        store: name of its teacher store, or None.
        teacher: folder of its teacher, or None.
        updates: requested updates.
    """

    system: str
    seed: int
    label: str
    group: str
    value: str
    baseline: str | None
    options: str
    store: str | None
    teacher: str | None
    updates: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.system}.{self.seed}"

    def option(self, name: str) -> str | None:
        """Value of the last ``--name value`` among the options."""
        values = re.findall(rf"(?:^|\s){re.escape(name)}[=\s]+(\S+)", self.options)
        return values[-1] if values else None


@dataclass(frozen=True)
class Experiment:
    """Content of ``experiment.json``, and the folder's runs and steps.

    Attributes:
        task: name of the data.
        size: "laptop" and so on.
        title: name in the page.
        source_lang: ending of the source texts.
        target_lang: ending of the target texts, or of the labels.
        metric: metric by which systems are compared, a name in `evaluation.registry`.
        lowercase: compare without case.
        bleu_tokenize: sacreBLEU's tokenizer.
        normalise_like: folder or hub name of the tokenizer through whose rules texts go before they are compared; "" for
            none.
        baseline: baseline of the main comparison.
        main: system of the main comparison.
        teacher: name of the teacher.
        hardware: hardware in words.
        code: commit or version.
        command: command that made the folder.
        folder: folder of the experiment, absolute.
        runs: runs, by system and seed.
        steps: seconds of wall-clock time by finished step: "teacher", "students/plain.1" and so on.
    """

    task: str
    size: str
    title: str
    source_lang: str
    target_lang: str
    metric: str
    lowercase: bool
    bleu_tokenize: str
    normalise_like: str
    baseline: str
    main: str
    teacher: str
    hardware: str
    code: str
    command: str
    folder: Path
    runs: tuple[Run, ...]
    steps: dict[str, float]

    @property
    def kind(self) -> str:
        """What the systems put out, "text", "classes" or "numbers": what the metric compares; text if it is unknown."""
        try:
            return find_metric(self.metric).kind
        except ValueError:
            return "text"

    def text(self, subset: str, language: str) -> Path:
        """Raw text of a side."""
        return self.folder / "text" / f"{subset}.{language}"

    def log(self, step: str) -> Path:
        """Log of a step."""
        return self.folder / "logs" / f"{step}.log"

    def output(self, run: Run, subset: str) -> Path:
        """Output of a run for a subset, such as what fairseq-generate printed."""
        return self.folder / "outputs" / f"{run.name}.{subset}.out"


RUN_FIELDS = tuple(field.name for field in fields(Run))  # of run.json
EXPERIMENT_FIELDS = tuple(field.name for field in fields(Experiment))[:-3]  # of experiment.json


def read_experiment(folder: str | Path, notes: Notes) -> Experiment:
    """An experiment as far as it has come; broken runs and steps go to the notes.

    Raises:
        ValueError: the folder is not an experiment, or its ``experiment.json`` is not valid.
    """
    folder = Path(folder).absolute()
    path = folder / "experiment.json"
    if not path.is_file():
        raise ValueError(
            f"`{folder}` is not an experiment: it has no experiment.json; give a folder that examples/run.py wrote"
        )
    record = {"bleu_tokenize": "13a", "normalise_like": "", **_read_json(path)}
    if record.get("format") != FORMAT:
        raise ValueError(f"`{path}` has format {record.get('format')!r}, this code reads format {FORMAT}")
    return Experiment(
        **_checked_fields(path, record, Experiment, EXPERIMENT_FIELDS),
        folder=folder,
        runs=tuple(_read_runs(folder, notes)),
        steps=_read_steps(folder, notes),
    )


def step_rows(steps: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Seconds by kind of step, then by seed and subset ("1", "1.test"; "" for a single step)."""
    rows: dict[str, dict[str, float]] = {}
    for step, seconds in steps.items():
        match = _STEP_OF_A_RUN.fullmatch(step)
        name, rest = (match["system"], match["rest"]) if match else (step, "")
        rows.setdefault(name, {})[rest] = seconds
    return rows


def text_digests(experiment: Experiment) -> dict[str, str]:
    """sha256 of every raw text that exists, by ``SUBSET.LANGUAGE``."""
    languages = (experiment.source_lang, experiment.target_lang)
    paths = [
        experiment.text(subset, language) for subset in ("train", "valid", "test") for language in languages
    ]
    return {path.name: file_digest(path) for path in paths if path.is_file()}


def training_pairs(experiment: Experiment) -> int | None:
    """Lines of the raw training text; None without it."""
    path = experiment.text("train", experiment.source_lang)
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def _read_runs(folder: Path, notes: Notes) -> Iterator[Run]:
    runs = []
    for path in sorted((folder / "students").glob("*/run.json")):
        try:
            run = Run(**_checked_fields(path, _read_json(path), Run, RUN_FIELDS))
            if run.name != path.parent.name:
                raise ValueError(f"its run.json is of {run.name}")
            runs.append(run)
        except ValueError as error:
            notes.add(f"students/{path.parent.name}", f"left out: {error}")
    if not runs:
        notes.add("", "no run has begun yet: there is no students/*/run.json")
    yield from sorted(runs, key=lambda run: (run.system, run.seed))


def _read_steps(folder: Path, notes: Notes) -> dict[str, float]:
    path = folder / "steps.jsonl"
    steps: dict[str, float] = {}
    if not path.is_file():
        notes.add("steps.jsonl", "missing: no times of the steps")
        return steps
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            record = json.loads(line)
            name, seconds = str(record["step"]), float(record["seconds"])
            if not 0 <= seconds < math.inf:
                raise ValueError("not a time")
        except (ValueError, TypeError, KeyError):
            notes.add("steps.jsonl", f"line {number} is not readable and is left out: {line[:80]!r}")
            continue
        steps.pop(name, None)  # the last of repeated steps counts
        steps[name] = seconds
    return steps


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"`{path}` is not valid JSON ({error}); write it again") from None
    if not isinstance(record, dict):
        raise ValueError(f"`{path}` must hold a JSON object, got {type(record).__name__}; write it again")
    return record


def _checked_fields(path: Path, record: dict[str, Any], kind: type, names: tuple[str, ...]) -> dict[str, Any]:
    """Values of a record by name, each of the type that the class declares."""
    types = get_type_hints(kind)
    for name in names:
        if name not in record:
            raise ValueError(f"`{path}` lacks `{name}`; add it")
        if not isinstance(record[name], types[name]):
            kind_name = getattr(types[name], "__name__", types[name])
            raise ValueError(f"`{path}`: `{name}` must be {kind_name}, got {record[name]!r}; fix it")
    return {name: visible(record[name]) for name in names}
