"""Steps of an experiment with classes of sentences: text, data, each system's trainings one after another, outputs, report."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from omegaconf import MISSING

from examples.workflow.engine import Step
from examples.workflow.settings import describe
from examples.workflow.systems import Budget, Row, Steps, TableSettings, check_metric, fill
from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.text_lines import packed_or_not
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer


@dataclass
class Training(Budget):
    """A training that systems are made of; classification.yaml says what each field is."""

    task: str = "sentence_prediction_with_teacher"
    data: str = "data"
    model: str = "${student}"
    batch: int = MISSING
    criterion: str = MISSING
    learns_from: str = ""


@dataclass
class System(Row):
    """A row of the table of systems; classification.yaml says what each field is."""

    trainings: list[str] = field(default_factory=list)
    teacher: Optional[str] = None
    outputs: str = ""
    data: str = "data"

    @property
    def origins(self) -> list[str]:
        """Systems from which this one begins."""
        return [*super().origins, *([self.teacher] if self.teacher else [])]


@dataclass
class Settings(TableSettings):
    """Settings of this kind; classification.yaml has the values and says what each is."""

    source: str = "sentence"
    target: str = "label"
    student: str = MISSING
    files: list[str] = field(default_factory=list)
    data_folders: dict[str, str] = field(default_factory=dict)
    vectors: dict[str, str] = field(default_factory=dict)
    predict: str = ""
    trainings: dict[str, Training] = field(default_factory=dict)
    systems: dict[str, System] = field(default_factory=dict)


def check(settings: Settings) -> None:
    """Find what would end the experiment after hours, and make the folder what it is.

    Raises:
        ValueError: text, the teacher or a package is not there, or the folder holds another experiment.
    """
    check_metric(settings, of_texts=False)
    if not Path(settings.out, "done", "text").exists():
        for name in settings.files:
            if not packed_or_not(Path(settings.data, name)).exists():
                raise ValueError(f"data={settings.data} must hold {name} or {name}.gz. Correct data")
        HfTokenizer(settings.teacher)
    if settings.report:
        for module in ("jinja2", "matplotlib"):
            import_extra(module)
    languages = {"source_lang": settings.source, "target_lang": settings.target}
    same = {key: getattr(settings, key) for key in ("metric", "baseline", "main")}
    describe(settings, languages | same | {"lowercase": False})


def steps(settings: Settings) -> list[Step]:
    """All steps, in an order in which they could run one by one."""
    return list(_Steps(settings))


class _Steps(Steps):
    """Makes the steps of one experiment."""

    scores_test = False  # each set is scored where it is predicted

    def prepared(self) -> Iterator[Step]:
        """Text and data folders, with vectors where they are learned."""
        yield Step("text", " && ".join(self.settings.prepare), screen="cat")
        for pattern, seed in self.folders():
            folder, arguments = (
                seeded(text, seed) for text in (pattern, self.settings.data_folders[pattern])
            )
            yield Step(folder, self.command("data", folder=folder, arguments=arguments), screen="cat")
            if arguments := seeded(self.settings.vectors.get(pattern, ""), seed):
                command = self.command("vectors", folder=folder, arguments=arguments)
                yield Step(f"{folder}-vectors", command, resumes=True, screen="cat")

    def folders(self) -> list[tuple[str, int]]:
        """Data folders that are needed, and the seed of those that have one of their own for each."""
        found: dict[tuple[str, int], None] = {}
        for name, seed in self.runs():
            system = self.systems[name]
            patterns = [self.settings.trainings[training].data for training in system.trainings]
            for pattern in (system.data, *patterns):
                found[pattern, seed if seeded(pattern, seed) != pattern else 0] = None
        return list(found)

    def student(self, name: str, seed: int, before: tuple[str, ...]) -> Iterator[Step]:
        """A system's trainings, each from the last checkpoint of the one before, and its outputs."""
        system, run = self.systems[name], f"{name}.{seed}"
        data = seeded(system.data, seed)
        if not system.trainings:
            files = self.described(name, seed, 0, system.outputs)
            for subset in self.sets:
                output = f"outputs/{run}.{subset}.out"
                command = fill(
                    system.outputs,
                    f"systems.{name}.outputs",
                    subset=subset,
                    output=output,
                    data=data,
                    seed=seed,
                )
                yield Step(f"outputs/{run}.{subset}", f"mkdir -p outputs && {command}", before, files=files)
            return
        if system.teacher:
            before = (*before, f"students/{self.run_of(system.teacher)}")
        *earlier, last = system.trainings
        origin = ""
        for training in earlier:
            folder = f"stages/{name}.{training}.{seed}"
            yield self.training(training, name, seed, folder, origin, before)
            origin, before = f"{folder}/checkpoint_last.pt", (folder,)
        updates = sum(self.settings.trainings[training].updates for training in system.trainings)
        described = self.described(
            name, seed, self.settings.trainings[last].updates, self.options(name), all_updates=updates
        )
        yield self.training(last, name, seed, f"students/{run}", origin, before, files=described)
        for subset in self.sets:
            output = f"outputs/{run}.{subset}.out"
            command = self.command(
                "predict", data=data, folder=f"students/{run}", subset=subset, output=output
            )
            yield Step(f"outputs/{run}.{subset}", command, (f"students/{run}",), parallel=True)

    def training(
        self,
        training: str,
        name: str,
        seed: int,
        folder: str,
        origin: str,
        before: tuple[str, ...],
        **others: Any,
    ) -> Step:
        """One training of a system, from a checkpoint or from what its model says."""
        budget, system = self.settings.trainings[training], self.systems[name]
        teacher = budget.learns_from
        if teacher == "system":
            assert system.teacher, name
            teacher = f"students/{self.run_of(system.teacher)}/checkpoint_best.pt"
        command = self.command(
            "train",
            task=budget.task,
            data=seeded(budget.data, seed),
            model=seeded(budget.model, seed) + (f" --encoder-init {origin}" if origin else ""),
            criterion=budget.criterion,
            teacher=f'--kd-teacher "{teacher}"' if teacher else "",
            folder=folder,
            seed=seed,
            decay=f"--total-num-update {budget.updates}" if budget.schedule == "polynomial_decay" else "",
            options=f"{budget.options} {system.options if teacher else ''}",
            **{
                key: getattr(budget, key)
                for key in ("updates", "lr", "warmup", "validate", "schedule", "batch")
            },
        )
        return Step(folder, command, before, resumes=True, checkpoints=folder, parallel=True, **others)

    def run_of(self, name: str) -> str:
        """The run of a system that others learn from: that of its first seed."""
        return f"{name}.{(self.systems[name].seeds or self.settings.seeds)[0]}"

    def options(self, name: str) -> str:
        """What makes a row, in words that fairseq-train knows."""
        system = self.systems[name]
        return " ".join([" + ".join(system.trainings), system.options]).strip()


def seeded(text: str, seed: int) -> str:
    """The text with the seed in the place of ``{seed}``."""
    return text.replace("{seed}", str(seed))
