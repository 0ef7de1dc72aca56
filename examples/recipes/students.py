"""What the students of an experiment wrote, and tables of their scores."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq_bert_kd.cli.score_translations import read_hypotheses


@dataclass(frozen=True)
class Scores:
    """Scores of one student on one set, 0 to 100, by name."""

    system: str
    seed: int
    subset: str
    values: dict[str, float]


def students_outputs(out: Path, subset: str, sentences: int) -> Iterator[tuple[str, int, list[str]]]:
    """System, seed and hypotheses of every student that was decoded; who is missing is named on the way.

    Raises:
        ValueError: an output does not cover all ``sentences``.
    """
    for run_file in sorted(out.glob("students/*/run.json")):
        record = json.loads(run_file.read_text(encoding="utf-8"))
        output = out / "outputs" / f"{run_file.parent.name}.{subset}.out"
        if output.exists():
            yield record["system"], record["seed"], read_hypotheses(output, sentences)
        else:
            print(f"{output.name} is not there: not scored")


def show_and_write(
    path: Path, rows: Sequence[Scores], names: Sequence[str], signatures: dict[str, dict[str, str]]
) -> None:
    """Print a table with the last set's signatures, and write all as JSON.

    Args:
        path: file to write.
        rows: of all sets.
        names: of the scores, in the order of columns.
        signatures: by set, then by score.
    """
    print("  ".join(["system".ljust(20), "seed", "subset ", *(f"{name:>10}" for name in names)]))
    for row in rows:
        values = (f"{row.values[name]:>10.2f}" for name in names)
        print("  ".join([f"{row.system:<20}", f"{row.seed:>4}", f"{row.subset:<7}", *values]))
    for name, signature in list(signatures.values())[-1].items():
        print(f"{name}: {signature}")
    scores = [{"system": row.system, "seed": row.seed, "subset": row.subset, **row.values} for row in rows]
    results = {"format": 1, "signatures": signatures, "scores": scores}
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
