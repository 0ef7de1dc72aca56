"""Settings of an experiment: its kind's defaults, a size, a task's file and the command line, each over the ones before."""

import importlib
import importlib.util
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import fairseq_bert_kd

HERE = Path(__file__).resolve().parent


@dataclass
class Common:
    """Settings of every kind of task.

    Attributes:
        task: name; ``title`` is for people.
        kind: module beside this one, whose ``Settings`` extend these and whose ``steps`` make the experiment.
        data: folder that is read.
        out: folder that is written.
        teacher: folder or hub name of a pre-trained model; ``teacher_name`` in tables.
        size: among ``sizes``, which hold settings of the same names.
        own: a task's own values, for ``${own.NAME}``.
        rows: rows of the table of systems.
        jobs: steps side by side.
    """

    task: str = MISSING
    title: str = "${task}"
    kind: str = "translation"
    data: str = ""
    out: str = MISSING
    teacher: str = MISSING
    teacher_name: str = ""
    size: str = "laptop"
    sizes: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    jobs: int = 1
    report: bool = True
    examples: str = str(HERE.parent)


def load(path: Path, given: Sequence[str]) -> tuple[Any, ModuleType]:
    """The settings and the module of their kind; ``given`` are ``KEY=VALUE`` or rows.

    Raises:
        ValueError: a key, a value, a size or a kind that does not exist, or a setting that is missing.
    """
    try:
        task: Any = OmegaConf.load(path)
        line: Any = OmegaConf.from_dotlist([word for word in given if "=" in word])
        if rows := [word for word in given if "=" not in word]:
            line.rows = rows
        kind = str(line.get("kind", task.get("kind", Common.kind)))
        if not (HERE / f"{kind}.yaml").exists():
            kinds = ", ".join(sorted(file.stem for file in HERE.glob("*.yaml")))
            raise ValueError(f"{path}: kind={kind} does not exist. Give one of: {kinds}")
        module = importlib.import_module(f"{__package__}.{kind}")
        schema, defaults = OmegaConf.structured(module.Settings), OmegaConf.load(HERE / f"{kind}.yaml")
        merged: Any = OmegaConf.merge(schema, defaults, task, line)
        if merged.size not in merged.sizes:
            raise ValueError(
                f"{path}: size={merged.size} does not exist. Give one of: {', '.join(merged.sizes)}"
            )
        sizes = [layer.get("sizes", {}).get(merged.size, {}) for layer in (defaults, task)]
        merged = OmegaConf.merge(schema, defaults, sizes[0], task, sizes[1], line)
        for key in ("data", "out", "teacher"):  # steps run in the folder that is written
            if merged[key] and (key != "teacher" or Path(merged[key]).exists()):
                merged[key] = str(Path(merged[key]).resolve())
        OmegaConf.resolve(merged)
        return OmegaConf.to_object(merged), module
    except (OmegaConfBaseException, OSError, yaml.YAMLError, AttributeError) as error:
        reason = " ".join(str(error).split("object_type=")[0].split())
        raise ValueError(
            f"{path}: {reason}. Correct the file, or give KEY=VALUE on the command line"
        ) from None


def check_model(name: str) -> None:
    """Raise a ValueError unless a folder or the hub has the pre-trained model."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        AutoConfig.from_pretrained(name)
        AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"teacher={name} is neither a folder with a model and its tokenizer nor available from the hub ({reason}). "
            "Correct its name, or give a folder"
        ) from None


def check_report(*modules: str) -> None:
    """Raise a ValueError unless what the last step imports is installed."""
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"the report needs {', '.join(missing)}: pip install 'fairseq-bert-kd[report]', or leave it out: report=false"
        )


def describe(settings: Common, values: dict[str, Any]) -> None:
    """Write ``experiment.json``, which ``fairseq-bert-kd report`` reads.

    Raises:
        ValueError: it is there and says something else.
    """
    out = Path(settings.out)
    same = {"format": 1, "task": settings.task, "size": settings.size, "title": settings.title, **values}
    same["teacher"] = settings.teacher_name or Path(settings.teacher).name
    path = out / "experiment.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if differing := [key for key in same if before.get(key) != same[key]]:
            raise ValueError(
                f"{out} holds {before['title']!r} and differs in {', '.join(differing)}. Give another folder: out=..."
            )
        return
    gpus = _first_line("nvidia-smi --query-gpu=name --format=csv,noheader | sort | uniq -c | paste -sd,")
    cpu = _first_line("lscpu | sed -n 's/^Model name: *//p'") or "unknown processor"
    code = _first_line(f"git -C '{HERE}' rev-parse --short=12 HEAD") or fairseq_bert_kd.__version__
    same["hardware"] = f"{os.cpu_count()} CPU cores ({cpu}), {gpus or 'no GPU'}"
    same |= {"code": code, "command": f"python examples/run.py {settings.task} size={settings.size} data=DATA_DIR "
             "teacher=TEACHER_DIR out=OUT_DIR [ROW...]"}  # fmt: skip
    path.write_text(json.dumps(same, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _first_line(command: str) -> str:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[0].strip()
