"""How well evaluators tell paraphrases from other pairs: accuracy and area under the ROC curve, beside what costs nothing.

    python judge_evaluator.py --evaluator NAME=CHECKPOINT ... --pairs TABLE [--others DIR] [--fit TABLE] [--encoder PATH] [--json FILE]

Tables have the columns question1, question2, is_duplicate (0 or 1). Beside the evaluators stand the larger class, word overlap
(the Jaccard index of the two sets of words) and with ``--encoder`` the cosine of a sentence encoder's vectors. Their thresholds
are the best on ``--fit``, an evaluator's is 0.5. ``--others`` is a folder of tables from elsewhere, judged with the same
thresholds. An evaluator whose area is below word overlap's on ``--pairs`` judges nothing, and this is said. ``--json`` is a
table for `fairseq-bert-kd report`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fairseq_bert_kd.text_lines import open_lines

OVERLAP, COSINE, MAJORITY = "word overlap", "the encoder's cosine", "the larger class"
Scorer = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]


class Pairs(NamedTuple):
    """A table: both sides, and ``(pairs,)`` 1 for paraphrases, else 0."""

    first: list[str]
    second: list[str]
    labels: NDArray[np.int64]


def read_pairs(path: str | Path) -> Pairs:
    _, *rows = (line.split("\t") for line in open_lines(path))
    first, second, labels = (list(column) for column in zip(*rows, strict=True))
    return Pairs(first, second, np.array(labels, dtype=np.int64))


def word_overlap(first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
    """``(pairs,)`` shared words over all words, case aside."""
    sets = [
        (set(one.lower().split()), set(other.lower().split()))
        for one, other in zip(first, second, strict=True)
    ]
    return np.array([len(one & other) / max(len(one | other), 1) for one, other in sets])


def best_threshold(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """The score from which on pairs are called paraphrases so that most are right; the lowest of equally good ones."""
    thresholds = np.array([*np.unique(scores), np.inf])
    right = [((scores >= value) == labels).mean() for value in thresholds]
    return float(thresholds[int(np.argmax(right))])


def measures(labels: NDArray[np.int64], scores: NDArray[np.float64], threshold: float) -> dict[str, float]:
    """Accuracy and area under the curve, in per cent."""
    from sklearn.metrics import roc_auc_score

    accuracy = float(((scores >= threshold) == labels).mean())
    return {"accuracy": 100 * accuracy, "auc": 100 * float(roc_auc_score(labels, scores))}


def judged(pairs: Pairs, scorers: Mapping[str, Scorer], thresholds: Mapping[str, float]) -> dict[str, Any]:
    """Measures of every scorer on a table."""
    found = {
        name: measures(pairs.labels, scorer(pairs.first, pairs.second), thresholds[name])
        for name, scorer in scorers.items()
    }
    majority = 100 * float(max(pairs.labels.mean(), 1 - pairs.labels.mean()))
    return {"pairs": len(pairs.labels), **found, MAJORITY: {"accuracy": majority}}


def verdict(name: str, found: Mapping[str, Any]) -> str:
    """What an evaluator below word overlap is worth; empty for one above it."""
    evaluator, overlap = (found[scorer]["auc"] for scorer in (name, OVERLAP))
    if evaluator > overlap:
        return ""
    return (
        f"{name}: area under the curve {evaluator:.1f}, word overlap has {overlap:.1f}: this evaluator judges no better than "
        "shared words do. Train it longer, or on other pairs."
    )


def table(found: Mapping[str, Mapping[str, Any]], remarks: Sequence[str]) -> dict[str, Any]:
    """The measures as a table of a report: a row for each judge, two columns for each set of pairs."""
    judges = [name for name in next(iter(found.values())) if name != "pairs"]
    sets = [f"{name}, {measured['pairs']:,} pairs" for name, measured in found.items()]
    head = [
        "judge",
        *(f"{name}: {title}" for name in sets for title in ("right, %", "area under the curve, %")),
    ]
    rows = [
        [judge, *(measured[judge].get(key) for measured in found.values() for key in ("accuracy", "auc"))]
        for judge in judges
    ]
    return {
        "format": 1,
        "title": "How well the judges tell pairs apart",
        "head": head,
        "rows": rows,
        "remarks": [*remarks],
    }


def named(texts: Sequence[str]) -> dict[str, str]:
    """Checkpoints by name.

    Raises:
        ValueError: a text is not NAME=CHECKPOINT, or a name is there twice or that of another judge.
    """
    split = [text.partition("=") for text in texts]
    names = [name for name, _, _ in split]
    for text, (name, _, path) in zip(texts, split, strict=True):
        if not name or not path or name in (OVERLAP, MAJORITY, COSINE, "pairs") or names.count(name) > 1:
            raise ValueError(
                f"--evaluator must be NAME=CHECKPOINT, each with a name of its own and none of a judge that costs nothing, got "
                f"`{text}`; write evaluator={path or text}"
            )
    return {name: path for name, _, path in split}


def main(args: argparse.Namespace) -> None:
    import fairseq_bert_kd.tasks  # noqa: F401  registers the evaluator's task
    from fairseq_bert_kd.rewards.evaluator import load_evaluator
    from fairseq_bert_kd.rewards.interface import best_device
    from fairseq_bert_kd.rewards.similarity import CosineReward

    evaluators: dict[str, Scorer] = {}
    for name, path in named(args.evaluator).items():
        evaluator = load_evaluator(path, args.positive, "--evaluator", positive_option="--positive")
        evaluator.to(best_device())
        evaluators[name] = evaluator.score_pairs
    plain: dict[str, Scorer] = {OVERLAP: word_overlap}
    if args.encoder:
        cosine = CosineReward(args.encoder)
        cosine.to(best_device())
        plain[COSINE] = lambda first, second: cosine(first, second, first)  # needs no references
    others = sorted(Path(args.others).glob("*.tsv")) if args.others else []
    tables = {Path(path).stem: read_pairs(path) for path in (args.pairs, *others)}
    fit = read_pairs(args.fit or args.pairs)
    thresholds = {
        name: best_threshold(fit.labels, score(fit.first, fit.second)) for name, score in plain.items()
    } | dict.fromkeys(evaluators, 0.5)
    found = {name: judged(pairs, evaluators | plain, thresholds) for name, pairs in tables.items()}
    remarks = [said for name in evaluators if (said := verdict(name, found[Path(args.pairs).stem]))]
    for said in remarks:
        print(said, file=sys.stderr)
    record = json.dumps(table(found, remarks), indent=1, ensure_ascii=False)
    print(record)
    if args.json:
        Path(args.json).write_text(record + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluator", required=True, nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--others", help="folder with tables of other origin")
    parser.add_argument("--fit", help="labelled pairs from which thresholds are taken (default: --pairs)")
    parser.add_argument("--encoder", help="folder or hub name of a transformers encoder of sentences")
    parser.add_argument("--positive")
    parser.add_argument("--json")
    main(parser.parse_args())
