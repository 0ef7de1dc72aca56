"""Steps of a translation or summarisation experiment: text, teachers, their stores, students, outputs, report."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from omegaconf import MISSING

from examples.workflow.engine import Step
from examples.workflow.settings import describe
from examples.workflow.systems import Budget, Row, Steps, TableSettings, check_metric
from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.text_lines import packed_or_not
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer


@dataclass
class Training(Budget):
    """Budget of a model, in batches of tokens."""

    tokens: int = MISSING


@dataclass
class Student:
    """Architecture of a student; ``layers: 0`` leaves its sizes alone."""

    arch: str = MISSING
    layers: int = 3
    dim: int = 128
    ffn_dim: int = 512
    heads: int = 4

    def __str__(self) -> str:
        sizes = {"layers": self.layers, "embed-dim": self.dim, "ffn-embed-dim": self.ffn_dim}
        sizes["attention-heads"] = self.heads
        sides = ("encoder", "decoder") if self.layers else ()
        options = (f"--{side}-{key} {value}" for side in sides for key, value in sizes.items())
        return " ".join([f"--arch {self.arch}", *options])


@dataclass
class Teacher:
    """A teacher: its data folder and further options of its training."""

    data: str = "data-bin"
    options: str = ""


@dataclass
class Store:
    """A store: its teacher and options of the dump; with ``folds`` one teacher like it for each fold."""

    teacher: str = "teacher"
    options: str = ""
    folds: int = 0


@dataclass
class System(Row):
    """A row of the table of students; translation.yaml says what each field is."""

    data: str = "data-bin"
    store: Optional[str] = "default"
    updates: Optional[int] = None
    share: float = 1.0
    student: dict[str, Any] = field(default_factory=dict)
    kd: dict[str, Any] = field(default_factory=dict)


@dataclass
class Settings(TableSettings):
    """Settings of this kind; translation.yaml has the values and says what each is."""

    source: str = MISSING
    target: str = MISSING
    metric: str = "bleu"
    lowercase: bool = True
    bleu_tokenize: str = "13a"
    normalise_like: str = ""
    baseline: str = "plain"
    main: str = "distilled"
    pairs: str = "all"
    max_words: str = "all"
    valid_pairs: str = "all"
    test_pairs: str = "all"
    part: str = ""
    make_teacher: list[str] = field(default_factory=list)
    after_tokenize: list[str] = field(default_factory=list)
    after_preprocess: list[str] = field(default_factory=list)
    kd: dict[str, Any] = field(default_factory=dict)
    store_topk: int = 64
    stored: str = ""
    max_len_a: float = 1.2
    decode: str = ""
    student: Student = field(default_factory=Student)
    teacher_training: Training = field(default_factory=Training)
    student_training: Training = field(default_factory=Training)
    teachers: dict[str, Teacher] = field(default_factory=dict)
    stores: dict[str, Store] = field(default_factory=dict)
    systems: dict[str, System] = field(default_factory=dict)


def check(settings: Settings) -> None:
    """Find what would end the experiment after hours, and make the folder what it is.

    Raises:
        ValueError: text, a teacher, a metric or its tokenizer is not there, both sides have one name, or the folder holds another
            experiment.
        ImportError: a package is not there.
    """
    from fairseq_bert_kd.modules.pretrained_encoder import masked_lm_with_random_weights

    if settings.source == settings.target:
        raise ValueError(
            f"source and target are both `{settings.source}`, and each side has files of that ending; give two, such as "
            f"target={settings.target}2, and name the files so"
        )
    done = Path(settings.out, "done")
    if not (done / "text").exists():
        _check_raw_text(settings)
    check_metric(settings, of_texts=True)
    if settings.report:
        for module in ("jinja2", "matplotlib", *["rouge_score"] * (settings.metric == "rouge")):
            import_extra(module)
    if not settings.make_teacher and not (done / "tokenize").exists():
        HfTokenizer(settings.teacher)
        masked_lm_with_random_weights(settings.teacher)
    keys = ("metric", "lowercase", "bleu_tokenize", "baseline", "main")
    languages = {"source_lang": settings.source, "target_lang": settings.target}
    scoring = {key: getattr(settings, key) for key in keys}
    if settings.normalise_like:  # folders from before it was there go on
        scoring["normalise_like"] = settings.normalise_like
    describe(settings, languages | scoring)


def _check_raw_text(settings: Settings) -> None:
    """ValueError for a file that is absent, where `prepare_raw.py` reads the data: as columns of a table, or side by side."""
    prepare, folder = " ".join(settings.prepare), Path(settings.data)
    if "prepare_raw.py" not in prepare:
        return

    def is_there(name: str) -> bool:
        return packed_or_not(folder / name).exists()

    table = "--table" in prepare or (is_there("train.tsv") and not is_there(f"train.{settings.source}"))
    endings = ("tsv",) if table else (settings.source, settings.target)
    for split in ("train", "valid", *settings.test_sets):
        for name in (f"{split}.{ending}" for ending in endings):
            if not is_there(name):
                there = ", ".join(sorted(path.name for path in folder.glob("*.*"))) or "no files"
                raise ValueError(
                    f"data={folder} must hold {name} or {name}.gz; it has {there}. Correct data, source or target"
                )


def steps(settings: Settings) -> list[Step]:
    """All steps, in an order in which they could run one by one."""
    return list(_Steps(settings))


def filled(name: str, store: Store) -> str:
    """The step after which a store can be read."""
    return f"merge-{name}" if store.folds else f"dump-{name}".removesuffix("-default")


class _Steps(Steps):
    """Makes the steps of one experiment."""

    def score(self) -> str:
        settings = self.settings
        return self.command(
            "score",
            systems=" ".join(f"{name}={files}" for name, files in self.outputs("test").items()),
            case="--lowercase" if settings.lowercase else "",
            like=f'--normalise-like "{settings.normalise_like}"' if settings.normalise_like else "",
        )

    def prepared(self) -> Iterator[Step]:
        """Text and data."""
        settings = self.settings
        yield Step("text", " && ".join(settings.prepare), screen="cat")
        if settings.make_teacher:
            yield Step("make-teacher", " && ".join(settings.make_teacher))
        sets = ",".join(settings.test_sets)
        yield Step("tokenize", self.command("tokenize", sets=sets))
        if settings.after_tokenize:
            yield Step("after-tokenize", " && ".join(settings.after_tokenize))
        data = [system.data.replace("data-beam", "data-bin") for system in self.systems.values()]
        for folder in dict.fromkeys(
            [*data, *(settings.teachers[store.teacher].data for store in self.stores().values())]
        ):
            yield self.binarised(folder, "pieces", "--joined-dictionary" if folder == "data-bin" else "")
        if settings.after_preprocess:
            command = " && ".join(settings.after_preprocess)
            yield Step("after-preprocess", command, resumes=True, screen="cat")

    def stores(self) -> dict[str, Store]:
        """Stores that some system reads, by name.

        Raises:
            ValueError: a store or its teacher is not among the settings.
        """
        stores, teachers = self.settings.stores, self.settings.teachers
        for name, system in self.systems.items():
            if (store := system.store) and store not in stores:
                raise ValueError(
                    f"systems.{name}.store={store}: no store is called so. Give one of: {', '.join(stores)}"
                )
            if store and (teacher := stores[store].teacher) not in teachers:
                raise ValueError(
                    f"stores.{store}.teacher={teacher}: no teacher is called so. Give one of: {', '.join(teachers)}"
                )
        names = dict.fromkeys(system.store for system in self.systems.values() if system.store)
        return {name: stores[name] for name in names}

    def teachers(self, before: str) -> Iterator[Step]:
        """Teachers and their stores: those of all pairs first, then a teacher and a dump for each fold."""
        stores = self.stores()
        for name in dict.fromkeys(store.teacher for store in stores.values() if not store.folds):
            yield self.teacher(name, name, before)
        for name, store in stores.items():
            folder = self.settings.teachers[store.teacher].data
            named = "" if name == "default" or folder == "data-separate" else f"--name {name}"
            values = {"data": folder, "named": named, "options": store.options}
            if store.folds:
                yield from self.out_of_fold(name, values, before)
            else:
                yield self.dump(filled(name, store), store.teacher, values)

    def teacher(self, name: str, kind: str, before: str, options: str = "") -> Step:
        """Training of a teacher of a kind."""
        teacher = self.settings.teachers[kind]
        values = {"name": name, "data": teacher.data, "options": f"{teacher.options} {options}"}
        command = self.command("teacher", **values)
        return Step(name, command, (before,), resumes=True, checkpoints=name, parallel=True)

    def dump(self, name: str, teacher: str, values: dict[str, str]) -> Step:
        """A teacher's store, or its shard of one."""
        command = self.command("dump", teacher=teacher, **values)
        return Step(name, command, (teacher,), resumes=True, parallel=True)

    def out_of_fold(self, name: str, values: dict[str, str], before: str) -> Iterator[Step]:
        """A teacher and a dump for each fold, and the store that joins them; each teacher trains as long as one of all pairs."""
        store, settings = self.settings.stores[name], self.settings
        dumps = []
        for number in range(1, store.folds + 1):
            fold = f"--teacher-fold {number}/{store.folds}"
            teacher = f"{store.teacher}-fold-{number}-of-{store.folds}"
            yield self.teacher(teacher, store.teacher, before, fold)
            dumps.append(f"dump-{name}-{number}")
            yield self.dump(dumps[-1], teacher, values | {"options": f"{values['options']} {fold}"})
        pair = f"{settings.source}-{settings.target}.{settings.target}"
        path = f"{values['data']}/train.{pair}.{name}.topk"
        command = self.command("merge", store=path, folds=store.folds, teacher=store.teacher)
        yield Step(filled(name, store), command, dumps, resumes=True)

    def binarised(self, folder: str, pieces: str, dictionaries: str) -> Step:
        tests = ",".join(f"{pieces}/{name}" for name in self.settings.test_sets)
        values = {"data": folder, "pieces": pieces, "tests": tests, "dictionaries": dictionaries}
        suffix = folder.removeprefix("data-bin").removeprefix("data")
        return Step(f"preprocess{suffix}", self.command("preprocess", **values))

    def student(self, name: str, seed: int, before: tuple[str, ...]) -> Iterator[Step]:
        """Training and outputs of a student, or links to another one's."""
        system, settings, run = self.systems[name], self.settings, f"{name}.{seed}"
        described = self.record(name, seed)
        if system.store:
            before = (*before, filled(system.store, settings.stores[system.store]))
        other = f"{system.same or system.after}.{seed}"
        if system.same or system.after:
            before = (*before, *(f"outputs/{other}.{subset}" for subset in self.sets))
        if system.same:
            yield Step(f"shared/{run}", self.links(run, other), after=before, files=described)
            return
        if system.data == "data-beam":
            if (name, seed) == next(run for run in self.runs() if self.systems[run[0]].data == "data-beam"):
                yield from self.beam(before)
            before = ("preprocess-beam",)
        budget = settings.student_training
        updates = self.updates(name)
        start = [f"--kd-stores {system.store}"] if system.store and system.data != "data-separate" else []
        start += [f"--finetune-from-model students/{other}/checkpoint_best.pt"] if system.after else []
        values = {"data": system.data, "folder": f"students/{run}", "seed": seed, "updates": updates}
        values |= {"model": replace(settings.student, **system.student), "options": self.options(name)}
        decay = "" if budget.schedule == "inverse_sqrt" else f"--total-num-update {updates}"
        command = self.command("student", start=" ".join(start), decay=decay, **values)
        folder = f"students/{run}"
        yield Step(folder, command, before, resumes=True, checkpoints=folder, parallel=True, files=described)
        for number, subset in enumerate(self.sets):  # fairseq calls several test sets test, test1, ...
            text = f'--bpe hf_tokenizer --hf-tokenizer "{settings.teacher}" > outputs/{run}.{subset}.out'
            part = f"test{number - 1 or ''}" if number else "valid"
            command = self.command("decode", subset=part, text=text, **values)
            yield Step(f"outputs/{run}.{subset}", command, (f"students/{run}",), parallel=True)

    def links(self, run: str, other: str) -> str:
        """Command that gives a run the checkpoint, the outputs and the log of another one."""
        links = [f"../{other}/checkpoint_best.pt students/{run}/checkpoint_best.pt"]
        links += [f"{other}.{subset}.out outputs/{run}.{subset}.out" for subset in self.sets]
        links += [f"{other}.log logs/students/{run}.log"]
        return " && ".join(f"ln -sfn {link}" for link in links)

    def beam(self, before: tuple[str, ...]) -> Iterator[Step]:
        """The first plain student's translations of the training text, binarised; once."""
        settings = self.settings
        folder = f"students/{settings.baseline}.{settings.seeds[0]}"
        text = f"> outputs/beam.train.out && {self.command('beam', sets=','.join(settings.test_sets))}"
        decode = self.command("decode", data="data-bin", folder=folder, subset="train", text=text)
        yield Step("beam", decode, (*before, folder))
        sides = {"src": settings.source, "tgt": settings.target}
        dictionaries = " ".join(f"--{side}dict data-bin/dict.{name}.txt" for side, name in sides.items())
        yield replace(self.binarised("data-beam", "pieces-beam", dictionaries), after=("beam",))

    def updates(self, name: str) -> int:
        """Updates of a row: its own number, or its share of the main student's.

        Raises:
            ValueError: there is none.
        """
        system, all_updates = self.systems[name], self.settings.student_training.updates
        updates = round(system.share * all_updates) if system.updates is None else system.updates
        if updates < 1:  # 0 has no end for fairseq
            raise ValueError(
                f"systems.{name} would train for {updates} updates (updates={system.updates}, share={system.share:g} of {all_updates}); "
                "give 1 or more"
            )
        return updates

    def options(self, name: str) -> str:
        """Options of fairseq-train that make a row."""
        system = self.systems[name]
        values = {**self.settings.kd, **system.kd} if system.store else {"weight": 0}
        return " ".join([*(f"--kd-{key} {value}" for key, value in values.items()), system.options]).strip()

    def record(self, name: str, seed: int) -> dict[str, dict[str, Any]]:
        """What ``fairseq-bert-kd report`` reads about a student."""
        system = self.systems[name]
        store = self.settings.stores[system.store] if system.store else None
        model = f"{replace(self.settings.student, **system.student)} " if system.student else ""
        return self.described(
            name,
            seed,
            updates=self.updates(name),
            options=model + self.options(name),
            store=system.store,
            teacher=None if store is None or store.folds else store.teacher,
        )
