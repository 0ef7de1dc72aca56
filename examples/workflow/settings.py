"""Settings of an experiment: its kind's defaults, a size, a task's file and the command line, each over the ones before."""

import difflib
import importlib
import json
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

import fairseq_bert_kd
from fairseq_bert_kd.output_files import write_text

HERE = Path(__file__).resolve().parent
MACHINE = {  # commands that print what ran an experiment
    "hardware": "gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader | sort | uniq -c | paste -sd,); "
    "echo \"$(nproc --all) CPU cores ($(lscpu | sed -n 's/^Model name: *//p')), ${gpus:-no GPU}\"",
    "code": f"git -C '{HERE}' rev-parse --short=12 HEAD || echo {fairseq_bert_kd.__version__}",
}

LANGUAGES = {"cs": "Czech", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "nl": "Dutch",
             "pt": "Portuguese", "ru": "Russian", "vi": "Vietnamese", "zh": "Chinese"}  # fmt: skip
# ${language:${source}} in a title, so that another pair changes it too; other codes stand for themselves
OmegaConf.register_new_resolver("language", lambda code: LANGUAGES.get(code, code), replace=True)


NOT_PUBLISHED = ("data", "out", "teacher", "size", "jobs", "report")  # of what a command line gives


@dataclass
class Common:
    """Settings of every kind of task."""

    task: str = MISSING
    title: str = "${task}"  # for people
    kind: str = "translation"  # module beside this one, with its own `Settings` and `steps`
    base: str = ""  # file whose settings this task changes, relative to its own
    data: str = ""  # folder that is read
    out: str = MISSING  # folder that is written
    teacher: str = MISSING  # folder or hub name of a pre-trained model
    teacher_name: str = ""  # in tables
    size: str = "laptop"  # among `sizes`, which hold settings of the same names
    sizes: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)  # a task's own values, for ${own.NAME}
    rows: list[str] = field(default_factory=list)  # of the table of systems
    precision: str = ""  # options of fairseq-train for all trainings, such as --fp16 or --autocast bf16
    jobs: int = 1  # steps side by side
    gpus: int = 1  # GPUs of each step, where there are any; training on several makes its batches as many times as large
    report: bool = True
    needs: list[str] = field(default_factory=list)  # folders and files, by full paths, that steps read
    called: str = ""  # how run.py was told these settings: a task, or a file
    # and which of them on the command line, without folders of this machine
    given: list[str] = field(default_factory=list)
    examples: str = str(HERE.parent)


def load(name: str | Path, given: Sequence[str]) -> tuple[Any, ModuleType]:
    """The settings in a file or an example's, and the module of their kind; ``given`` are ``KEY=VALUE`` or rows.

    Raises:
        ValueError: a key, a value, a size or a kind that does not exist, or a setting that is missing.
    """
    path = _file_of(name)
    try:
        task: Any = OmegaConf.load(path)
        if base := task.get("base"):
            task = OmegaConf.merge(OmegaConf.load(path.parent / base), task)
        line: Any = OmegaConf.from_dotlist([word for word in given if "=" in word])
        if rows := [word for word in given if "=" not in word]:
            line.rows = rows
        settings, module = _merged(path, task, line)
        settings.called = str(name) if path.parent.name == str(name) else _from_root(path)
        settings.given = [
            _published(word) for word in given if "=" in word and word.split("=")[0] not in NOT_PUBLISHED
        ]
        _complete_paths(settings)
        return OmegaConf.to_object(settings), module
    except (OmegaConfBaseException, OSError, yaml.YAMLError, AttributeError) as error:
        reason = " ".join(str(error).split("object_type=")[0].split())
        raise ValueError(
            f"{path}: {reason}. {_advice(error)}Correct it, or give KEY=VALUE on the command line"
        ) from None


def _merged(path: Path, task: Any, line: Any) -> tuple[Any, ModuleType]:
    """The settings of a task's file and of the command line, over those of their kind and size, and the module of the kind.

    Raises:
        ValueError: a kind or a size that does not exist, or a language's code that is none; names the task's ``path``.
    """
    for key in ("source", "target"):
        if isinstance(line.get(key, task.get(key)), bool):  # the code of Norwegian, `no`, is YAML's false
            raise ValueError(
                f"{path}: `{key}` is a language's code, and YAML reads `no` as false: write '\"no\"', in quotes"
            )
    kind, size = (str(line.get(key, task.get(key, getattr(Common, key)))) for key in ("kind", "size"))
    kinds = {file.stem: OmegaConf.load(file) for file in HERE.glob("*.yaml")}
    defaults = kinds.get(kind, OmegaConf.create())
    sizes = [layer.get("sizes", {}) for layer in (defaults, task)]
    for key, value, known in (("kind", kind, kinds), ("size", size, {**sizes[0], **sizes[1]})):
        if value not in known:
            raise ValueError(f"{path}: {key}={value} does not exist. Give one of: {', '.join(known)}")
    module = importlib.import_module(f"{__package__}.{kind}")
    schema = OmegaConf.structured(module.Settings)
    at_size, own_at_size = (part.get(size, {}) for part in sizes)
    return OmegaConf.merge(schema, defaults, at_size, task, own_at_size, line), module


def _complete_paths(settings: Any) -> None:
    """Make folders full paths, since steps run in the folder that is written; a hub name of a teacher stays."""
    for key in ("data", "out", "teacher"):
        if settings[key]:
            folder = Path(settings[key]).expanduser()  # no shell has read a file of settings
            if key != "teacher" or folder.exists() or settings[key].startswith("~"):
                settings[key] = str(folder.resolve())


def _file_of(name: str | Path) -> Path:
    """The file of settings that is meant: a file, an example by its name, or a folder with a task.yaml.

    Raises:
        ValueError: there is none.
    """
    folders = (HERE.parent / name, Path(name))
    known = sorted(path.parent.name for path in HERE.parent.glob("*/task.yaml"))
    for path in (Path(name), *(folder / "task.yaml" for folder in folders)):
        if path.is_file():
            return path
    if Path(name).suffix in (".yaml", ".yml"):
        raise ValueError(
            f"there is no file of settings `{name}`; the name of an example does too: {', '.join(known)}"
        )
    raise ValueError(
        f"no example is called `{name}`. Give a file of settings, such as mine.yaml, or one of: {', '.join(known)}"
    )


def _advice(error: Exception) -> str:
    """What a user most likely meant, or nothing."""
    key = str(getattr(error, "full_key", None) or "")
    if isinstance(error, ConfigKeyError) and error.parent_node is not None:
        known = [str(name) for name in error.parent_node]
        return "".join(
            f"Is `{name}` meant? " for name in difflib.get_close_matches(key.split(".")[-1], known, 1)
        )
    return f"A list is written in brackets, such as {key}=[A,B]. " if "ListConfig" in str(error) else ""


def _published(word: str) -> str:
    """``KEY=VALUE``, without a path of this machine."""
    key, _, value = word.partition("=")
    return f"{key}={'...' if value.startswith('/') else value}"


def check_needs(settings: Common) -> None:
    """Check that what steps will read is there; steps run in the folder that is written.

    Raises:
        ValueError: a path that is absent or not a full one.
    """
    for needed in settings.needs:
        if not Path(needed).is_absolute() or not Path(needed).exists():
            raise ValueError(
                f"`{needed}` {'does not exist' if Path(needed).is_absolute() else 'must be a full path'}; {settings.task} reads it"
            )


def _from_root(path: Path) -> str:
    """A file of settings as one names it in the project's folder; another one by its name alone."""
    root = HERE.parent.parent
    return str(path.resolve().relative_to(root)) if path.resolve().is_relative_to(root) else path.name


def describe(settings: Common, values: dict[str, Any]) -> None:
    """Write ``experiment.json``, which the report reads; raise a ValueError if it is there and says something else."""
    path = Path(settings.out, "experiment.json")
    same = {"format": 1, "task": settings.task, "size": settings.size, "title": settings.title, **values}
    same["teacher"] = settings.teacher_name or Path(settings.teacher).name
    same["precision"], same["gpus"] = settings.precision, settings.gpus
    if path.exists():
        before = {"precision": "", "gpus": 1, **json.loads(path.read_text(encoding="utf-8"))}
        if differing := [key for key in same if before.get(key) != same[key]]:
            raise ValueError(
                f"{path.parent} holds {before['title']!r} and differs in {', '.join(differing)}. Give another folder: out=..."
            )
        return
    given = "".join(f" {shlex.quote(word)}" for word in settings.given)
    command = (
        f"python examples/run.py {settings.called or settings.task} size={settings.size}{given} data=DATA_DIR "
        "teacher=TEACHER_DIR out=OUT_DIR [ROW...]"
    )
    asked = {key: subprocess.getoutput(f"exec 2> /dev/null; {asks}") for key, asks in MACHINE.items()}
    write_text(path, json.dumps({**same, **asked, "command": command}, indent=1, ensure_ascii=False) + "\n")
