"""What experiments with a table of systems share: its rows, which of them run, and the order of the steps."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from omegaconf import MISSING

from examples.workflow.engine import Step
from examples.workflow.settings import Common
from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.registry import METRICS, find_metric, table_metrics


@dataclass
class Budget:
    """Budget of a model, in fairseq-train's words."""

    updates: int = MISSING
    lr: str = MISSING
    warmup: int = MISSING
    validate: int = MISSING
    schedule: str = "polynomial_decay"
    options: str = ""


@dataclass
class Row:
    """A row of the table of systems; the kind's YAML file says what each field is."""

    group: str = "main"
    label: str = ""
    value: str = ""
    baseline: str = "${baseline}"
    after: Optional[str] = "${after}"
    same: Optional[str] = None
    seeds: Optional[list[int]] = None
    options: str = ""

    @property
    def origins(self) -> list[str]:
        """Systems from which this one begins."""
        return [name for name in (self.same or self.after,) if name]


@dataclass
class TableSettings(Common):
    """Settings of every kind of task with a table of systems."""

    metric: str = MISSING
    baseline: str = MISSING
    main: str = MISSING
    test_sets: list[str] = field(default_factory=lambda: ["test"])
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    prepare: list[str] = field(default_factory=list)
    after_students: list[str] = field(default_factory=list)
    after: Optional[str] = None
    commands: dict[str, str] = field(default_factory=dict)


def check_metric(settings: Any, of_texts: bool) -> None:
    """Check the metric that systems are compared by, and sacreBLEU's tokenizer.

    Args:
        settings: of a kind of experiment.
        of_texts: whether its systems write texts, rather than labels.

    Raises:
        ValueError: an unknown metric or tokenizer, or a metric that does not compare what the systems put out.
        ImportError: a package that the tokenizer needs is not there.
    """
    if (find_metric(settings.metric).kind == "text") != of_texts:
        fitting = [name for name, metric in METRICS.items() if (metric.kind == "text") == of_texts]
        raise ValueError(
            f"metric={settings.metric} does not compare {'texts' if of_texts else 'labels'}; give one of: {', '.join(fitting)}"
        )
    if of_texts:
        table_metrics("bleu", MetricSettings(settings.lowercase, settings.bleu_tokenize))


def check_names(settings: Any) -> None:
    """Check the systems that settings and rows name.

    Raises:
        ValueError: a name that no system has, or rows that begin from each other.
    """
    systems = settings.systems
    named = {"baseline": settings.baseline, "main": settings.main}
    for name, system in systems.items():
        named |= {f"systems.{name}.{key}": getattr(system, key) for key in ("baseline", "after", "same")}
    for key, value in named.items():
        if value and value not in systems:
            raise ValueError(f"{key}={value}: no system is called so. Give one of: {', '.join(systems)}")
    for name in systems:
        origin, seen = name, []
        while origin not in seen:
            seen.append(origin)
            if not (origins := systems[origin].origins):
                break
            origin = origins[0]
        else:
            raise ValueError(
                f"rows begin from each other ({' from '.join([*seen, origin])}); one needs `after: null` and no `same`"
            )


def chosen(settings: Any) -> list[str]:
    """Systems of the requested rows, each after the one that it is compared with and the one that it begins from.

    Raises:
        ValueError: a row is neither a system nor a group nor ``all``; see also `check_names`.
    """
    check_names(settings)
    systems = settings.systems
    groups = {system.group for system in systems.values()}
    if unknown := [row for row in settings.rows if row not in {*systems, *groups, "all"}]:
        raise ValueError(
            f"no system and no group is called {unknown[0]!r}. Give `all`, a group ({', '.join(sorted(groups))}) "
            f"or a system ({', '.join(systems)})"
        )
    found: dict[str, None] = {}

    def add(name: str) -> None:
        for origin in systems[name].origins:
            if origin not in found:
                add(origin)
        found[name] = None

    for name, system in systems.items():
        if {name, system.group, "all"} & set(settings.rows):
            add(system.baseline or name)
            add(name)
    return list(found)


def fill(command: str, where: str, **values: Any) -> str:
    """A command with a value in the place of each ``{NAME}``, and single spaces; other braces are bash's and JSON's own.

    Args:
        command: the command.
        where: setting that holds it, for the message.
        values: by name.

    Raises:
        ValueError: a name that has no value.
    """

    def value(place: re.Match[str]) -> str:
        if place[1] not in values:
            known = ", ".join(f"{{{name}}}" for name in values) or "none"
            raise ValueError(
                f"{where} holds {place[0]}, which is not filled here; names that are: {known}. Correct it, or write {{ {place[1]} }} "
                "for braces that stay"
            )
        return str(values[place[1]])

    return " ".join(re.sub(r"\{([A-Za-z_]\w*)\}", value, command).split())


def checked_sets(test_sets: list[str], scored: bool) -> list[str]:
    """All sets that are decoded, the validation set first.

    Args:
        test_sets: those of the settings.
        scored: whether a step scores the set `test`.

    Raises:
        ValueError: the set that is scored is not among them, or one is there twice.
    """
    sets, said = ["valid", *test_sets], f"test_sets=[{', '.join(test_sets)}]"
    if len(set(sets)) < len(sets):
        raise ValueError(f"{said} must hold each set once; `valid` is decoded anyway. Leave the other out")
    if scored and "test" not in sets:
        raise ValueError(f"{said} must hold `test`, which is scored. Name it among them")
    return sets


class Steps(ABC):
    """Makes the steps of one experiment: what all systems need, each system with each seed, scores and report."""

    scores_test = True  # in a step of its own

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.systems = {name: settings.systems[name] for name in chosen(settings)}
        self.sets = checked_sets(settings.test_sets, self.scores_test)
        self._check_origins()

    def _check_origins(self) -> None:
        """Raise ValueError if nothing runs, or a row with a seed with which the one that it begins from does not."""
        runs = self.runs()
        if not runs:
            raise ValueError(
                f"rows=[{', '.join(self.settings.rows)}] with seeds={self.settings.seeds} trains nothing; give a row, such as main, and "
                "a seed, such as seeds=[1]"
            )
        for name, seed in runs:
            origin = self.systems[name].same or self.systems[name].after
            if origin and (origin, seed) not in runs:
                seeds = ", ".join(str(other) for system, other in runs if system == origin)
                raise ValueError(
                    f"row `{name}` runs with seed {seed} and begins from `{origin}` of the same seed, which runs with {seeds}. Give "
                    f"seeds=[...] with {seed} in it, systems.{name}.seeds=[...] among those, or rows without `{name}`"
                )

    @abstractmethod
    def prepared(self) -> Iterator[Step]:
        """What all systems need, one by one and with all cores."""

    def teachers(self, before: str) -> Iterator[Step]:
        """What only some systems need, each beside the others; ``before`` is the last step of `prepared`."""
        return iter(())

    @abstractmethod
    def student(self, name: str, seed: int, before: tuple[str, ...]) -> Iterator[Step]:
        """Training and outputs of a system; ``before`` is the last step of `prepared`, to which it adds what else it needs."""

    def score(self) -> str:
        """Command that prints the scores; empty where the report's are enough."""
        return ""

    def command(self, key: str, **values: Any) -> str:
        """A command of the table, filled."""
        return fill(self.settings.commands[key], f"commands.{key}", **values)

    def __iter__(self) -> Iterator[Step]:
        before: tuple[str, ...] = ()
        for step in self.prepared():
            yield replace(step, after=before)
            before = (step.name,)
        yield from self.teachers(*before)
        students: list[str] = []
        for name, seed in self.runs():
            for step in self.student(name, seed, before):
                students.append(step.name)
                yield step
        last = {f"scores-{number}": command for number, command in enumerate(self.settings.after_students, 1)}
        if score := self.score():
            last["score"] = score
        if self.settings.report:
            last["report"] = self.command("report")
        done = students  # one after another: the report shows the scores, and some of these are times
        for name, command in last.items():
            yield Step(name, command, after=done, screen="cat", always=True)
            done = [*students, name]

    def runs(self) -> list[tuple[str, int]]:
        """Every system with each of its seeds, one seed after another."""
        own = {name: system.seeds or self.settings.seeds for name, system in self.systems.items()}
        seeds = dict.fromkeys(seed for listed in own.values() for seed in listed)
        return [(name, seed) for seed in seeds for name in own if seed in own[name]]

    def outputs(self, subset: str) -> dict[str, str]:
        """Outputs of each system for a set, one file per seed, separated by commas."""
        files: dict[str, list[str]] = {}
        for name, seed in self.runs():
            files.setdefault(name, []).append(f"outputs/{name}.{seed}.{subset}.out")
        return {name: ",".join(listed) for name, listed in files.items()}

    def described(
        self, name: str, seed: int, updates: int, options: str, **others: Any
    ) -> dict[str, dict[str, Any]]:
        """``run.json`` of a system with a seed, which ``fairseq-bert-kd report`` reads, by its path.

        Its options name no folder of this machine, since results are published.
        """
        system = self.systems[name]
        options = options.replace(f'"{self.settings.teacher}"', '"TEACHER_DIR"')
        for key, value in self.settings.own.items():
            if str(value).startswith("/"):
                options = options.replace(str(value), f"OWN_{key.upper()}")
        options = options.replace(f"{self.settings.examples}/", "examples/")
        record = {
            "system": name, "seed": seed, "label": system.label or name, "group": system.group, "value": system.value,
            "baseline": system.baseline, "updates": updates, "options": options, "continues": system.after,
        }  # fmt: skip
        return {f"students/{name}.{seed}/run.json": record | {"store": None, "teacher": None, **others}}
