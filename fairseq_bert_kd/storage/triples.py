"""Triples of a knowledge graph: tab-separated files of head, relation and tail."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.text_lines import open_lines

Triple = tuple[str, str, str]


def read_triples(paths: Sequence[str | Path]) -> list[Triple]:
    """Triples of some files, those that come again once.

    Raises:
        OSError: a file cannot be read.
        ValueError: a line is not head, relation and tail between two tabs, or there is none.
    """
    found: dict[Triple, None] = {}
    for path in paths:
        for number, line in enumerate(open_lines(path), start=1):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != 3 or not all(field.strip() for field in fields):
                raise ValueError(
                    f"{path}, line {number:,}: expected head, relation and tail with tabs between them, got {line.rstrip()[:60]!r}; "
                    "convert the file"
                )
            found[fields[0], fields[1], fields[2]] = None
    if not found:
        raise ValueError(f"no triples in {', '.join(map(str, paths))}; give files with at least one line")
    return list(found)


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
