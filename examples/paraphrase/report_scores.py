"""The measures of ``score --sources`` for the report: ``scores-paraphrases.json`` beside the results of that command.

    python report_scores.py scores.json SYSTEM=SEED[,SEED...] [SYSTEM=...]

The score of the held-out evaluator comes first, since the report compares systems by the first one.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fairseq_bert_kd.cli.paraphrase_scores import COPY, TITLES

FIRST = "held_out"
SUBSET = "test"


def further_scores_record(results: Mapping[str, Any], seeds: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Content of ``scores-paraphrases.json``.

    Args:
        results: what ``score --sources --json`` wrote.
        seeds: seeds of each system's outputs, in their order.

    Raises:
        ValueError: a system with another number of outputs than seeds.
    """
    title, signatures = TITLES["bleu"], results["signatures"]
    rows = []
    for system, own in ({COPY: [0]} | dict(seeds)).items():
        runs = results["paraphrases"].get(system, [])
        if len(runs) != len(own):
            raise ValueError(
                f"`{system}` has {len(runs)} scored outputs and {len(own)} seeds; score all of them again"
            )
        for seed, scores in zip(own, runs, strict=True):
            order = sorted(TITLES, key=lambda name: name != FIRST)
            values = {TITLES[name]: scores[name] for name in order if name in scores}
            rows.append({"subset": SUBSET, "system": system, "seed": seed, **values})
    return {
        "format": 1,
        "signatures": {SUBSET: {title: signatures[title]}},
        "scores": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("systems", nargs="+", metavar="SYSTEM=SEEDS")
    args = parser.parse_args()
    seeds = {
        name: [int(seed) for seed in listed.split(",")]
        for name, listed in (word.split("=") for word in args.systems)
    }
    record = further_scores_record(json.loads(args.results.read_text(encoding="utf-8")), seeds)
    path = args.results.with_name("scores-paraphrases.json")
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
