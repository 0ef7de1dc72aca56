"""What the students of an experiment wrote, and tables of their scores."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq_bert_kd.evaluation.fairseq_output import read_hypotheses

STUDENT = ("system", "seed", "subset")


def students_outputs(out: Path, subset: str, sentences: int) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """System, seed and subset of every student that was decoded, with its hypotheses; who is missing is named.

    Raises:
        ValueError: an output does not cover all ``sentences``.
    """
    for run_file in sorted(out.glob("students/*/run.json")):
        record = json.loads(run_file.read_text(encoding="utf-8"))
        output = out / "outputs" / f"{run_file.parent.name}.{subset}.out"
        if output.exists():
            student = dict(zip(STUDENT, (record["system"], record["seed"], subset), strict=True))
            yield student, read_hypotheses(output, sentences)
        else:
            print(f"{output.name} is not there: not scored")


def show_and_write(
    path: Path, rows: Sequence[Mapping[str, Any]], signatures: Mapping[str, Mapping[str, str]]
) -> None:
    """Print a table with the last set's signatures, and write all as JSON.

    Args:
        path: file to write.
        rows: students of all sets with their scores, 0 to 100, by name.
        signatures: by set, then by score.
    """
    for row in rows:
        scores = (f"{name} {value:.2f}" for name, value in row.items() if name not in STUDENT)
        print(f"{row['system']:<20} {row['seed']:>3}  {row['subset']:<8}", *scores, sep="  ")
    for name, signature in list(signatures.values())[-1].items():
        print(f"{name}: {signature}")
    results = {"format": 1, "signatures": signatures, "scores": rows}
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
