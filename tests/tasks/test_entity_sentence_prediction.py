"""From a graph to a trained and evaluated model with entities, by the commands."""

import itertools
import json

import numpy as np
import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.storage.entity_mentions import read_mentions
from tests.tiny_chain import PLUGIN, build_teacher_folder, run_fairseq
from tests.tiny_sentences import prepare, write_table

WORDS = ("eat", "man", "near", "people", "auf", "der", "ein", "und")


def cli(*words):
    return cli_main(list(map(str, words)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("entities")
    build_teacher_folder("bert", folder / "bert")
    tables = {
        name: write_table(folder / f"{name}.tsv", 24, seed=i) for i, name in enumerate(("train", "valid"))
    }
    splits = [word for name, table in tables.items() for word in (f"--{name}", table)]
    columns = ("--columns", "text", "--label-column", "label")
    assert prepare(folder / "bert", folder / "data", *columns, *splits) == 0
    triples = [f"{a}\tbefore\t{b}" for a, b in itertools.pairwise(WORDS)]
    (folder / "graph.tsv").write_text("".join(f"{line}\n" for line in triples))
    (folder / "names.tsv").write_text("".join(f"{word}\t{word}\n" for word in (*WORDS, "a")))
    assert cli("entity-vectors", "--triples", folder / "graph.tsv", "--dim", 8, "--epochs", 3, "--output", folder / "graph.safetensors") == 0  # fmt: skip
    assert cli("entities", folder / "data", "--vectors", folder / "graph.safetensors", "--linker", "dictionary", "--names", folder / "names.tsv") == 0  # fmt: skip
    return folder


def test_training_and_evaluation(folder, tmp_path, capsys):
    run_fairseq(
        "train", folder / "data", "--user-dir", PLUGIN, "--task", "entity_sentence_prediction", "--arch", "entity_encoder",
        "--encoder-layers", 2, "--encoder-hidden", 16, "--encoder-heads", 2, "--entity-vectors", folder / "graph.safetensors",
        "--criterion", "sentence_prediction", "--optimizer", "adam", "--lr", 0.01, "--batch-size", 8, "--max-update", 3,
        "--save-dir", tmp_path, "--no-epoch-checkpoints", "--num-workers", 0, "--no-progress-bar", "--cpu",
    )  # fmt: skip
    path = tmp_path / "checkpoint_last.pt"
    assert (
        cli("evaluate-sentences", folder / "data", "--path", path, "--cpu", "--predictions", tmp_path / "out")
        == 0
    )
    assert len((tmp_path / "out").read_text().splitlines()) == 24
    capsys.readouterr()
    assert cli("evaluate-sentences", folder / "data", "--path", path, "--cpu", "--input", folder / "valid.tsv", "--columns", "text", "--label-column", "label") == 2  # fmt: skip
    assert "no mentions of entities" in capsys.readouterr().err
    assert cli("export-student", path, "--format", "transformers", "--tokenizer", folder / "bert", "--output", tmp_path / "served") == 2  # fmt: skip
    assert "entity stream" in capsys.readouterr().err


def test_mentions_are_those_of_the_text(folder):
    mentions = read_mentions(folder / "data", "train")
    assert mentions.span == "first"
    table = [line.split("\t")[0].split() for line in (folder / "train.tsv").read_text().splitlines()[1:]]
    ids = (folder / "graph.txt").read_text().split()
    expected = [
        (row, ids.index(word) + 1) for row, words in enumerate(table) for word in words if word in ids
    ]
    assert [(int(row), int(entity)) for row, *_, entity in mentions.rows] == expected


def test_refusals(folder, tmp_path, capsys):
    base = ("entities", folder / "data", "--vectors", folder / "graph.safetensors", "--overwrite")
    lines = [line.split("\t")[0] for line in (folder / "train.tsv").read_text().splitlines()[1:]]
    rows = [{"text": text, "mentions": [[0, len(text.split()[0]), "Q7"]]} for text in lines]

    def refused(rows, *options):
        (tmp_path / "m.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        assert cli(*base, "--train", tmp_path / "m.jsonl", *options) == 2
        return capsys.readouterr().err

    assert "0.0 % of the mentions have a vector, less than --min-coverage 20" in refused(rows)
    assert "24 mentions are of entities without a vector" in refused(rows, "--unknown-entities", "error")
    assert "23 lines of mentions for 24 rows" in refused(rows[:23])
    assert "is not that of the data" in refused([{"text": "people", "mentions": []}, *rows[1:]])
    assert "row 1: mention 0 to 999" in refused([{"text": lines[0], "mentions": [[0, 999, "Q"]]}, *rows[1:]])
    assert "expected a JSON object" in refused([{"mentions": []}])
    (tmp_path / "bad.tsv").write_text("a b c\n")
    assert (
        cli("entity-vectors", "--triples", tmp_path / "bad.tsv", "--output", tmp_path / "x.safetensors") == 2
    )
    assert "expected head, relation and tail with tabs" in capsys.readouterr().err
    graph = folder / "graph.tsv"
    assert (
        cli("entity-vectors", "--triples", graph, "--valid", graph, "--output", tmp_path / "x.safetensors")
        == 2
    )
    assert "7 of 7 triples of --valid are in the graph too" in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))


def test_vectors_of_a_library(tmp_path):
    """PyKEEN's entity_to_id.tsv, in any order of its lines."""
    np.save(tmp_path / "array.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    (tmp_path / "ids.tsv").write_text("id\tlabel\n2\tc\n0\ta\n1\tb\n")
    output = tmp_path / "own.safetensors"
    assert cli("entity-vectors", "--array", tmp_path / "array.npy", "--array-ids", tmp_path / "ids.tsv", "--output", output) == 0  # fmt: skip
    assert output.with_suffix(".txt").read_text().split() == ["a", "b", "c"]
