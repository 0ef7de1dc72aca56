"""How well an evaluator tells paraphrases from other pairs: accuracy and area under the ROC curve, beside word overlap.

    python judge_evaluator.py --evaluator CHECKPOINT --pairs labelled.tsv [--json FILE]

Reads a table with columns question1, question2, is_duplicate (0 or 1). Word overlap is the Jaccard index of the two sets of
words, with the threshold that is best on these very pairs: a baseline that is let off lightly.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fairseq_bert_kd.text_lines import open_lines


def word_overlap(first: list[str], second: list[str]) -> NDArray[np.float64]:
    """``(pairs,)`` shared words over all words, case aside."""
    sets = [
        (set(one.lower().split()), set(other.lower().split()))
        for one, other in zip(first, second, strict=True)
    ]
    return np.array([len(one & other) / max(len(one | other), 1) for one, other in sets])


def measures(
    labels: NDArray[np.int64], scores: NDArray[np.float64], threshold: float | None
) -> dict[str, float]:
    """Accuracy and area under the curve, in per cent; without a threshold the best one is taken."""
    from sklearn.metrics import roc_auc_score

    thresholds = [threshold] if threshold is not None else [*np.unique(scores), np.inf]
    accuracy = max(float(((scores >= value) == labels).mean()) for value in thresholds)
    return {"accuracy": 100 * accuracy, "auc": 100 * float(roc_auc_score(labels, scores))}


def main(args: argparse.Namespace) -> None:
    import fairseq_bert_kd.tasks  # noqa: F401  registers the evaluator's task
    from fairseq_bert_kd.rewards.evaluator import load_evaluator

    _, *rows = (line.split("\t") for line in open_lines(args.pairs))
    first, second, labels = (list(column) for column in zip(*rows, strict=True))
    truth = np.array(labels, dtype=np.int64)
    evaluator = load_evaluator(args.evaluator, args.positive, "--evaluator", positive_option="--positive")
    found = {
        "pairs": len(rows),
        "evaluator": measures(truth, evaluator.score_pairs(first, second), 0.5),
        "word overlap": measures(truth, word_overlap(first, second), None),
        "majority": {"accuracy": 100 * float(max(truth.mean(), 1 - truth.mean()))},
    }
    print(json.dumps(found, indent=1))
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluator", required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--positive")
    parser.add_argument("--json")
    main(parser.parse_args())
