"""Small experiments in the folder layout that examples/run.py writes."""

import json
from pathlib import Path
from typing import Any

from tests.storage.small_stores import PAIRS, make_info, write_data, write_store

REFERENCE = [
    "A man sits on a chair .",
    "Two people eat in a small restaurant near the old station .",
    "He stands .",
    "The girl with the red hat reads a book in the park .",
    "Dogs run .",
    "A woman is singing a song on a stage in front of many people .",
]
SOURCE = [f"Satz {number} ." for number in range(len(REFERENCE))]
WORSE = [  # three sentences wrong
    "A man sits on a chair .",
    "Two people in a restaurant .",
    "He stands .",
    "The girl reads .",
    "Dogs run .",
    "A woman is singing .",
]
BETTER = [*REFERENCE[:5], "A woman is singing a song on a stage ."]


def experiment_record(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1, "task": "toy", "size": "laptop", "title": "Toy German-English", "source_lang": "de",
        "target_lang": "en", "metric": "bleu", "lowercase": False, "baseline": "plain", "main": "distilled",
        "teacher": "tiny BERT", "hardware": "2 CPU cores, no GPU", "code": "abc123",
        "command": "python examples/run.py toy data=DATA_DIR", **changes,
    }  # fmt: skip


def run_record(system: str, seed: int, **changes: Any) -> dict[str, Any]:
    kd = system != "plain"
    return {
        "system": system, "seed": seed, "label": system, "group": "main", "value": "", "baseline": "plain",
        "updates": 400, "options": "--kd-weight 0.5 --kd-temperature 1 --kd-topk 3" if kd else "--kd-weight 0",
        "store": "default" if kd else None, "teacher": "teacher" if kd else None, **changes,
    }  # fmt: skip


def write_json(path: Path, record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")


def write_text(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_output(path: Path, texts: list[str]) -> None:
    """An output like fairseq-generate's, in another order than the corpus."""
    lines = [f"D-{number}\t-0.5\t{text}" for number, text in reversed(list(enumerate(texts)))]
    write_text(path, ["INFO | loading", *lines, "Generate test with beam=5"])


def of_seed(texts: list[str], seed: int) -> list[str]:
    """Texts that differ between seeds and have the same scores."""
    return [*texts[:-1], texts[-1].replace(" .", f"{' ' * seed}.")]


def log_lines(updates: int, offset: float = 0.0, name: str = "bleu 20.5") -> list[str]:
    """Training lines every 100 updates and a validation every 200, as fairseq's simple format has them."""
    lines = ["2026-11-21 | INFO | fairseq_cli.train | {'_name': None, 'num_updates': 99}"]
    for update in range(100, updates + 1, 100):
        nll = 6 - update / 100 + offset
        lines.append(
            f"2026-11-21 | INFO | train_inner | epoch 001:    {update} / 125 loss={nll + 1:.3f}, nll_loss={nll:.3f}, "
            f"ppl={2**nll:.2f}, wps=2171.8, num_updates={update}, lr=0.00075, wall=54"
        )
        if update % 200 == 0:
            lines.append(
                f"2026-11-21 | INFO | valid | epoch 001 | valid on 'valid' subset | loss {nll + 1:.3f} | nll_loss {nll:.3f} "
                f"| ppl {2**nll:.2f} | {name} | wps 927.8 | num_updates {update} | best_bleu 21.0"
            )
    return lines


def json_lines(updates: int) -> list[str]:
    """The lines of `log_lines` as ``--log-format json`` has them: values are strings, validation names have a prefix."""
    lines = []
    for update in range(100, updates + 1, 100):
        nll = 6 - update / 100
        values = {
            "epoch": 1,
            "update": 0.8,
            "loss": f"{nll + 1:.3f}",
            "nll_loss": f"{nll:.3f}",
            "num_updates": str(update),
        }
        lines.append(f"2026-11-21 | INFO | train_inner | {json.dumps(values)}")
        if update % 200 == 0:
            valid = {"epoch": 1} | {
                f"valid_{name}": value for name, value in values.items() if name != "epoch"
            }
            lines.append(f"2026-11-21 | INFO | valid | {json.dumps({**valid, 'valid_bleu': '20.5'})}")
    return lines


def done(seconds: float = 12.5) -> str:
    return f"2026-11-21 | INFO | fairseq_cli.train | done training in {seconds} seconds"


def add_run(folder: Path, system: str, seed: int, texts: list[str] | None, **changes: Any) -> None:
    """A student with its log and output; no output for None."""
    name = f"{system}.{seed}"
    write_json(folder / "students" / name / "run.json", run_record(system, seed, **changes))
    write_text(folder / "logs" / "students" / f"{name}.log", [*log_lines(400, seed / 10), done()])
    if texts is not None:
        write_output(folder / "outputs" / f"{name}.test.out", texts)


def write_experiment(folder: Path, runs: bool = True, store: bool = True, **changes: Any) -> Path:
    """Plain and distilled students with two seeds, a teacher and its store; nothing is missing."""
    write_json(folder / "experiment.json", experiment_record(**changes))
    for subset in ("train", "valid", "test"):
        write_text(folder / "text" / f"{subset}.de", SOURCE)
        write_text(folder / "text" / f"{subset}.en", REFERENCE)
    steps = [
        ("teacher", 812),
        ("students/plain.1", 100),
        ("students/plain.2", 110),
        ("outputs/plain.1.test", 7.4),
    ]
    lines = [json.dumps({"step": name, "seconds": s, "command": "x", "ended": "2026"}) for name, s in steps]
    write_text(folder / "steps.jsonl", lines)
    teacher = [line.replace("bleu 20.5", "masked_accuracy 62.4") for line in log_lines(400)]
    write_text(folder / "logs" / "teacher.log", [*teacher, done()])
    if runs:
        for seed in (1, 2):
            add_run(folder, "plain", seed, of_seed(WORSE, seed))
            add_run(folder, "distilled", seed, of_seed(BETTER, seed))
    if store:
        data = write_data(folder / "data-bin")
        write_store(data / "train.de-en.en.topk", make_info(gold=True), PAIRS)
    return folder
