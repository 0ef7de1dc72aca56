"""How often a teacher's best token is the right one, at tokens of mentions and at the others, from its stores.

    python examples/entities/mention_accuracy.py data-bin valid --source-lang triples --target-lang text [TEACHER=]NAME ... [--json FILE]

Each NAME is a store of the split that `fairseq-bert-kd dump --gold --name NAME` wrote. Prints a table of JSON, a row a store; `--json`
writes it for `fairseq-bert-kd report`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.entity_mentions import MentionsByRow, read_mentions
from fairseq_bert_kd.storage.fairseq_data import open_pairs
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path

MENTIONS, OTHERS = "at tokens of mentions", "at other tokens"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("split")
    parser.add_argument("names", nargs="+", metavar="[TEACHER=]NAME")
    parser.add_argument("--source-lang", required=True)
    parser.add_argument("--target-lang", required=True)
    parser.add_argument("--json")
    args = parser.parse_args(arguments)
    languages = (args.source_lang, args.target_lang)
    named = positions_of_mentions(args.data, args.split, languages)
    stores = {text.partition("=")[0]: text.rpartition("=")[2] for text in args.names}
    found = {
        teacher: accuracies(TopKReader(store_path(args.data, args.split, *languages, name)), named)
        for teacher, name in stores.items()
    }
    record = json.dumps(table(found, args.split), indent=1, ensure_ascii=False)
    print(record)
    if args.json:
        Path(args.json).write_text(record + "\n", encoding="utf-8")


def positions_of_mentions(data: str, split: str, languages: tuple[str, str]) -> list[NDArray[np.bool_]]:
    """For each row of the split ``(target tokens,)``: whether a mention covers the token."""
    pairs = open_pairs(data, split, *languages)
    mentions = MentionsByRow(read_mentions(data, split, list(pairs.values())), len(pairs["target"]), 2)
    named = []
    for row, size in enumerate(pairs["target"].sizes):
        inside = np.zeros(size, dtype=bool)
        for begin, end, _ in mentions.spans(row)[1]:
            inside[begin:end] = True
        named.append(inside)
    return named


def accuracies(store: TopKReader, named: Sequence[NDArray[np.bool_]]) -> dict[str, tuple[int, float]]:
    """Number of tokens, and per cent of them that are the teacher's best, of both kinds; rows that the store lacks do not count."""
    right: dict[str, list[bool]] = {MENTIONS: [], OTHERS: []}
    for row, inside in enumerate(named):
        if store.is_missing(row):
            continue
        rows = store.rows(row)
        hits = rows["topk_ids"][:, 0] == rows["gold_id"]
        right[MENTIONS] += hits[inside].tolist()
        right[OTHERS] += hits[~inside].tolist()
    return {kind: (len(hits), 100 * float(np.mean(hits))) for kind, hits in right.items()}


def table(found: Mapping[str, Mapping[str, tuple[int, float]]], split: str) -> dict[str, Any]:
    """The accuracies as a table of a report: a row for each teacher."""
    tokens = {kind: count for kind, (count, _) in next(iter(found.values())).items()}
    return {
        "format": 1,
        "title": f"How often the teachers are right, set {split}",
        "head": ["teacher", *(f"right {kind}, % of {count:,}" for kind, count in tokens.items())],
        "rows": [[teacher, *(round(per_cent, 2) for _, per_cent in one.values())] for teacher, one in found.items()],
        "remarks": [],
    }  # fmt: skip


if __name__ == "__main__":
    main()
