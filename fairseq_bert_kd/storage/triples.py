"""Triples of a knowledge graph: tab-separated files of head, relation and tail."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.text_lines import open_lines

Triple = tuple[str, str, str]


class Graph(NamedTuple):
    """A graph in numbers, which take far less memory than names.

    Attributes:
        entities: number of each entity, in the order of their names.
        relations: number of each relation, likewise.
        triples: ``(n, 3)`` int64 head, relation and tail, each triple once, in the order of the files.
    """

    entities: dict[str, int]
    relations: dict[str, int]
    triples: NDArray[np.int64]

    def keys(self, triples: NDArray[np.int64]) -> NDArray[np.int64]:
        """``(n,)`` a number for each of ``(n, 3)`` triples, different for different ones.

        Raises:
            ValueError: there are too many for 63 bits.
        """
        head, relation, tail = triples.T
        if len(self.entities) ** 2 * len(self.relations) >= 2**63:
            raise ValueError(
                f"the graph has {len(self.entities):,} entities and {len(self.relations):,} relations, more than this command can tell "
                "apart; train the vectors with a library for large graphs, and give --array"
            )
        return (head * len(self.relations) + relation) * len(self.entities) + tail


def read_graph(paths: Sequence[str | Path]) -> Graph:
    """The graph of some files.

    Raises:
        OSError: a file cannot be read.
        ValueError: as `read_triples`, or too many entities.
    """
    entities: dict[str, int] = {}
    relations: dict[str, int] = {}
    read = array("q")
    for head, relation, tail in _lines(paths):
        read.append(entities.setdefault(head, len(entities)))
        read.append(relations.setdefault(relation, len(relations)))
        read.append(entities.setdefault(tail, len(entities)))
    triples = np.frombuffer(read, np.int64).reshape(-1, 3)
    entities, by_name = _by_name(entities)
    relations, relations_by_name = _by_name(relations)
    for column, numbers in enumerate((by_name, relations_by_name, by_name)):
        triples[:, column] = numbers[triples[:, column]]
    graph = Graph(entities, relations, triples)
    _, first = np.unique(graph.keys(triples), return_index=True)
    return graph._replace(triples=triples[np.sort(first)])


def _by_name(numbers: dict[str, int]) -> tuple[dict[str, int], NDArray[np.int64]]:
    """Names numbered in their order, and the new number of each old one."""
    ordered = sorted(numbers)
    new = np.empty(len(ordered), np.int64)
    new[[numbers[name] for name in ordered]] = np.arange(len(ordered))
    return {name: number for number, name in enumerate(ordered)}, new


def read_triples(paths: Sequence[str | Path]) -> list[Triple]:
    """Triples of some files by their names, those that come again once; for a large graph see `read_graph`.

    Raises:
        OSError: a file cannot be read.
        ValueError: a line is not head, relation and tail between two tabs, or there is none.
    """
    return list(dict.fromkeys(_lines(paths)))


def _lines(paths: Sequence[str | Path]) -> Iterator[Triple]:
    """Triples line by line."""
    found = False
    for path in paths:
        for number, line in enumerate(open_lines(path), start=1):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != 3 or not all(field.strip() for field in fields):
                raise ValueError(
                    f"{path}, line {number:,}: expected head, relation and tail with tabs between them, got {line.rstrip()[:60]!r}; "
                    "convert the file"
                )
            found = True
            yield fields[0], fields[1], fields[2]
    if not found:
        raise ValueError(f"no triples in {', '.join(map(str, paths))}; give files with at least one line")


def numbered(
    triples: Sequence[Triple], entities: Mapping[str, int], relations: Mapping[str, int]
) -> tuple[NDArray[np.int64], int]:
    """``(n, 3)`` numbers of triples all of whose parts are known, and how many others there are."""
    rows = [
        (entities[head], relations[relation], entities[tail])
        for head, relation, tail in triples
        if head in entities and tail in entities and relation in relations
    ]
    return np.array(rows, np.int64).reshape(-1, 3), len(triples) - len(rows)
