"""From a graph to a trained and evaluated model with entities, by the commands."""

import itertools
import json
import math
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.logging import metrics
from safetensors.torch import save_file

from fairseq_bert_kd.cli import entities
from fairseq_bert_kd.cli.entity_vectors import ranking
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.criterions.entity_typing import EntityTypingCriterion
from fairseq_bert_kd.evaluation.fairseq_output import read_sets
from fairseq_bert_kd.report.read_tables import further_table
from fairseq_bert_kd.storage import entity_mentions
from fairseq_bert_kd.storage.entity_mentions import read_mentions, read_types, type_names
from fairseq_bert_kd.storage.entity_vectors import EntityVectors, read_entity_vectors, write_entity_vectors
from fairseq_bert_kd.storage.fairseq_data import open_sides, sentence_files
from tests.tiny_chain import PLUGIN, build_teacher_folder, logged, run_fairseq
from tests.tiny_sentences import prepare, write_table

WORDS = ("eat", "man", "near", "people", "auf", "der", "ein", "und")


def cli(*words):
    return cli_main(list(map(str, words)))


def mentions_of(data, split):
    return read_mentions(data, split, list(open_sides(sentence_files(data, split), split).values()))


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


def test_mentions_of_other_pieces_than_those_of_the_training_are_refused(folder, tmp_path, capsys):
    """In evaluation, where training goes on, and of a student whose teacher has seen others."""
    data = shutil.copytree(folder / "data", tmp_path / "data")

    def train(updates, save_dir, *options):
        run_fairseq(
            "train", data, "--user-dir", PLUGIN, "--task", "entity_sentence_prediction", "--arch", "entity_encoder",
            "--encoder-layers", 2, "--encoder-hidden", 16, "--encoder-heads", 2, "--entity-vectors", folder / "graph.safetensors",
            "--optimizer", "adam", "--lr", 0.01, "--batch-size", 8, "--max-update", updates, "--save-dir", tmp_path / save_dir,
            "--no-epoch-checkpoints", "--num-workers", 0, "--no-progress-bar", "--cpu", *options,
        )  # fmt: skip

    labels = ("--criterion", "sentence_prediction")
    train(1, "model", *labels)
    path = tmp_path / "model/checkpoint_last.pt"
    spans = ("--linker", "dictionary", "--names", folder / "names.tsv", "--entity-span", "all", "--overwrite")
    assert cli("entities", data, "--vectors", folder / "graph.safetensors", *spans) == 0
    assert cli("evaluate-sentences", data, "--path", path, "--cpu") == 2
    assert "by --entity-span all, those that the model was trained with by first" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has --encoder-heads 2, which is 4 now: its weights would compute"):
        train(2, "model", *labels, "--encoder-heads", 4)
    with pytest.raises(Exception, match="Cannot load model parameters") as refused:  # fairseq's words for it
        train(2, "model", *labels)
    assert "on mentions of --entity-span first" in str(refused.value.__context__)
    learned = ("--criterion", "layer_distillation", "--layer-stage", "prediction", "--kd-teacher", path)
    with pytest.raises(ValueError, match="of --entity-span first, those of the student's data are of all"):
        train(1, "student", *learned)


def test_a_model_that_reads_entities_is_not_trained_without(folder, tmp_path):
    with pytest.raises(ValueError, match="give --task entity_sentence_prediction, or --arch hf_encoder"):
        run_fairseq(
            "train", folder / "data", "--user-dir", PLUGIN, "--task", "sentence_prediction_with_teacher", "--arch", "entity_encoder",
            "--encoder-layers", 2, "--encoder-hidden", 16, "--encoder-heads", 2, "--entity-vectors", folder / "graph.safetensors",
            "--criterion", "sentence_prediction", "--optimizer", "adam", "--lr", 0.01, "--batch-size", 8, "--max-update", 1,
            "--save-dir", tmp_path, "--num-workers", 0, "--no-progress-bar", "--cpu",
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_a_teacher_that_reads_entities_needs_batches_of_its_vectors(folder, tmp_path):
    others = read_entity_vectors(folder / "graph.safetensors")
    write_entity_vectors(tmp_path / "other.safetensors", EntityVectors(others.ids, others.vectors + 1))
    data = shutil.copytree(folder / "data", tmp_path / "data")
    linker = ("--linker", "dictionary", "--names", folder / "names.tsv", "--overwrite")
    assert cli("entities", data, "--vectors", tmp_path / "other.safetensors", *linker) == 0

    def train(data, save_dir, *options):
        run_fairseq(
            "train", data, "--user-dir", PLUGIN, "--encoder-layers", 2, "--encoder-hidden", 16, "--encoder-heads", 2, "--optimizer",
            "adam", "--lr", 0.01, "--batch-size", 8, "--max-update", 1, "--save-dir", tmp_path / save_dir, "--no-epoch-checkpoints",
            "--num-workers", 0, "--no-progress-bar", "--cpu", *options,
        )  # fmt: skip

    def reading(vectors):
        return "--task", "entity_sentence_prediction", "--arch", "entity_encoder", "--entity-vectors", vectors

    plain = ("--task", "sentence_prediction_with_teacher", "--arch", "hf_encoder")
    train(folder / "data", "teacher", *reading(folder / "graph.safetensors"), "--criterion", "sentence_prediction")  # fmt: skip
    teacher = ("--criterion", "layer_distillation", "--kd-teacher", tmp_path / "teacher/checkpoint_last.pt")
    predictions, layers = ((*teacher, "--layer-stage", stage) for stage in ("prediction", "intermediate"))
    with pytest.raises(ValueError, match=r"reads entities of .* the student's batches name none; train the"):
        train(folder / "data", "none", *plain, *predictions)
    with pytest.raises(ValueError, match="the student's batches name those of others"):
        train(data, "none", *reading(tmp_path / "other.safetensors"), *predictions)
    train(folder / "data", "student", *reading(folder / "graph.safetensors"), *predictions)
    with pytest.raises(ValueError, match="computed without calling their modules"):
        train(folder / "data", "none", *reading(folder / "graph.safetensors"), *layers)


def test_a_teacher_that_reads_at_arguments(folder, tmp_path):
    """Head and tail are the first word and the last one; the teacher's markers must be the student's."""
    data = shutil.copytree(folder / "data", tmp_path / "data")
    files = []
    for split in ("train", "valid"):
        lines = [line.split("\t")[0] for line in (folder / f"{split}.tsv").read_text().splitlines()[1:]]
        rows = (
            {"text": line, "mentions": [[0, line.index(" "), "Q"], [line.rindex(" ") + 1, len(line), line.split()[-1]]], "arguments": [0, 1]}
            for line in lines
        )  # fmt: skip
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        files += [f"--{split}", tmp_path / f"{split}.jsonl"]
    assert cli("entities", data, "--vectors", folder / "graph.safetensors", "--overwrite", *files) == 0

    def train(save_dir, *options, pieces="man,people"):
        run_fairseq(
            "train", data, "--user-dir", PLUGIN, "--task", "entity_sentence_prediction", "--arch", "entity_encoder",
            "--encoder-layers", 4, "--encoder-hidden", 16, "--encoder-heads", 2, "--entity-vectors", folder / "graph.safetensors",
            "--optimizer", "adam", "--lr", 0.01, "--batch-size", 8, "--max-update", 1, "--save-dir", tmp_path / save_dir,
            "--no-epoch-checkpoints", "--num-workers", 0, "--no-progress-bar", "--cpu", "--entity-markers", "relation",
            "--entity-marker-pieces", pieces, *options,
        )  # fmt: skip

    at_arguments = ("--entity-pooling", "arguments")
    train("teacher", "--criterion", "sentence_prediction", *at_arguments)
    teacher = ("--criterion", "layer_distillation", "--kd-teacher", tmp_path / "teacher/checkpoint_last.pt")
    predictions = (*teacher, "--layer-stage", "prediction")
    train("student", *predictions)
    train("student-at-arguments", *predictions, *at_arguments)
    with pytest.raises(
        ValueError, match=r"with --entity-markers relation \(man,people\), and .* relation \(near,eat\)"
    ):
        train("none", *predictions, pieces="near,eat")
    embeddings = ("--layer-stage", "intermediate", "--layer-hidden-weight", 0, "--layer-attention-weight", 0)
    with pytest.raises(ValueError, match="learn predictions and layers in two stages"):
        train("none", *teacher, *embeddings, "--layer-prediction-weight", 1)


def test_a_relation_between_markers(folder, tmp_path, capsys):
    """The head is the first word, the tail the last one; only the tail has a vector."""
    data = shutil.copytree(folder / "data", tmp_path / "data")
    files = []
    for split in ("train", "valid"):
        lines = [line.split("\t")[0] for line in (folder / f"{split}.tsv").read_text().splitlines()[1:]]
        rows = [
            {
                "text": line,
                "mentions": [[0, len(line), "longer"], [line.rindex(" ") + 1, len(line), line.split()[-1]], [0, line.index(" "), "Q"]],
                "arguments": [2, 1],
            }
            for line in lines
        ]  # fmt: skip
        path = tmp_path / f"{split}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        files += [f"--{split}", path]
    vectors = ("--vectors", folder / "graph.safetensors", "--overwrite")
    assert cli("entities", data, *vectors, *files) == 0
    assert "72 mentions; 24 carry a vector (50.0 %" in capsys.readouterr().out
    mentions = mentions_of(data, "train").rows
    assert mentions[:, 5].tolist() == [1, 2] * 24
    assert (mentions[:, 4] > 0).tolist() == [False, True] * 24

    def train(*options):
        run_fairseq(
            "train", data, "--user-dir", PLUGIN, "--task", "entity_sentence_prediction", "--arch", "entity_encoder",
            "--encoder-layers", 2, "--encoder-hidden", 16, "--encoder-heads", 2, "--entity-vectors", folder / "graph.safetensors",
            "--criterion", "sentence_prediction", "--optimizer", "adam", "--lr", 0.01, "--batch-size", 8, "--max-update", 1,
            "--save-dir", tmp_path, "--no-epoch-checkpoints", "--num-workers", 0, "--no-progress-bar", "--cpu",
            "--entity-markers", "relation", *options,
        )  # fmt: skip

    with pytest.raises(ValueError, match=r"`\[unused1\]` is not in the dictionary"):
        train()
    with pytest.raises(ValueError, match="must name 2 different pieces"):
        train("--entity-marker-pieces", "man")
    with logged("fairseq_bert_kd.tasks.entity_sentence_prediction") as messages:
        train("--entity-marker-pieces", "man,people")
        assert messages == []
        train("--entity-marker-pieces", "man,people", "--max-positions", 4, "--save-dir", tmp_path / "cut")
    assert "train: 24 of 24 rows lack an argument to mark (not named, or behind the cut)" in messages
    for other in (("--entity-markers", "none"), ("--entity-marker-pieces", "people,man")):
        with pytest.raises(
            ValueError, match=r"with --entity-markers relation \(man,people\), and the options say"
        ):
            train("--entity-marker-pieces", "man,people", *other)
    started = ("--finetune-from-model", tmp_path / "checkpoint_last.pt", "--save-dir", tmp_path / "started")
    train("--entity-markers", "none", *started)
    assert cli("evaluate-sentences", data, "--path", tmp_path / "checkpoint_last.pt", "--cpu") == 0
    at_arguments = (
        "--entity-pooling",
        "arguments",
        "--optimizer",
        "adam_by_part",
        "--lr-scales",
        "entities=10",
    )
    train("--entity-marker-pieces", "man,people", *at_arguments, "--save-dir", tmp_path / "arguments")
    trained = tmp_path / "arguments/checkpoint_last.pt"
    assert cli("evaluate-sentences", data, "--path", trained, "--cpu") == 0
    head = torch.load(trained, weights_only=True)["model"][
        "classification_heads.sentence_classification_head.output.weight"
    ]
    assert head.shape[1] == 2 * (16 + 8)
    assert cli("entities", data, *vectors, "--linker", "dictionary", "--names", folder / "names.tsv") == 0
    with pytest.raises(ValueError, match="no row of split `valid` names them"):
        train("--entity-marker-pieces", "man,people", "--save-dir", tmp_path / "other")
    (tmp_path / "m.jsonl").write_text(files[1].read_text().replace("[2, 1]", "[2, 0]"))
    capsys.readouterr()
    assert cli("entities", data, *vectors, "--train", tmp_path / "m.jsonl") == 2
    assert "row 1: the arguments" in capsys.readouterr().err


def test_typing_with_any_number_of_types(folder, tmp_path, capsys):
    """Rows of plain text; the first word is the mention."""
    lines = [f"{one} {other}" for one, other in itertools.pairwise(WORDS)]
    (tmp_path / "text.txt").write_text("".join(f"{line}\n" for line in lines))
    assert prepare(folder / "bert", tmp_path / "data", "--task", "plain", "--train", tmp_path / "text.txt", "--valid", tmp_path / "text.txt") == 0  # fmt: skip
    types = [["verb"], ["person", "being"], [], ["person", "being"], ["word"], [], ["word"]]
    rows = (
        {"text": line, "mentions": [[0, line.index(" "), line.split()[0]]], "arguments": [0], "types": own}
        for line, own in zip(lines, types, strict=True)
    )
    (tmp_path / "m.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert cli("entities", tmp_path / "data", "--vectors", folder / "graph.safetensors", "--train", tmp_path / "m.jsonl", "--valid", tmp_path / "m.jsonl") == 0  # fmt: skip
    assert type_names(tmp_path / "data") == ("being", "person", "verb", "word")
    table = read_types(tmp_path / "data", "train", len(lines))
    assert table.tolist()[:3] == [[0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]

    def train(criterion, data=tmp_path / "data"):
        run_fairseq(
            "train", data, "--user-dir", PLUGIN, "--task", "entity_sentence_prediction", "--arch", "entity_encoder",
            "--encoder-layers", 2, "--encoder-hidden", 16, "--encoder-heads", 2, "--entity-vectors", folder / "graph.safetensors",
            "--criterion", criterion, "--optimizer", "adam", "--lr", 0.01, "--batch-size", 4, "--max-update", 2,
            "--save-dir", tmp_path / "model", "--no-epoch-checkpoints", "--num-workers", 0, "--no-progress-bar", "--cpu",
            "--entity-markers", "typing", "--entity-marker-pieces", "eat", "--best-checkpoint-metric", "f1",
            "--maximize-best-checkpoint-metric",
        )  # fmt: skip

    with pytest.raises(ValueError, match="learns from labels"):
        train("sentence_prediction")
    train("entity_typing")
    state = torch.load(tmp_path / "model" / "checkpoint_last.pt", weights_only=False)
    assert 0 <= state["extra_state"]["val_loss"] <= 100  # F1
    assert state["model"]["classification_heads.sentence_classification_head.output.weight"].shape[0] == 4
    other = shutil.copytree(tmp_path / "data", tmp_path / "other")
    (tmp_path / "o.jsonl").write_text((tmp_path / "m.jsonl").read_text().replace('"verb"', '"action"'))
    assert cli("entities", other, "--vectors", folder / "graph.safetensors", "--overwrite", "--train", tmp_path / "o.jsonl", "--valid", tmp_path / "o.jsonl") == 0  # fmt: skip
    with pytest.raises(ValueError, match="types being, person, verb, word, those of .*other` action, being"):
        train("entity_typing", data=f"{tmp_path / 'data'}:{other}")
    path, out, scores = tmp_path / "model/checkpoint_last.pt", tmp_path / "out", tmp_path / "scores.json"
    words = (
        "evaluate-sentences",
        tmp_path / "data",
        "--path",
        path,
        "--cpu",
        "--predictions",
        out,
        "--json",
        scores,
    )
    assert cli(*words) == 0
    assert list(json.loads(scores.read_text())["scores"]) == ["micro_f1", "loose_f1", "strict_accuracy"]
    predicted = read_sets(out)
    assert len(predicted) == len(lines)
    assert {name for row in predicted for name in row} <= {"being", "person", "verb", "word"}
    out.write_text("".join(f"{chr(9).join(row)}\n" for row in types))
    assert (
        cli(
            "evaluate-sentences",
            tmp_path / "data",
            "--path",
            path,
            "--cpu",
            "--against",
            out,
            "--metric",
            "strict_accuracy",
        )
        == 0
    )
    assert "strict accuracy 100.00" in capsys.readouterr().out
    (tmp_path / "m.jsonl").write_text((tmp_path / "m.jsonl").read_text().replace('"verb"', '"action"'))
    assert cli("entities", tmp_path / "data", "--vectors", folder / "graph.safetensors", "--overwrite", "--train", tmp_path / "m.jsonl", "--valid", tmp_path / "m.jsonl") == 0  # fmt: skip
    with pytest.raises(
        ValueError, match="is for the types being, person, verb, word, the mentions of .* name action, being"
    ):
        train("entity_typing")


def test_typing_loss_by_hand():
    """Logits 0 and log 3 against 1 and 0: log 2 + log 4; the second sentence's set is right."""
    logits = torch.tensor([[0.0, math.log(3)], [-1.0, 2.0]])

    class Stub(torch.nn.Module):
        def forward(self, classification_head_name, features_only):
            return logits, {}

    criterion = EntityTypingCriterion(SimpleNamespace(target_dictionary=None, cfg=SimpleNamespace()))
    target = torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8)
    loss, size, log = criterion(Stub(), {"net_input": {}, "target": target, "ntokens": 4})
    second = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))
    torch.testing.assert_close(loss.item(), math.log(2) + math.log(4) + second, atol=1e-5, rtol=0)
    assert size == 2
    assert [int(log[key]) for key in ("hits", "found", "true", "exact")] == [1, 2, 2, 1]
    with metrics.aggregate() as logged:
        EntityTypingCriterion.reduce_metrics([log])
    assert logged.get_smoothed_values()["f1"] == 50.0
    with pytest.raises(ValueError, match="needs mentions with types"):
        criterion(Stub(), {"net_input": {}, "target": torch.tensor([1, 0]), "ntokens": 4})


def test_mentions_are_those_of_the_text(folder):
    mentions = mentions_of(folder / "data", "train")
    assert mentions.span == "first"
    table = [line.split("\t")[0].split() for line in (folder / "train.tsv").read_text().splitlines()[1:]]
    ids = (folder / "graph.txt").read_text().split()
    expected = [
        (row, ids.index(word) + 1) for row, words in enumerate(table) for word in words if word in ids
    ]
    assert [(int(row), int(entity)) for row, *_, entity, _ in mentions.rows] == expected


def test_names_with_accents_and_chinese_names_are_linked(folder, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("man near Z\u00fcrich\npeople in \u5317\u4eac\n")
    words = ("--task", "plain", "--full-dictionary", "--train", tmp_path / "text.txt")
    assert prepare(folder / "bert", tmp_path / "data", *words) == 0
    (tmp_path / "names.tsv").write_text("eat\tZ\u00fcrich\nauf\t\u5317\u4eac\nund\tBj\u00f6rk\n")
    base = (
        "entities",
        tmp_path / "data",
        "--vectors",
        folder / "graph.safetensors",
        "--linker",
        "dictionary",
    )
    capsys.readouterr()
    assert cli(*base, "--names", tmp_path / "names.tsv", "--subset", "train") == 0
    assert "2 of 3 names occur in the text" in capsys.readouterr().out
    ids = (folder / "graph.txt").read_text().split()
    assert mentions_of(tmp_path / "data", "train").rows[:, 4].tolist() == [
        ids.index("eat") + 1,
        ids.index("auf") + 1,
    ]


def test_refusals(folder, tmp_path, capsys):
    base = ("entities", folder / "data", "--vectors", folder / "graph.safetensors", "--overwrite")
    lines = [line.split("\t")[0] for line in (folder / "train.tsv").read_text().splitlines()[1:]]
    rows = [{"text": text, "mentions": [[0, len(text.split()[0]), "Q7"]]} for text in lines]

    def refused(rows, *options):
        (tmp_path / "m.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        assert cli(*base, "--train", tmp_path / "m.jsonl", *options) == 2
        return capsys.readouterr().err

    assert "0.0 % of the mentions have a vector, less than --min-coverage 20" in refused(rows)
    assert cli(*base, "--train", tmp_path / "m.jsonl") == 2
    assert "24 mentions, of 1 entity, have none" in capsys.readouterr().out
    assert "24 mentions are of entities without a vector" in refused(rows, "--unknown-entities", "error")
    for share in ("nan", "200", "-1"):
        assert "--min-coverage must be a share in percent, from 0 to 100" in refused(
            rows, "--min-coverage", share
        )
    assert "23 lines of mentions for 24 rows" in refused(rows[:23])
    assert "is not that of the data" in refused([{"text": "people", "mentions": []}, *rows[1:]])
    assert "row 1: mention 0 to 999" in refused([{"text": lines[0], "mentions": [[0, 999, "Q"]]}, *rows[1:]])
    assert "expected a JSON object" in refused([{"mentions": []}])
    two = {"text": lines[0], "mentions": [[0, len(lines[0].split()[0]), "Q7"]] * 2}
    for wrong in (
        {"mentions": [[-1, 0, 3, "Q7"]]},
        {"mentions": [[0, 2.5, "Q7"]]},
        {"mentions": [[0, 3, None]]},
        {"mentions": [[0, 3, {"id": "Q7"}]]},
        {"texts": ["man", "people"], "mentions": [[0, 3, "Q7"]]},  # of which text?
        {"arguments": [-1]},
        {"text": None},
        {"texts": lines[0]},
        {"types": "verb"},  # its letters are no types
    ):
        assert "line 1: expected a JSON object" in refused([two | wrong, *rows[1:]])
    assert "row 1: `types` are those of the mention that `arguments`" in refused([two | {"types": ["verb"]}, *rows[1:]])  # fmt: skip
    assert "row 1: `arguments` name one mention twice" in refused([two | {"arguments": [1, 1]}, *rows[1:]])
    assert "row 1: the arguments Q7 and Q7 overlap" in refused([two | {"arguments": [0, 1]}, *rows[1:]])
    assert "train: no mention inside the texts of 24 rows" in refused([{"text": text, "mentions": []} for text in lines])  # fmt: skip
    assert "row 1: text must be valid Unicode" in refused([{"text": "a \ud83d", "mentions": []}, *rows[1:]])
    assert cli(*base, "--train", tmp_path / "m.jsonl", "--names", folder / "names.tsv") == 2
    assert "nothing else reads it" in capsys.readouterr().err
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
    (tmp_path / "others.tsv").write_text("x\tbefore\ty\n")
    train = ("entity-vectors", "--triples", graph, "--output", tmp_path / "x.safetensors")
    for options, said in (
        (("--valid", tmp_path / "others.tsv"), "no triple of --valid is of the graph's entities"),
        (("--known", tmp_path / "others.tsv"), "there is no --valid"),
        (("--json", tmp_path / "x.json"), "--json is for the ranking of --valid"),
        (("--valid", tmp_path / "others.tsv", "--known", tmp_path / "none.tsv"), "none.tsv"),
        (("--array-ids", tmp_path / "others.tsv"), "nothing else reads them"),
    ):
        assert cli(*train, *options) == 2
        assert said in (captured := capsys.readouterr()).err
        assert "epoch 1" not in captured.out
    assert not list(tmp_path.glob("x.*"))


def test_mentions_behind_the_cut_are_left_out_and_counted(folder, tmp_path, capsys):
    """Three pieces are left of each row, beside two special ones; the mention of the third and the fourth goes."""
    (tmp_path / "text.txt").write_text("man people eat near\n" * 4)
    words = ("--task", "plain", "--max-tokens", 5, "--train", tmp_path / "text.txt")
    assert prepare(folder / "bert", tmp_path / "data", *words) == 0
    row = {"text": "man people eat near", "mentions": [[4, 10, "people"], [11, 19, "eat"], [15, 19, "near"]]}
    (tmp_path / "m.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    capsys.readouterr()
    assert cli("entities", tmp_path / "data", "--vectors", folder / "graph.safetensors", "--train", tmp_path / "m.jsonl") == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "12 mentions; 4 carry a vector (100.0 % of those inside the cut)" in said
    assert "4 overlap a longer one, 4 lie behind the cut" in said
    number = (folder / "graph.txt").read_text().split().index("people") + 1
    rows = mentions_of(tmp_path / "data", "train").rows.tolist()
    assert rows == [[row, 0, 1, 2, number, 0] for row in range(4)]


def test_a_split_without_types_has_none(folder, tmp_path):
    """Beside one that has them it would be one whose rows have no type at all."""
    (tmp_path / "text.txt").write_text("man\npeople\n")
    words = ("--task", "plain", "--train", tmp_path / "text.txt", "--valid", tmp_path / "text.txt")
    assert prepare(folder / "bert", tmp_path / "data", *words) == 0
    rows = [
        {"text": word, "mentions": [[0, len(word), word]], "arguments": [0]} for word in ("man", "people")
    ]
    files = [tmp_path / "train.jsonl", tmp_path / "valid.jsonl"]
    files[0].write_text("".join(f"{json.dumps(row | {'types': ['word']})}\n" for row in rows))
    files[1].write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert cli("entities", tmp_path / "data", "--vectors", folder / "graph.safetensors", "--train", files[0], "--valid", files[1]) == 0  # fmt: skip
    assert read_types(tmp_path / "data", "train", 2).tolist() == [[1], [1]]
    with pytest.raises(FileNotFoundError, match="of split `valid` .* have no types"):
        read_types(tmp_path / "data", "valid", 2)


def test_the_ranking_is_printed_and_written(tmp_path, capsys):
    (tmp_path / "graph.tsv").write_text("a\tr\tb\nb\tr\tc\nc\tr\td\n")
    (tmp_path / "valid.tsv").write_text("a\tr\tc\nb\tr\td\n")
    files = ("--triples", tmp_path / "graph.tsv", "--valid", tmp_path / "valid.tsv")
    words = ("entity-vectors", *files, "--dim", 4, "--epochs", 2, "--json", tmp_path / "table-ranking.json")
    assert cli(*words, "--output", tmp_path / "x.safetensors") == 0
    assert "filtered ranking of 2 triples, both sides: MRR " in capsys.readouterr().out
    table = further_table("ranking", json.loads((tmp_path / "table-ranking.json").read_text()))
    assert table.head == ["TransE", "triples", "MRR", "Hits@1", "Hits@3", "Hits@10", "mean rank"]
    ((name, triples, *_, last, _),) = table.rows
    assert (name[:22], triples, last) == ("dim 4, norm 1, margin ", "2", "100")  # of four entities
    assert cli(*words, "--output", tmp_path / "y.safetensors") == 2
    assert "table-ranking.json` exists; pass --overwrite" in capsys.readouterr().err
    assert not list(tmp_path.glob("y.*"))


def test_ranking_by_hand():
    assert ranking(torch.tensor([1.0, 2.0, 4.0, 20.0])) == pytest.approx(
        {"MRR": 0.45, "Hits@1": 25, "Hits@3": 50, "Hits@10": 75, "mean rank": 7}
    )


def test_vectors_of_a_library(tmp_path, capsys):
    """PyKEEN's entity_to_id.tsv, in any order of its lines."""
    np.save(tmp_path / "array.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    (tmp_path / "ids.tsv").write_text("id\tlabel\n2\tc\n0\ta\n1\tb\n")
    output = tmp_path / "own.safetensors"
    words = (
        "entity-vectors",
        "--array",
        tmp_path / "array.npy",
        "--array-ids",
        tmp_path / "ids.tsv",
        "--output",
        output,
    )
    assert cli(*words, "--dim", 100) == 2
    assert "--dim is of TransE, and --array trains nothing; leave it out" in capsys.readouterr().err
    assert not output.exists()
    assert cli(*words) == 0
    assert output.with_suffix(".txt").read_text().split() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("array", "ids", "said"),
    [
        (np.ones((2, 3), np.complex64), "a\nb\n", "holds complex numbers"),  # half of each would be lost
        (np.array([["1", "2"], ["3", "4"]]), "a\nb\n", "is not a .npy file of numbers"),
        (None, "a\nb\n", "is not a .npy file of numbers"),
        (np.ones((2, 0)), "a\nb\n", "got an array of shape (2, 0)"),
        (np.eye(2), "0\ta\tQ1\n1\tb\tQ2\n", "expected a label on each line"),  # the ids would be 0 and 1
        (np.eye(2), "a\n\n", "expected a label on each line"),
        (np.eye(2), "0\ta\n0\tb\n", "expected the numbers 0 to 1"),
        (np.eye(2), "a\t0\nb\t1\n", "expected the numbers 0 to 1"),
        (np.eye(2), "", "expected a label on each line"),
    ],
)
def test_arrays_that_are_no_vectors_of_their_ids_are_refused(tmp_path, capsys, array, ids, said):
    if array is None:
        (tmp_path / "array.npy").write_bytes(b"")
    else:
        np.save(tmp_path / "array.npy", array)
    (tmp_path / "ids.tsv").write_text(ids)
    words = ("--array", tmp_path / "array.npy", "--array-ids", tmp_path / "ids.tsv")
    assert cli("entity-vectors", *words, "--output", tmp_path / "own.safetensors") == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("own.*"))


def test_mentions_of_other_splits_stay_and_mixed_files_are_found(folder, tmp_path, capsys):
    data = shutil.copytree(folder / "data", tmp_path / "data")
    vectors = (
        "--vectors",
        folder / "graph.safetensors",
        "--linker",
        "dictionary",
        "--names",
        folder / "names.tsv",
    )
    (data / "entities.json").unlink(missing_ok=True)
    assert cli("entities", data, *vectors, "--subset", "train", "--min-coverage", 0) == 0
    train = mentions_of(data, "train").rows
    assert cli("entities", data, *vectors, "--subset", "valid", "--min-coverage", 0) == 0
    assert (mentions_of(data, "train").rows == train).all()
    assert cli("entities", data, *vectors, "--subset", "valid") == 2
    assert "has mentions of valid already" in capsys.readouterr().err
    assert cli("entities", data, *vectors, "--subset", "valid", "--entity-span", "all") == 2
    assert "of other vectors or another --entity-span already" in capsys.readouterr().err
    changed = train.copy()
    changed[0, 2:4] += 1
    np.save(data / "train.entities.npy", changed)
    with pytest.raises(ValueError, match="is not what entities.json describes"):
        mentions_of(data, "train")


def test_rows_are_hashed_in_blocks(folder, monkeypatch):
    texts = list(open_sides(sentence_files(folder / "data", "train"), "train").values())
    whole = entity_mentions.rows_digest(texts)
    monkeypatch.setattr(entity_mentions, "_BLOCK", 5)
    assert entity_mentions.rows_digest(texts) == whole


def test_vectors_with_other_ids_beside_them_are_refused(folder, tmp_path):
    for suffix in ("safetensors", "txt"):
        shutil.copy(folder / f"graph.{suffix}", tmp_path)
    ids = tmp_path / "graph.txt"
    names = ids.read_text().splitlines()
    ids.write_text("".join(f"{name}\n" for name in reversed(names)))
    with pytest.raises(ValueError, match="does not hold the ids that"):
        read_entity_vectors(tmp_path / "graph.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64])
def test_vectors_of_numbers_that_float32_does_not_hold_are_refused(tmp_path, dtype):
    save_file({"entities": torch.ones(2, 3, dtype=dtype)}, tmp_path / "graph.safetensors")
    (tmp_path / "graph.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="expected float32; save them again"):
        read_entity_vectors(tmp_path / "graph.safetensors")


@pytest.mark.parametrize("option", ["--triples", "--valid", "--known"])
def test_a_graph_is_not_replaced_by_the_ids_of_its_vectors(tmp_path, capsys, option):
    lines = {"graph": "a\tr\tb\nb\tr\tc\n", "valid": "a\tr\tc\n", "known": "c\tr\ta\n"}
    for name, text in lines.items():
        (tmp_path / f"{name}.txt").write_text(text)
    files = {"--triples": "graph.txt", "--valid": "valid.txt", "--known": "known.txt"}
    words = [word for name, file in files.items() for word in (name, tmp_path / file)]
    output = (tmp_path / files[option]).with_suffix(".safetensors")
    assert cli("entity-vectors", *words, "--dim", 4, "--epochs", 1, "--output", output, "--overwrite") == 2
    assert f"would replace `{tmp_path / files[option]}`, which this command reads" in capsys.readouterr().err
    assert not output.exists()
    assert {name: (tmp_path / f"{name}.txt").read_text() for name in lines} == lines


@pytest.mark.parametrize("option", ["--margin", "--lr"])
@pytest.mark.parametrize("value", ["nan", "inf", "0"])
def test_margin_and_learning_rate_are_numbers_above_0(folder, tmp_path, capsys, option, value):
    words = ("--triples", folder / "graph.tsv", option, value, "--output", tmp_path / "g.safetensors")
    assert cli("entity-vectors", *words) == 2
    assert "--margin and --lr must be finite numbers above 0" in capsys.readouterr().err


def test_mentions_of_all_data_folders_are_looked_at_before_the_first_epoch(folder, tmp_path):
    other = shutil.copytree(folder / "data", tmp_path / "other")

    def train(**changes):
        described = json.loads((folder / "data/entities.json").read_text()) | changes
        (other / "entities.json").write_text(json.dumps(described))
        run_fairseq(
            "train", f"{folder / 'data'}:{other}", "--user-dir", PLUGIN, "--task", "entity_sentence_prediction", "--arch",
            "entity_encoder", "--encoder-layers", 2, "--encoder-hidden", 16, "--encoder-heads", 2, "--entity-vectors",
            folder / "graph.safetensors", "--criterion", "sentence_prediction", "--optimizer", "adam", "--batch-size", 8,
            "--max-epoch", 2, "--save-dir", tmp_path / "model", "--num-workers", 0, "--no-progress-bar", "--cpu",
        )  # fmt: skip

    with pytest.raises(FileNotFoundError, match=r"split `train` of `.*other` has no mentions"):
        train(splits={})
    with pytest.raises(ValueError, match="other` are of other entity vectors"):
        train(vectors="0" * 64)
    with pytest.raises(ValueError, match="mark pieces by --entity-span first, those of .* by all"):
        train(span="all")
    assert not list(tmp_path.glob("model/*.pt"))
    train()
    assert (tmp_path / "model/checkpoint2.pt").exists()


def test_the_mentions_of_the_page_are_read_and_name_their_words(tmp_path):
    page = (PLUGIN.parent / "docs/entities.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"```json\n(.*?)```", page, flags=re.S)
    (tmp_path / "mentions.jsonl").write_text(lines)
    rows = list(entities._read(str(tmp_path / "mentions.jsonl")))
    named = [
        [text[mention.begin : mention.end] for mention in mentions]
        for row in rows
        for text, mentions in zip(row.texts, row.mentions, strict=True)
    ]
    assert named == [["Bob Dylan"], ["tree"], ["plant"]]
