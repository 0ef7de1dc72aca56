"""Text of the WebNLG experiment: triples as sources, sentences as targets, and the entities that both name.

    python examples/entities/prepare_webnlg.py --data webnlg --out text

webnlg holds {train,dev,test}.jsonl or the same with .gz: objects with `category`, `triples` ("subject | predicate | object"), `text`,
and `mentions` with `entity`, `begin` and `end` in characters of the text (-1 where a mention was not found). dev becomes valid. Rows of
categories that train has not are left out: their entities have no vectors. Validation and test have each source once, with its
first text, and no source or text of train. A source is its triples with spaces for underscores,
joined by semicolons; subjects and objects are its mentions.

Writes SPLIT.triples and SPLIT.text, SPLIT.jsonl (mentions of both), and graph.tsv, the triples of the training split.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_bert_kd.text_lines import open_lines, packed_or_not

SPLITS = {"train": "train", "dev": "valid", "test": "test"}


class Side(NamedTuple):
    """A text and its mentions: first character, the one after the last, and entity."""

    text: str
    mentions: list[tuple[int, int, str]]


def source_of(triples: list[str]) -> Side:
    """Triples as one line."""
    text, mentions = "", []
    for number, triple in enumerate(triples):
        head, predicate, tail = triple.split(" | ")
        text += " ; " if number else ""
        for place, part in enumerate((head, predicate, tail)):
            text += " | " if place else ""
            shown = " ".join(part.replace("_", " ").strip('"').split())
            if place != 1 and shown:
                mentions.append((len(text), len(text) + len(shown), part))
            text += shown
    return Side(text, mentions)


def target_of(row: dict[str, Any]) -> Side:
    """The sentence, with the mentions that were found in it as whole words."""
    text = row["text"]
    found = [
        (begin, end, mention["entity"])
        for mention in row["mentions"]
        if 0 <= (begin := mention["begin"]) < (end := mention["end"])
        and not text[end : end + 1].isalnum()
        and not text[max(begin - 1, 0) : begin].isalnum()
    ]
    return Side(text, found)


def one_of_each(pairs: list[tuple[Side, Side]]) -> list[tuple[Side, Side]]:
    """The first pair of each source: sentences of a test must not depend on each other."""
    found: dict[str, tuple[Side, Side]] = {}
    for pair in pairs:
        found.setdefault(pair[0].text, pair)
    return list(found.values())


def write(folder: Path, split: str, pairs: list[tuple[Side, Side]]) -> None:
    """A set: both texts, and the mentions of both."""
    for ending, side in (("triples", 0), ("text", 1)):
        written = "".join(f"{pair[side].text}\n" for pair in pairs)
        (folder / f"{split}.{ending}").write_text(written, encoding="utf-8")
    rows = (
        {
            "texts": [side.text for side in pair],
            "mentions": [[number, *mention] for number, side in enumerate(pair) for mention in side.mentions],
        }
        for pair in pairs
    )
    written = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(written, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="first rows of each split (default: all)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    graph: list[str] = []
    categories: set[str] = set()
    known: set[str] = set()  # texts of train
    for name, split in SPLITS.items():
        lines = open_lines(packed_or_not(args.data / f"{name}.jsonl"))
        read = (row for row in map(json.loads, lines) if name == "train" or row["category"] in categories)
        rows = list(itertools.islice(read, args.rows))
        categories |= {row["category"] for row in rows}
        rows = [row for row in rows if "\n" not in row["text"] and row["text"].strip()]
        pairs = [(source_of(row["triples"]), target_of(row)) for row in rows]
        if name == "train":
            known = {side.text for pair in pairs for side in pair}
            graph = ["\t".join(triple.split(" | ")) for row in rows for triple in row["triples"]]
        else:
            pairs = [pair for pair in one_of_each(pairs) if not known & {side.text for side in pair}]
        write(args.out, split, pairs)
        print(f"{split}: {len(pairs):,} pairs")
    once = dict.fromkeys(graph)
    (args.out / "graph.tsv").write_text("".join(f"{triple}\n" for triple in once), encoding="utf-8")
    print(f"graph: {len(once):,} triples")


if __name__ == "__main__":
    main()
