"""Quora's paraphrases by cluster as training text, and what the evaluators learn from.

    python prepare_text.py --data DIR [--pairs N] [--other-clusters N] [--test-pairs N]

Reads ``quora_pairs.tsv.gz`` (columns cluster, split, source, target) and ``quora_labelled.tsv.gz`` (split, label, question1,
question2). Writes into ``text/``: train, valid and test, all references of a sentence, labelled pairs, and pairs of
other clusters. Whole clusters lie on one side of the split; that no sentence of the test set is in training is checked.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fairseq_bert_kd.data.negatives import shared_sentences
from fairseq_bert_kd.text_lines import open_lines


def rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table with a header."""
    header, *lines = (line.split("\t") for line in open_lines(path))
    return [dict(zip(header, line, strict=True)) for line in lines]


def write(name: str, lines: list[str]) -> None:
    Path("text", name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def main(args: argparse.Namespace) -> None:
    Path("text").mkdir(exist_ok=True)
    pairs = rows(Path(args.data, "quora_pairs.tsv.gz"))
    of_cluster: dict[str, dict[str, None]] = defaultdict(dict)
    by_split: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in pairs:
        of_cluster[row["cluster"]] |= {row["source"]: None, row["target"]: None}
        by_split[row["split"]].append(row)
    sets = {
        "train": by_split["train"][: args.pairs],
        "valid": by_split["valid"][: args.test_pairs],
        "test": by_split["test"][: args.test_pairs],
    }
    for split, chosen in sets.items():
        write(f"{split}.source", [row["source"] for row in chosen])
        write(f"{split}.target", [row["target"] for row in chosen])
        references = (
            [text for text in of_cluster[row["cluster"]] if text != row["source"]] for row in chosen
        )
        write(f"{split}.references", ["\t".join(texts) for texts in references])
    trained = {row["cluster"] for row in sets["train"]}
    others = [row for row in by_split["train"] if row["cluster"] not in trained]
    kept = set(list(dict.fromkeys(row["cluster"] for row in others))[: args.other_clusters])
    others = [row for row in others if row["cluster"] in kept]
    write(
        "other_pairs.tsv",
        ["cluster\tsource\ttarget", *("\t".join((r["cluster"], r["source"], r["target"])) for r in others)],
    )
    labelled = rows(Path(args.data, "quora_labelled.tsv.gz"))
    for split in ("train", "valid", "test"):
        lines = [
            "\t".join((r["question1"], r["question2"], r["label"])) for r in labelled if r["split"] == split
        ]
        write(f"labelled.{split}.tsv", ["question1\tquestion2\tis_duplicate", *lines])
    learned = [text for row in (*sets["train"], *others) for text in (row["source"], row["target"])]
    tested = [text for row in sets["test"] for text in (row["source"], row["target"])]
    if shared := shared_sentences(learned, tested):
        raise SystemExit(
            f"{len(shared)} sentences of the test set are in training, the first is {shared[0]!r}"
        )
    print(
        f"train {len(sets['train']):,}, valid {len(sets['valid']):,}, test {len(sets['test']):,} pairs; none shared"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--other-clusters", type=int, default=5_000)
    parser.add_argument("--test-pairs", type=int, default=None)
    main(parser.parse_args())
