"""The relation experiment: its text, and its steps as the commands say them."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.entities import mention_accuracy, prepare_webnlg
from examples.entities.prepare_text import pair_of, split_graph
from examples.entities.prepare_webnlg import source_of, target_of
from examples.workflow.settings import load
from fairseq_bert_kd.report.read_tables import further_table
from fairseq_bert_kd.storage.triples import read_triples

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def graph(tmp_path):
    """60 entities, 300 triples of two relations; some pairs are linked twice."""
    rng = random.Random(1)
    triples = sorted(
        {
            (f"e{rng.randrange(60)}", rng.choice(("_has_part", "_verb_group")), f"e{rng.randrange(60)}")
            for _ in range(400)
        }
    )
    rng.shuffle(triples)
    for name, part in (("train", triples[:300]), ("dev", triples[300:340]), ("test", triples[340:])):
        (tmp_path / f"{name}.tsv").write_text("".join("\t".join(triple) + "\n" for triple in part))
    texts = (f"e{i}\tname {i}, what it is\n" for i in range(60))
    (tmp_path / "entity2text.txt").write_text("".join(texts))
    return tmp_path


def test_no_pair_of_a_set_is_linked_in_the_graph_or_learned_and_judged(graph):
    script = EXAMPLES / "entities" / "prepare_text.py"
    out = graph / "text"
    command = [sys.executable, script, "--data", graph, "--held-out", 100, "--rows", 20, "30", "--draws", 1, 2, "--out", out]  # fmt: skip
    child = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=EXAMPLES.parent
    )
    assert child.returncode == 0, child.stderr
    linked = set(map(pair_of, read_triples([out / "graph.tsv"])))
    read = {}
    for name in ("train.20.1", "train.20.2", "train.30.1", "valid", "test"):
        rows = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
        read[name] = [frozenset(entity for *_, entity in row["mentions"]) for row in rows]
        assert not linked & set(read[name])
        for row in rows:
            assert [
                text[begin:end]
                for text, (_, begin, end, _) in zip(row["texts"], row["mentions"], strict=True)
            ] == [f"name {entity[1:]}" for *_, entity in row["mentions"]]
        header, *lines = (out / f"{name}.tsv").read_text().splitlines()
        assert header == "head\ttail\trelation"
        labels = (out / f"{name}.label").read_text().splitlines()
        assert [line.split("\t")[2] for line in lines] == labels
        assert set(labels) <= {"has_part", "verb_group"}
        assert len(labels) == len(rows)
    assert len(read["train.20.1"]) == 20
    assert read["train.20.1"] != read["train.20.2"]
    assert read["train.30.1"][:20] == read["train.20.1"]
    assert not (set(read["valid"]) | set(read["test"])) & {
        pair for name in read if name.startswith("train") for pair in read[name]
    }


def test_the_graph_and_what_is_held_out_are_the_training_triples(graph):
    triples = read_triples([graph / "train.tsv"])
    kept, held_out = split_graph(triples, 100)
    assert len(kept) == 200
    assert not set(kept) & set(held_out)
    linked = set(map(pair_of, kept))
    left = [triple for triple in triples if triple not in set(kept) and pair_of(triple) in linked]
    assert len(held_out) + len(left) == 100


def test_rows_differ_by_what_they_read_of_the_entities():
    settings, kind = load(
        EXAMPLES / "entities" / "task.yaml", ["teacher=bert", "out=out", "data=data", "seeds=[2]"]
    )
    steps = {step.name: step for step in kind.steps(settings)}
    assert list(steps)[:3] == ["text", "data-2", "data-2-vectors"]
    assert "data" not in steps
    assert "--train text/train.1000.2.jsonl" in steps["data-2-vectors"].command
    words = {name: step.command.split() for name, step in steps.items()}
    own = {
        name: [word for word in words[f"students/{name}.2"] if word not in words["students/entities.2"]]
        for name in ("without", "shuffled", "random")
    }
    assert own == {
        "without": ["--entity-control", "none", "students/without.2"],
        "shuffled": ["--entity-control", "shuffled", "students/shuffled.2"],
        "random": ["--entity-control", "random", "students/random.2"],
    }
    assert "evaluate-sentences data-2 --path" in steps["outputs/entities.2.test"].command
    assert "text/train.1000.2 text/valid text/test" in steps["outputs/vectors.2.test"].command
    for step in steps.values():
        assert "{seed}" not in step.command


def test_a_source_is_its_triples_and_names_their_ends():
    text, mentions = source_of(
        ['Aarhus_Airport | cityServed | "Aarhus, Denmark"', "Aarhus_Airport | elevation | 25.0"]
    )
    assert text == "Aarhus Airport | cityServed | Aarhus, Denmark ; Aarhus Airport | elevation | 25.0"
    assert [(text[begin:end], entity) for begin, end, entity in mentions] == [
        ("Aarhus Airport", "Aarhus_Airport"),
        ("Aarhus, Denmark", '"Aarhus, Denmark"'),
        ("Aarhus Airport", "Aarhus_Airport"),
        ("25.0", "25.0"),
    ]
    row = {"text": "It is in Aarhus.", "mentions": [{"entity": "Aarhus", "begin": 9, "end": 15}, {"entity": "X", "begin": -1, "end": -1}]}  # fmt: skip
    assert target_of(row).mentions == [(9, 15, "Aarhus")]


def test_webnlg_is_prepared_without_categories_that_train_has_not(tmp_path, monkeypatch):
    row = {"category": "Food", "triples": ["A | is | B"], "text": "A is B.", "mentions": [{"entity": "A", "begin": 0, "end": 1}]}  # fmt: skip
    other = row | {"triples": ["A | has | B"], "text": "A has B."}
    for name, rows in (
        ("train", [row, row | {"text": " "}]),
        ("dev", [other, row]),  # the second one is in train
        ("test", [row | {"category": "Artist"}, other, other | {"text": "B is A's."}]),  # one source twice
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    monkeypatch.setattr(
        sys, "argv", ["prepare_webnlg.py", "--data", str(tmp_path), "--rows", "3", "--out", str(tmp_path)]
    )
    prepare_webnlg.main()
    for split, verb in (("train", "is"), ("valid", "has"), ("test", "has")):
        assert (tmp_path / f"{split}.text").read_text() == f"A {verb} B.\n"
        assert (tmp_path / f"{split}.triples").read_text() == f"A | {verb} | B\n"
    [line] = (tmp_path / "test.jsonl").read_text().splitlines()[-1:]
    assert json.loads(line)["mentions"] == [[0, 0, 1, "A"], [0, 10, 11, "B"], [1, 0, 1, "A"]]
    assert read_triples([tmp_path / "graph.tsv"]) == [("A", "is", "B")]


@pytest.mark.parametrize("name", ["webnlg", "no_harm"])
def test_the_other_experiments_have_their_steps(name):
    settings, kind = load(
        EXAMPLES / "entities" / f"{name}.yaml", ["teacher=bert", "out=out", "data=data", "seeds=[1]"]
    )
    steps = {step.name: step for step in kind.steps(settings)}
    mentions = steps["after-preprocess" if name == "webnlg" else "data-vectors"].command
    assert "fairseq-bert-kd entities data" in mentions
    compared = "students/entities.1"
    assert compared in steps
    if name == "webnlg":
        controls = {
            f"teacher{kind}": steps[f"teacher{kind}"].command for kind in ("", "-entities", "-shuffled")
        }
        assert ["none" in words.split() for words in controls.values()] == [True, False, False]
        assert ["shuffled" in words.split() for words in controls.values()] == [False, False, True]


class HandStore:
    """Three rows of a teacher's best tokens beside the right ones; the second row is missing."""

    best = [[7, 8, 2], None, [5, 5]]
    gold = [[7, 9, 2], None, [5, 6]]

    def is_missing(self, row):
        return self.best[row] is None

    def rows(self, row):
        best, gold = np.array(self.best[row]), np.array(self.gold[row])
        return {"topk_ids": np.stack([best, best + 1], axis=1), "gold_id": gold}


def test_accuracy_counts_tokens_of_mentions_and_others_apart():
    named = [np.array(row, dtype=bool) for row in ([1, 1, 0], [1, 1], [0, 1])]
    found = mention_accuracy.accuracies(HandStore(), named)
    # mentions: 7 right, 8 for 9, 5 for 6; others: 2 right, 5 right
    assert found == {"at tokens of mentions": (3, pytest.approx(100 / 3)), "at other tokens": (2, 100)}
    shown = further_table("mentions", mention_accuracy.table({"teacher": found}, "valid"))
    assert shown.head[1:] == ["right at tokens of mentions, % of 3", "right at other tokens, % of 2"]
    assert shown.rows == [["teacher", "33.33", "100"]]
