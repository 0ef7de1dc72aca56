"""A graph in numbers, against its names."""

import random

import numpy as np
import pytest

from fairseq_bert_kd.storage.triples import Graph, numbered, read_graph, read_triples


def test_a_graph_by_hand(tmp_path):
    """Numbers follow the names, not the files; what comes again counts once, where it came first."""
    (tmp_path / "one.tsv").write_text("b\tr\tc\na\tq\tb\nb\tr\tc\n")
    (tmp_path / "other.tsv").write_text("a\tq\tb\nc\tr\tb\n")
    graph = read_graph([tmp_path / "one.tsv", tmp_path / "other.tsv"])
    assert graph.entities == {"a": 0, "b": 1, "c": 2}
    assert graph.relations == {"q": 0, "r": 1}
    assert graph.triples.tolist() == [[1, 1, 2], [0, 0, 1], [2, 1, 1]]


def test_a_graph_is_its_triples(tmp_path):
    rng = random.Random(1)
    lines = [f"e{rng.randrange(9)}\tr{rng.randrange(3)}\te{rng.randrange(9)}\n" for _ in range(300)]
    (tmp_path / "graph.tsv").write_text("".join(lines))
    graph, triples = read_graph([tmp_path / "graph.tsv"]), read_triples([tmp_path / "graph.tsv"])
    assert list(graph.entities) == sorted({triple[i] for triple in triples for i in (0, 2)})
    rows, others = numbered(triples, graph.entities, graph.relations)
    assert graph.triples.tolist() == rows.tolist()
    assert others == 0
    assert len(set(graph.keys(rows).tolist())) == len(rows) < 300


def test_too_many_entities_are_refused():
    """Of names only the number is asked."""
    last = np.array([[2**24 - 1, 2**14 - 1, 2**24 - 1]])
    assert Graph(range(2**24), range(2**14), last).keys(last).tolist() == [2**62 - 1]
    with pytest.raises(ValueError, match="16,777,216 entities and 32,768 relations, .* give --array"):
        Graph(range(2**24), range(2**15), last).keys(last)


@pytest.mark.parametrize("read", [read_graph, read_triples])
def test_lines_that_are_no_triples(tmp_path, read):
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(ValueError, match="no triples in .*empty.tsv; give files with at least one line"):
        read([tmp_path / "empty.tsv"])
    (tmp_path / "bad.tsv").write_text("a\tr\tb\na\tr\t \n")
    with pytest.raises(ValueError, match="bad.tsv, line 2: expected head, relation and tail with tabs"):
        read([tmp_path / "bad.tsv"])
