"""How often a teacher's best token is the right one, at tokens of mentions and at the others, from its stores.

    python examples/entities/mention_accuracy.py data-bin valid --source-lang triples --target-lang text NAME [NAME ...]

Each NAME is a store of the split that `fairseq-bert-kd dump --gold --name NAME` wrote. Prints a JSON line a store.
"""

import argparse
import json

import numpy as np

from fairseq_bert_kd.storage.entity_mentions import MentionsByRow, read_mentions
from fairseq_bert_kd.storage.fairseq_data import open_pairs
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("split")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--source-lang", required=True)
    parser.add_argument("--target-lang", required=True)
    args = parser.parse_args()
    languages = (args.source_lang, args.target_lang)
    pairs = open_pairs(args.data, args.split, *languages)
    mentions = MentionsByRow(
        read_mentions(args.data, args.split, list(pairs.values())), len(pairs["target"]), 2
    )
    inside = []
    for row, size in enumerate(pairs["target"].sizes):
        named = np.zeros(size, dtype=bool)
        for begin, end, _ in mentions.spans(row)[1]:
            named[begin:end] = True
        inside.append(named)
    for name in args.names:
        reader = TopKReader(store_path(args.data, args.split, *languages, name))
        right: dict[bool, list[float]] = {True: [], False: []}
        for row, named in enumerate(inside):
            if reader.is_missing(row):
                continue
            rows = reader.rows(row)
            hits = rows["topk_ids"][:, 0] == rows["gold_id"]
            for kind in right:
                right[kind] += hits[named == kind].tolist()
        found = {"store": name, "mention tokens": len(right[True])}
        found["accuracy at mention tokens, %"] = round(100 * float(np.mean(right[True])), 2)
        found["accuracy at other tokens, %"] = round(100 * float(np.mean(right[False])), 2)
        print(json.dumps(found))


if __name__ == "__main__":
    main()
