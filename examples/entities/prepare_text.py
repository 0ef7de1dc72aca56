"""Text of the relation experiment: WN18RR pairs that the graph does not link, each entity by its definition.

    python examples/entities/prepare_text.py --data wn18rr --rows 1000 --draws 1 2 3 --out text

wn18rr holds train.tsv, dev.tsv, test.tsv (head, relation and tail with tabs) and entity2text.txt (entity, tab, name and definition), each
also with .gz. Triples of train that are held out of the graph are those that classifiers learn from: the vectors have not seen
them. Pairs that the graph links in either direction are left out of all sets, and pairs of valid or test out of train.

Writes graph.tsv; train.ROWS.DRAW, valid and test as .tsv (head, tail, relation), .jsonl (mentions) and, for the report, .sentence and
.label.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairseq_bert_kd.storage.triples import Triple, read_triples
from fairseq_bert_kd.text_lines import open_lines, packed_or_not


class Row(NamedTuple):
    """A pair of entities with their texts, which begin with their names, and its relation."""

    texts: tuple[str, str]
    names: tuple[int, int]  # characters
    entities: tuple[str, str]
    relation: str


def pair_of(triple: Triple) -> frozenset[str]:
    """Both ends, in no order."""
    return frozenset((triple[0], triple[2]))


def split_graph(train: list[Triple], held_out: int) -> tuple[list[Triple], list[Triple]]:
    """Triples of the graph, and those held out of it whose pair it does not link, in an order of chance."""
    order = np.random.default_rng(1).permutation(len(train))
    graph = [train[i] for i in order[held_out:]]
    linked = set(map(pair_of, graph))
    return graph, [train[i] for i in order[:held_out] if pair_of(train[i]) not in linked]


def rows_of(triples: Iterable[Triple], texts: dict[str, str]) -> list[Row]:
    """Triples as texts; the name ends at the first comma, or is the whole text."""
    return [
        Row(
            (texts[head], texts[tail]),
            (len(texts[head].split(", ")[0]), len(texts[tail].split(", ")[0])),
            (head, tail),
            relation.lstrip("_"),
        )
        for head, relation, tail in triples
    ]


def write(stem: Path, rows: list[Row]) -> None:
    """A set, as the commands and as the report read it."""
    mentions = [
        {
            "texts": row.texts,
            "mentions": [[side, 0, row.names[side], row.entities[side]] for side in (0, 1)],
            "arguments": [0, 1],
        }
        for row in rows
    ]
    lines = {
        "tsv": ["head\ttail\trelation", *("\t".join((*row.texts, row.relation)) for row in rows)],
        "jsonl": [json.dumps(mention, ensure_ascii=False) for mention in mentions],
        "sentence": [" | ".join(row.texts) for row in rows],
        "label": [row.relation for row in rows],
    }
    for ending, written in lines.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        path.write_text("".join(f"{line}\n" for line in written), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--held-out", type=int, default=10000, help="training triples to keep out of the graph"
    )
    parser.add_argument("--rows", type=int, nargs="+", required=True, help="sizes of the training sets")
    parser.add_argument("--draws", type=int, nargs="+", default=[1], help="seeds, a training set for each")
    parser.add_argument("--valid-rows", type=int, default=500)
    parser.add_argument("--test-rows", type=int, help="default: all")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    texts = dict(
        line.rstrip("\n").split("\t", 1) for line in open_lines(packed_or_not(args.data / "entity2text.txt"))
    )
    read = {
        name: read_triples([packed_or_not(args.data / f"{name}.tsv")]) for name in ("train", "dev", "test")
    }
    graph, candidates = split_graph(read["train"], args.held_out)
    linked = set(map(pair_of, graph))
    sets = {
        "valid": [triple for triple in read["dev"] if pair_of(triple) not in linked][: args.valid_rows],
        "test": [triple for triple in read["test"] if pair_of(triple) not in linked][: args.test_rows],
    }
    judged = {pair_of(triple) for triples in sets.values() for triple in triples}
    candidates = [triple for triple in candidates if pair_of(triple) not in judged]
    for rows in args.rows:
        if rows > len(candidates):
            raise ValueError(
                f"--rows {rows:,}: there are {len(candidates):,} pairs to learn from; give fewer"
            )
        for draw in args.draws:
            order = np.random.default_rng(draw).permutation(len(candidates))
            sets[f"train.{rows}.{draw}"] = [candidates[i] for i in order[:rows]]
    (args.out / "graph.tsv").write_text(
        "".join("\t".join(triple) + "\n" for triple in graph), encoding="utf-8"
    )
    known = {entity for triple in graph for entity in pair_of(triple)}
    print(f"graph: {len(graph):,} triples, {len(known):,} entities; pairs to learn from: {len(candidates):,}")
    for name, triples in sets.items():
        write(args.out / name, rows_of(triples, texts))
        both = sum(pair_of(triple) <= known for triple in triples)
        print(f"{name}: {len(triples):,} pairs, both ends in the graph: {both:,}")


if __name__ == "__main__":
    main()
