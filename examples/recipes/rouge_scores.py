"""ROUGE-1, ROUGE-2 and ROUGE-L, full-length F1 by rouge-score, of every student of a summarisation experiment.

The paper does not name its script and options; these are ours. rouge-score keeps letters and digits alone, as
ROUGE-1.5.5 does: ``<unk>`` and ``UNK`` are the same word, and the ``#`` of hidden digits does not count. Writes
``scores-rouge.json`` into the experiment's folder.
"""

import argparse
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from corpus import read_lines, run
from students import Scores, show_and_write, students_outputs

TYPES = ("rouge1", "rouge2", "rougeL")
STEMMER = True  # as ROUGE-1.5.5 with -m


def signature() -> str:
    """What the numbers are."""
    settings = f"use_stemmer:{STEMMER}|split_summaries:False|length:full"
    return f"F1|{settings}|mean over sentences|rouge-score:{version('rouge-score')}"


def rouge(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F1 of each type, 0 to 100."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ImportError(
            "ROUGE comes from rouge-score, which is not installed: pip install rouge-score"
        ) from None
    scorer = RougeScorer(TYPES, use_stemmer=STEMMER)
    scored = [scorer.score(reference, text) for text, reference in zip(hypotheses, references, strict=True)]
    return {name: 100 * statistics.fmean(score[name].fmeasure for score in scored) for name in TYPES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the experiment's folder")
    parser.add_argument("--language", required=True, help="ending of the summaries' files")
    parser.add_argument("--subsets", nargs="+", default=["valid", "test"])
    args = parser.parse_args()
    rows = []
    for subset in args.subsets:
        references = list(read_lines(args.out / f"text/{subset}.{args.language}"))
        for system, seed, text in students_outputs(args.out, subset, len(references)):
            rows.append(Scores(system, seed, subset, rouge(text, references)))
    signatures = {subset: {"ROUGE": signature()} for subset in args.subsets}
    show_and_write(args.out / "scores-rouge.json", rows, TYPES, signatures)


if __name__ == "__main__":
    run(main)
