"""The command on a tiny model: scores by hand, tests against other predictions, vectors, and refusals."""

import json
import re

import numpy as np
import pytest
import torch

from fairseq_bert_kd.cli import sentence_predictions
from fairseq_bert_kd.cli.main import cli_main
from tests.tiny_chain import CPU
from tests.tiny_sentences import prepare, train, write_table
from tests.tokenization.tiny_tokenizers import build_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables, folders, and checkpoints on classes, numbers of pairs, and unlabelled text."""
    root = tmp_path_factory.mktemp("sentences")
    build_tokenizer("bert_uncased", root / "bert")
    common = ("--label-column", "label", "--full-dictionary")
    for name, pairs, labels, kind, updates in (
        ("classes", False, ("bad", "good"), (), 30),
        ("numbers", True, ("0.5", "4"), ("--label-kind", "numbers"), 30),
    ):
        tables = [
            write_table(root / f"{name}.{split}", rows, rows, pairs, labels)
            for split, rows in (("train", 60), ("valid", 20))
        ]
        given = (
            "--columns",
            "text,other" if pairs else "text",
            *common,
            *kind,
            "--train",
            tables[0],
            "--valid",
            tables[1],
        )
        assert prepare(root / "bert", root / f"data-{name}", *given) == 0
        regression = ("--regression-target",) if kind else ()
        train(root / f"data-{name}", root / name, *regression, updates=updates)
    return root


def evaluate(folder, name, *arguments):
    words = [folder / f"data-{name}", "--path", folder / name / "checkpoint_last.pt", *CPU, *arguments]
    return cli_main(["evaluate-sentences", *map(str, words)])


def labels(folder, name):
    return [line.split("\t")[-1] for line in (folder / f"{name}.valid").read_text().splitlines()[1:]]


def test_classes(folder, tmp_path, capsys):
    out, scores = tmp_path / "predictions", tmp_path / "scores.json"
    assert evaluate(folder, "classes", "--predictions", out, "--json", scores) == 0
    assert out.read_text().splitlines() == labels(folder, "classes")
    said = capsys.readouterr().out
    assert "valid: 20 rows in" in said
    assert re.search(r"^accuracy +100\.00  \[100\.00, 100\.00\]$", said, flags=re.M)
    assert "accuracy|classes by name" in said
    stored = json.loads(scores.read_text())
    assert stored["scores"]["f1"] == {"score": 100.0, "low": 100.0, "high": 100.0}
    assert list(stored["scores"]) == ["accuracy", "f1", "mcc"]


def test_the_order_of_the_rows_is_the_file_s(folder, tmp_path):
    """Batches go by length."""
    one, other = tmp_path / "one", tmp_path / "other"
    assert evaluate(folder, "numbers", "--predictions", one, "--batch-size", 3) == 0
    assert evaluate(folder, "numbers", "--predictions", other, "--batch-size", 64) == 0
    one, other = (np.loadtxt(path) for path in (one, other))
    assert np.allclose(one, other, atol=1e-5)
    assert np.corrcoef(one, [float(label) for label in labels(folder, "numbers")])[0, 1] > 0.8


def test_a_paired_test_against_other_predictions(folder, tmp_path, capsys):
    other = labels(folder, "classes")
    for place in range(6):
        other[place] = "good" if other[place] == "bad" else "bad"
    (tmp_path / "other").write_text("".join(f"{name}\n" for name in other))
    assert evaluate(folder, "classes", "--against", tmp_path / "other") == 0
    said = capsys.readouterr().out
    # six sentences that only one has right: 2 * (1/2)^6
    assert "accuracy 70.00, +30.00, p = 0.031 (McNemar" in said


def test_numbers(folder, tmp_path, capsys):
    (tmp_path / "other").write_text("".join(f"{number}\n" for number in np.linspace(0, 1, 20)))
    assert evaluate(folder, "numbers", "--metric", "pearson", "--against", tmp_path / "other") == 0
    said = capsys.readouterr().out
    assert said.index("Pearson") < said.index("Spearman")
    assert re.search(r"against .*: Pearson’s r .*p = 0\.\d+ \(paired bootstrap", said)


def test_a_file_instead_of_a_split(folder, tmp_path):
    given = ("--input", folder / "classes.valid", "--columns", "text", "--label-column", "label")
    assert (
        evaluate(folder, "classes", *given, "--predictions", tmp_path / "a", "--json", tmp_path / "a.json")
        == 0
    )
    assert evaluate(folder, "classes", "--predictions", tmp_path / "b", "--json", tmp_path / "b.json") == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    one, other = (json.loads((tmp_path / f"{name}.json").read_text())["scores"] for name in "ab")
    assert one == other


def test_a_file_is_cut_as_the_data_of_the_training(folder, tmp_path, capsys):
    given = ("--columns", "text,other", "--label-column", "label", "--label-kind", "numbers")
    table = write_table(tmp_path / "table.tsv", 20, 3, True, ("0.5", "4"))
    split = ("--max-tokens", 8, "--train", table, "--valid", table)
    assert prepare(folder / "bert", tmp_path / "data", *given, *split) == 0
    path = train(tmp_path / "data", tmp_path / "model", "--regression-target")
    words = ["evaluate-sentences", tmp_path / "data", "--path", path, *CPU, "--predictions"]
    capsys.readouterr()
    for name, rows in (("a", ()), ("b", ("--input", table, *given))):
        assert cli_main(list(map(str, [*words, tmp_path / name, *rows]))) == 0
    said = capsys.readouterr().out
    assert "rows cut to 8 tokens, as the data of the training" in said
    assert "not in the model's dictionary" not in said
    assert np.allclose(np.loadtxt(tmp_path / "a"), np.loadtxt(tmp_path / "b"), atol=1e-6)
    (tmp_path / "other.tsv").write_text("text\tother\nthe stove\tthe man\n")
    given = ("--input", tmp_path / "other.tsv", "--columns", "text,other")
    assert cli_main(list(map(str, [*words, tmp_path / "c", *given]))) == 0
    assert re.search(
        r"warning: \d+ of \d+ pieces of .*other.tsv are not in the model's dictionary",
        capsys.readouterr().out,
    )


def test_a_file_without_labels_is_predicted(folder, tmp_path, capsys):
    (tmp_path / "mine.tsv").write_text("text\nan eat\nan und\n")
    given = ("--input", tmp_path / "mine.tsv", "--columns", "text")
    assert evaluate(folder, "classes", *given, "--predictions", tmp_path / "out") == 0
    assert (tmp_path / "out").read_text() == "good\nbad\n"
    assert evaluate(folder, "classes", *given) == 2
    assert "has no labels to compare with; give --predictions" in capsys.readouterr().err


def test_there_is_nothing_to_compare_without_labels(folder, tmp_path, capsys, monkeypatch):
    """Found before anything is predicted."""
    monkeypatch.setattr(sentence_predictions, "predict", None)
    (tmp_path / "text.tsv").write_text("text\nthe man\n")
    (tmp_path / "others").write_text("good\n")
    words = ("--input", tmp_path / "text.tsv", "--columns", "text", "--predictions", tmp_path / "out")
    assert evaluate(folder, "classes", *words, "--against", tmp_path / "others") == 2
    assert "--against compares by labels, and" in capsys.readouterr().err
    assert evaluate(folder, "classes", "--metric", "pearson") == 2
    assert "the model predicts classes" in capsys.readouterr().err


def test_the_data_folder_is_the_checkpoint_s_by_default(folder, capsys):
    assert (
        cli_main(["evaluate-sentences", "--path", str(folder / "classes" / "checkpoint_last.pt"), *CPU]) == 0
    )
    assert "valid: 20 rows" in capsys.readouterr().out


def test_a_data_folder_that_is_not_seen_from_here_is_named(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lines.txt").write_text("the man eat\n")
    state = torch.load(folder / "classes" / "checkpoint_last.pt", weights_only=False)
    state["cfg"]["task"]["data"] = "data-classes"
    torch.save(state, tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = ("--path", str(tmp_path / "model.pt"), *CPU)
    commands = (["evaluate-sentences"], ["encode", str(tmp_path / "lines.txt"), "--output", "vectors.npy"])
    for command, given in zip(commands, ([], ["--data"]), strict=True):
        assert cli_main([*command, *path]) == 2
        said = capsys.readouterr().err
        assert "was trained on `data-classes`, which is not here" in said
        assert "DATA of evaluate-sentences, --data of encode" in said
        assert cli_main([*command, *path, *given, str(folder / "data-classes")]) == 0


def test_cosines_of_vectors(folder, tmp_path):
    """Pairs are compared by their vectors alone, also by a model that was trained on other labels."""
    out = tmp_path / "cosines"
    words = [
        folder / "data-numbers",
        "--path",
        folder / "classes" / "checkpoint_last.pt",
        "--sts",
        "--predictions",
        out,
    ]
    assert cli_main(["evaluate-sentences", *map(str, words), *CPU]) == 0
    state = torch.load(folder / "classes" / "checkpoint_last.pt", weights_only=False)["model"]
    from fairseq.data import Dictionary

    from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

    dictionary = Dictionary.load(str(folder / "data-numbers" / "input0" / "dict.txt"))
    tokenizer, table = HfTokenizer(str(folder / "bert")), state["embeddings.weight"]
    expected = []
    for line in (folder / "numbers.valid").read_text().splitlines()[1:]:
        first, second = (
            table[[*map(dictionary.index, tokenizer.encode(text)), dictionary.eos()]].mean(dim=0)
            for text in line.split("\t")[:2]
        )
        expected.append(torch.cosine_similarity(first, second, dim=0).item())
    assert np.allclose(np.loadtxt(out), expected, atol=1e-5)


def test_cosines_of_a_file(folder, tmp_path):
    given = ("--sts", "--columns", "text,other", "--label-column", "label", "--label-kind", "numbers")
    file = ("--input", folder / "numbers.valid")
    assert evaluate(folder, "numbers", *given, *file, "--predictions", tmp_path / "a") == 0
    assert evaluate(folder, "numbers", "--sts", "--predictions", tmp_path / "b") == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_predictions_for_glue_s_server(folder, tmp_path):
    """A test file has no labels; its classes are those of the task's own files."""
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nthe man eat\t1\nthe man und\t0\n")
    given = ("--task", "sst2", "--full-dictionary", "--train", tmp_path / "train.tsv")
    assert prepare(folder / "bert", tmp_path / "data", *given) == 0
    path = train(tmp_path / "data", tmp_path / "model", "--disable-validation", updates=20)
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tthe man und\n1\tthe man eat\n")
    words = ["evaluate-sentences", tmp_path / "data", "--path", path, *CPU, "--input", tmp_path / "test.tsv"]
    words += ["--task", "sst2", "--glue", tmp_path / "SST-2.tsv"]
    assert cli_main(list(map(str, words))) == 0
    assert (tmp_path / "SST-2.tsv").read_text() == "index\tprediction\n0\t0\n1\t1\n"
    assert cli_main(list(map(str, words))) == 2  # it exists


# ---------------------------------------------------------------- refusals


def test_a_model_without_vectors():
    model = sentence_predictions.LoadedModel(
        torch.nn.Linear(1, 1), None, "it.pt", "data", torch.device("cpu")
    )
    with pytest.raises(
        ValueError, match="--sts needs a model that gives sentence vectors, `it.pt` holds a Linear"
    ):
        sentence_predictions.cosines(model, None, 1, None)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("classes", ("--batch-size", "0"), "--batch-size must be at least 1"),
        ("classes", ("--columns", "text"), "say how to read --input FILE, which is not given"),
        ("classes", ("--label-column", "label"), "say how to read --input FILE, which is not given"),
        ("classes", ("--quoting", "double"), "say how to read --input FILE, which is not given"),
        (
            "classes",
            ("--glue", "out.tsv"),
            "--glue writes what a classifier or regression says of a test file",
        ),
        ("classes", ("--vector", "mean"), "--vector chooses a vector for --sts"),
        ("classes", ("--metric", "pearson"), "compares numbers, the model predicts classes"),
        ("numbers", ("--metric", "f1"), "compares classes, the model predicts numbers"),
        ("numbers", ("--sts", "--metric", "f1"), "--sts compares numbers"),
        ("classes", ("--sts",), "--sts needs rows with numbers as labels"),
        ("classes", ("--positive", "fine"), "is not a class of the model; its classes are bad, good"),
        (
            "classes",
            ("--subset", "more"),
            "side `input0` of split `more`, does not exist; name one that is there",
        ),
        ("classes", ("--against", "/nowhere"), "--against `/nowhere` does not exist"),
        ("classes", ("--input", "/nowhere"), "--input `/nowhere` does not exist"),
        ("classes", ("--predictions", "/nowhere/x"), "the folder of --predictions"),
    ],
)
def test_refusals(folder, capsys, name, arguments, message):
    assert evaluate(folder, name, *arguments) == 2
    assert message in capsys.readouterr().err


def test_rows_of_another_task(folder, tmp_path, capsys):
    (tmp_path / "fine.tsv").write_text("text\tlabel\nthe man eat\tfine\n")
    given = ("--input", tmp_path / "fine.tsv", "--columns", "text", "--label-column", "label")
    assert evaluate(folder, "classes", *given) == 2
    assert "line 2: the label `fine` is none of the known ones (bad, good)" in capsys.readouterr().err
    assert evaluate(folder, "classes", *given, "--label-kind", "numbers") == 2
    assert "predicts classes, the labels of" in capsys.readouterr().err
    words = [folder / "data-numbers", "--path", folder / "classes" / "checkpoint_last.pt", *CPU]
    assert cli_main(["evaluate-sentences", *map(str, words)]) == 2
    assert "was trained on rows of 1 texts" in capsys.readouterr().err


def test_other_predictions_of_another_length(folder, tmp_path, capsys):
    (tmp_path / "other").write_text("good\n")
    assert evaluate(folder, "classes", "--against", tmp_path / "other") == 2
    assert "has 1 predictions for 20 rows" in capsys.readouterr().err


def test_existing_outputs(folder, tmp_path, capsys):
    (tmp_path / "out").touch()
    assert evaluate(folder, "classes", "--predictions", tmp_path / "out") == 2
    assert "exists; pass --overwrite to replace it" in capsys.readouterr().err
    assert evaluate(folder, "classes", "--predictions", tmp_path / "out", "--overwrite") == 0
    assert (tmp_path / "out").read_text().count("\n") == 20


def test_a_checkpoint_of_another_task(chain, capsys):
    assert cli_main(["evaluate-sentences", "--path", str(chain.teacher), *CPU]) == 2
    assert "is not of task sentence_prediction_with_teacher" in capsys.readouterr().err


def test_another_tokenizer_for_a_file(folder, tmp_path, capsys):
    build_tokenizer("bert_cased", tmp_path / "cased")
    given = ("--input", folder / "classes.valid", "--columns", "text", "--tokenizer", tmp_path / "cased")
    assert evaluate(folder, "classes", *given) == 2
    assert "was made with another tokenizer than" in capsys.readouterr().err


def test_an_encoder_s_folder_has_no_head(folder, capsys):
    """Predictions would be those of a head that was drawn just now."""
    words = [folder / "data-classes", "--path", folder / "bert", *CPU]
    assert cli_main(["evaluate-sentences", *map(str, words)]) == 2
    assert "must be a checkpoint that fairseq-train wrote" in capsys.readouterr().err
