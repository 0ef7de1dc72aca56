"""ROUGE-1, ROUGE-2 and ROUGE-L, full-length F1 by rouge-score, of every student of a summarisation experiment.

The paper does not name its script and options; these are ours. rouge-score keeps letters and digits alone, as
ROUGE-1.5.5 does: ``<unk>`` and ``UNK`` are the same word, and the ``#`` of hidden digits does not count. Writes
``scores-rouge.json`` into the experiment's folder.
"""

import argparse
from pathlib import Path

from corpus import read_lines, run
from students import show_and_write, students_outputs

from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.registry import METRICS, signatures
from fairseq_bert_kd.evaluation.system_output import SystemOutput


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the experiment's folder")
    parser.add_argument("--language", required=True, help="ending of the summaries' files")
    parser.add_argument("--subsets", nargs="+", default=["valid", "test"])
    args = parser.parse_args()
    metrics = {name: METRICS[name](MetricSettings()) for name in ("rouge1", "rouge2", "rougeL")}
    rows = []
    for subset in args.subsets:
        references = list(read_lines(args.out / f"text/{subset}.{args.language}"))
        for student, text in students_outputs(args.out, subset, len(references)):
            rows.append(student | SystemOutput(metrics, text, references).scores)
    show_and_write(args.out / "scores-rouge.json", rows, dict.fromkeys(args.subsets, signatures(metrics)))


if __name__ == "__main__":
    run(main)
