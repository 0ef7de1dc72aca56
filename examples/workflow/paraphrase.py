"""Steps of a paraphrase experiment: text, evaluators, a generator by likelihood, what goes on from it, outputs, scores, report."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from omegaconf import MISSING

from examples.workflow.engine import Step
from examples.workflow.settings import describe
from examples.workflow.systems import Budget, Row, Steps, TableSettings, check_metric
from fairseq_bert_kd.cli.rerank import MBR
from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer


@dataclass
class Training(Budget):
    """A training; paraphrase.yaml says what each field is."""

    batch: str = MISSING


@dataclass
class System(Row):
    """A row of the table of systems; paraphrase.yaml says what each field is."""

    training: str = "rewarded"
    rerank: Optional[str] = None
    rounds: int = 0


@dataclass
class Settings(TableSettings):
    """Settings of this kind; paraphrase.yaml has the values and says what each is."""

    source: str = "source"
    target: str = "target"
    lowercase: bool = True
    bleu_tokenize: str = "13a"
    student: str = MISSING
    evaluator_model: str = MISSING
    held_out_model: str = MISSING
    files: list[str] = field(default_factory=list)
    trainings: dict[str, Training] = field(default_factory=dict)
    systems: dict[str, System] = field(default_factory=dict)


def check(settings: Settings) -> None:
    """Find what would end the experiment after hours, and make the folder what it is.

    Raises:
        ValueError: text, the encoder or a package is not there, both evaluators have one architecture, or the folder holds
            another experiment.
    """
    if architecture(settings.evaluator_model) == architecture(settings.held_out_model):
        raise ValueError(
            f"evaluator_model and held_out_model are both of --arch {architecture(settings.held_out_model)}: the held-out "
            "evaluator would share the other's mistakes. Give one of them another --arch"
        )
    check_metric(settings, of_texts=True)
    if not Path(settings.out, "done", "text").exists():
        for path in (Path(settings.data, name) for name in settings.files):
            if not path.exists():
                raise ValueError(
                    f"data={settings.data} must hold {path.name}, which it does not. Correct data"
                )
        HfTokenizer(settings.teacher)
    for module in ("jinja2", "matplotlib", "rouge_score"):
        import_extra(module)
    keys = ("metric", "lowercase", "bleu_tokenize", "baseline", "main")
    languages = {"source_lang": settings.source, "target_lang": settings.target}
    describe(settings, languages | {key: getattr(settings, key) for key in keys})


def architecture(options: str) -> str:
    """The architecture in options of fairseq-train; empty if none is named."""
    words = shlex.split(options)
    return words[words.index("--arch") + 1] if "--arch" in words[:-1] else ""


def steps(settings: Settings) -> list[Step]:
    """All steps, in an order in which they could run one by one."""
    return list(_Steps(settings))


class _Steps(Steps):
    """Makes the steps of one experiment."""

    def prepared(self) -> Iterator[Step]:
        """Text, data and both evaluators."""
        yield Step("text", " && ".join(self.settings.prepare), screen="cat")
        for name in ("tokenize", "preprocess"):
            yield Step(name, self.command(name))
        for name in ("evaluator", "held-out"):
            values = self.training(name)
            yield Step(f"{name}-data", self.command(f"{name}-data"), screen="cat")
            yield Step(name, self.command(name, folder=name, **values), resumes=True, checkpoints=name)
        yield Step("judges", self.command("judge"), screen="cat")

    def training(self, name: str, number: int = 1, rounds: int = 1) -> dict[str, Any]:
        """Values of a training's command; each of several rounds has its share of the budget, the last one the rest."""
        budget = self.settings.trainings[name]
        values = {
            key: getattr(budget, key) for key in ("updates", "lr", "warmup", "validate", "schedule", "batch")
        }
        values |= {key: max(values[key] // rounds, 1) for key in ("updates", "warmup", "validate")}
        if number == rounds:
            values["updates"] = max(budget.updates - (rounds - 1) * values["updates"], 1)
        decay = "" if budget.schedule == "inverse_sqrt" else f"--total-num-update {values['updates']}"
        return values | {"decay": decay, "options": budget.options}

    def student(self, name: str, seed: int, before: tuple[str, ...]) -> Iterator[Step]:
        """Training and outputs of a system; a re-ranked one has outputs alone."""
        system, run = self.systems[name], f"{name}.{seed}"
        if system.after:
            before = (*before, f"students/{system.after}.{seed}")
        if system.rerank:
            yield from self.reranked(name, seed, before)
            return
        origin = f"students/{system.after}.{seed}" if system.after else ""
        if system.rounds:
            for step in self.learned_evaluators(name, seed, before):
                yield step
                before = (step.name,)
            if system.rounds > 1:
                origin = f"students/{run}/round{system.rounds - 1}"
        start = f"--finetune-from-model {origin}/checkpoint_best.pt" if origin else ""
        yield self.generator(name, seed, start, before)
        for subset in self.sets:
            values = {"folder": f"students/{run}", "subset": subset, "output": f"outputs/{run}.{subset}.out"}
            yield Step(
                f"outputs/{run}.{subset}",
                self.command("decode", **values),
                (f"students/{run}",),
                parallel=True,
            )

    def generator(self, name: str, seed: int, start: str, before: tuple[str, ...]) -> Step:
        """Training of a system; ``start`` is the option that names its first weights."""
        system, run = self.systems[name], f"{name}.{seed}"
        rounds = max(system.rounds, 1)
        values = self.training(system.training, rounds, rounds)
        values["options"] = f"{values['options']} {system.options}"
        if system.rounds:
            values["options"] += f" --rl-evaluator {self.evaluator(run, system.rounds)}"
        command = self.command("generator", folder=f"students/{run}", seed=seed, start=start, **values)
        described = self.described(name, seed, values["updates"], values["options"].strip())
        folder = f"students/{run}"
        return Step(folder, command, before, resumes=True, checkpoints=folder, parallel=True, files=described)

    def evaluator(self, run: str, number: int) -> str:
        """Checkpoint of the evaluator of a round; round 0 is the supervised one."""
        return (
            f"students/{run}/evaluator{number}/checkpoint_last.pt"
            if number
            else "evaluator/checkpoint_best.pt"
        )

    def learned_evaluators(self, name: str, seed: int, before: tuple[str, ...]) -> Iterator[Step]:
        """Rounds of inverse reinforcement up to the last evaluator: sample, rank, train the generator, sample again ..."""
        system, run = self.systems[name], f"{name}.{seed}"
        generator = f"students/{system.after}.{seed}"
        for number in range(1, system.rounds + 1):
            samples, folder = f"outputs/{run}.round{number}.out", f"students/{run}/evaluator{number}"
            command = self.command("sample", folder=generator, output=samples, seed=seed + number)
            yield Step(f"{run}/samples{number}", command, before)
            values = self.training("ranking")
            values |= {"folder": folder, "samples": samples, "seed": seed}
            values |= {"start": f"--finetune-from-model {self.evaluator(run, number - 1)}"}
            command = self.command("ranking", **values)
            sampled = (f"{run}/samples{number}",)
            yield Step(f"{run}/evaluator{number}", command, sampled, resumes=True, checkpoints=folder)
            if number == system.rounds:
                return
            values = self.training(system.training, number, system.rounds)
            values["options"] = (
                f"{values['options']} {system.options} --rl-evaluator {self.evaluator(run, number)}"
            )
            start = f"--finetune-from-model {generator}/checkpoint_best.pt"
            generator = f"students/{run}/round{number}"
            command = self.command("generator", folder=generator, seed=seed, start=start, **values)
            learned = (f"{run}/evaluator{number}",)
            yield Step(f"{run}/round{number}", command, learned, resumes=True, checkpoints=generator)
            before = (f"{run}/round{number}",)

    def reranked(self, name: str, seed: int, before: tuple[str, ...]) -> Iterator[Step]:
        """Outputs of a system that chooses among those of another; its step is called as a training's."""
        system, run = self.systems[name], f"{name}.{seed}"
        described = self.described(name, seed, 0, f"rerank {system.rerank}")
        links = f"ln -sfn ../{system.after}.{seed}/checkpoint_best.pt students/{run}/checkpoint_best.pt"
        yield Step(f"students/{run}", links, before, files=described)
        for subset in self.sets:
            lists = f"outputs/{run}.{subset}.nbest"
            values = {"folder": f"students/{run}", "subset": subset, "output": lists}
            decode = self.command("nbest", **values)
            command = "agreement" if system.rerank == MBR else "rerank"
            chosen = self.command(
                command, lists=lists, by=system.rerank, subset=subset, output=f"outputs/{run}.{subset}.out"
            )
            yield Step(
                f"outputs/{run}.{subset}", f"{decode} && {chosen}", (f"students/{run}",), parallel=True
            )

    def score(self) -> str:
        """Command that prints both tables of scores and writes the second for the report."""
        systems = " ".join(f"{name}={files}" for name, files in self.outputs("test").items())
        seeds: dict[str, list[str]] = {}
        for name, seed in self.runs():
            seeds.setdefault(name, []).append(str(seed))
        listed = " ".join(f"{name}={','.join(own)}" for name, own in seeds.items())
        return self.command("score", systems=systems, seeds=listed)
