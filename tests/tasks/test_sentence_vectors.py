"""From text to a distilled student and on: `vectors`, task ``sentence_vectors``, its criterion, `encode`, fine-tuning."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from fairseq_bert_kd.cli import encode as encode_command
from fairseq_bert_kd.cli.encode import write_array
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.rewards.similarity import CosineReward, load_vectors
from fairseq_bert_kd.storage.vector_store import VectorReader, vector_store_path
from fairseq_bert_kd.storage.verify import verify_store
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.tiny_chain import PLUGIN, WORDS, build_teacher_folder, logged, run_fairseq
from tests.tiny_sentences import prepare, write_table
from tests.tokenization.tiny_tokenizers import build_tokenizer

SIZES = ("--hidden-size", 8)
LINES = ["two men sit", "the man", "a man and people eat near the men"]


def vectors(data, teacher, *options):
    return cli_main(["vectors", str(data), "--encoder-model", str(teacher), "--cpu", *map(str, options)])


def encode(*words):
    return cli_main(["encode", *map(str, words), "--cpu"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``bert``, ``data`` with stores of ``train`` and ``valid``, and a labelled ``data-classes`` and ``data-pairs``."""
    root = tmp_path_factory.mktemp("vectors")
    build_teacher_folder("bert", root / "bert")
    (root / "bert" / "1_Pooling").mkdir()
    (root / "bert" / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    rng = np.random.default_rng(0)
    for split, rows in (("train", 60), ("valid", 20)):
        lines = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(rows)]
        (root / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
    full = ("--full-dictionary", "--train")
    assert prepare(
        root / "bert", root / "data", "--task", "plain", *full, root / "train.txt", "--valid", root / "valid.txt"
    ) == 0  # fmt: skip
    for name, pairs in (("classes", False), ("pairs", True)):
        table = write_table(root / f"{name}.tsv", 40, pairs=pairs)
        columns = ("--columns", "text,other" if pairs else "text", "--label-column", "label")
        assert prepare(root / "bert", root / f"data-{name}", *columns, *full, table, "--valid", table) == 0
    assert vectors(root / "data", root / "bert", "--subset", "train,valid", "--chunk-sentences", 16) == 0
    return root


def train(data, save_dir, *options, task="sentence_vectors", criterion="sentence_representation", updates=2):
    run_fairseq(
        "train", data, "--user-dir", PLUGIN, "--task", task, "--criterion", criterion, "--arch", "sentence_lstm",
        "--optimizer", "adam", "--lr", 0.01, "--batch-size", 8, "--max-update", updates, "--save-dir", save_dir,
        "--no-epoch-checkpoints", "--num-workers", 0, "--no-progress-bar", "--log-format", "json", "--cpu", *options,
    )  # fmt: skip
    return save_dir / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def student(folder):
    """A checkpoint of some updates."""
    return train(folder / "data", folder / "student", *SIZES, updates=30)


def test_a_student_rewards_and_mines(folder, student, tmp_path, caplog):
    """Its vectors are those of `encode`, whatever the order and the batch; a long text and an empty one have them too."""
    lines = [*LINES, " ".join(LINES * 3), "\u200b"]
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    expected = tmp_path / "lines.npy"
    assert encode(tmp_path / "lines.txt", "--path", student, "--output", expected, "--empty", "zeros") == 0
    before = torch.get_rng_state()
    vectors = load_vectors(str(student), "--sentence-encoder")
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_allclose(vectors.of_texts(lines).numpy(), np.load(expected), rtol=1e-4, atol=1e-5)
    found = CosineReward(str(student))([LINES[0]] * 2, LINES[:2], LINES[:2])
    first, second = np.load(expected)[:2]
    assert found == pytest.approx(
        [1, max(0, first @ second / np.linalg.norm(first) / np.linalg.norm(second))], abs=1e-5
    )
    table = tmp_path / "pairs.tsv"
    rows = [f"{number}\t{line}\t{line} man\n" for number, line in enumerate(LINES)]
    table.write_text("".join(["cluster\tsource\ttarget\n", *rows]), encoding="utf-8")
    words = (
        "--input",
        table,
        "--output",
        tmp_path / "mined.tsv",
        "--kinds",
        "hard",
        "--sentence-encoder",
        student,
    )
    assert cli_main(["mine-negatives", *map(str, words)]) == 0


def test_a_model_without_vectors_does_not_reward(folder, student, tmp_path):
    pairs = train(
        folder / "data-pairs", tmp_path / "classifier", "--arch", "decomposable_attention", "--encoder-model", folder / "bert",
        task="sentence_prediction_with_teacher", criterion="sentence_prediction",
    )  # fmt: skip
    with pytest.raises(
        ValueError, match="holds a DecomposableAttention\\w*, which gives no sentence vectors"
    ):
        CosineReward(str(pairs))
    state = torch.load(student, weights_only=False)
    state["task_state"].pop("sentence_spec")
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"--sentence-encoder `.*other.pt` is not a model of sentences"):
        CosineReward(str(tmp_path / "other.pt"))


# ---------------------------------------------------------------- the store


def test_vectors_are_the_teacher_s(folder):
    """By transformers alone: the mean of the last hidden states of ``[CLS] text [SEP]``, in the order of the corpus."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "bert")
    model = transformers.AutoModel.from_pretrained(folder / "bert").eval()
    reader = VectorReader(vector_store_path(folder / "data", "train"))
    assert (reader.info.vector, reader.info.similarity, reader.info.width) == ("mean", "cosine", 32)
    stored, present = reader.vectors(np.arange(len(reader)))
    assert present.all()
    for line, vector in zip((folder / "train.txt").read_text().splitlines(), stored, strict=True):
        with torch.inference_mode():
            expected = model(**tokenizer(line, return_tensors="pt"))[0][0].mean(dim=0)
        np.testing.assert_allclose(vector, expected.numpy(), rtol=2e-3, atol=2e-3)
    assert verify_store(reader.path, folder / "data") == []


def test_store_commands_know_it(folder, capsys):
    path = str(vector_store_path(folder / "data", "train"))
    assert cli_main(["store", "verify", path, "--data", str(folder / "data")]) == 0
    assert "60 sentences, 60 rows" in capsys.readouterr().out
    assert cli_main(["store", "stat", path]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"vector +mean, 32 numbers in float16, compared by cosine", shown)
    assert re.search(r"not finite +0.00 % of the sentences", shown)
    assert cli_main(["store", "stat", path, "--json"]) == 0
    stat = json.loads(capsys.readouterr().out)
    assert stat["mean_length"] == pytest.approx(stat["summary"]["mean_length"], rel=1e-6)
    assert -1 <= stat["random_cosine"] <= 1
    assert cli_main(["store", "show", path, "3", "--data", str(folder / "data"), "--top", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].removesuffix(" </s>") == (folder / "train.txt").read_text().splitlines()[3]
    assert sum(line.startswith("cosine") for line in shown) == 2
    assert cli_main(["store", "show", path, "3", "--temperature", "2"]) == 2
    assert "--temperature divides the logits of token rows" in capsys.readouterr().err


def test_the_declared_vector_by_name_is_compared_as_declared(folder):
    assert vectors(folder / "data", folder / "bert", "--vector", "mean", "--name", "named") == 0
    assert VectorReader(vector_store_path(folder / "data", "train", "named")).info.similarity == "cosine"


@pytest.mark.parametrize("vector", ["cls", "last2-mean"])
def test_other_vectors_under_a_name(folder, vector):
    name = vector.replace("2-", "_two_")
    assert (
        vectors(folder / "data", folder / "bert", "--vector", vector, "--name", name, "--dtype", "float32")
        == 0
    )
    reader = VectorReader(vector_store_path(folder / "data", "train", name))
    assert (reader.info.vector, reader.info.dtype, reader.info.similarity) == (vector, "float32", "")


def test_batches_and_chunks_do_not_change_a_vector(folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder / "data", data)
    assert vectors(data, folder / "bert", "--name", "small", "--max-tokens", 20, "--chunk-sentences", 7) == 0
    found = [
        VectorReader(vector_store_path(data, "train", name)).vectors(np.arange(60))[0]
        for name in ("", "small")
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3, atol=2e-3)


def test_a_finished_store_stays_and_another_one_is_not_replaced_unasked(folder, tmp_path, capsys):
    data, other = tmp_path / "data", tmp_path / "other"
    shutil.copytree(folder / "data", data)
    options = ("--chunk-sentences", 16)
    assert vectors(data, folder / "bert", *options) == 0
    assert "train.sentences.vec is complete already: nothing to score" in capsys.readouterr().out
    build_teacher_folder("bert", other, dim=16)
    assert vectors(data, other, *options) == 2
    assert "exists and differs (teacher: " in capsys.readouterr().err
    (data / "input0" / "train.bin").write_bytes(bytes(reversed((data / "input0" / "train.bin").read_bytes())))
    assert vectors(data, folder / "bert", *options) == 2
    assert "exists and is of other data: sentence 0 has another input0 now" in capsys.readouterr().err


def test_what_vectors_refuses(folder, tmp_path, capsys):
    assert vectors(folder / "data-pairs", folder / "bert") == 2
    assert "have 2 texts; vectors are of single sentences" in capsys.readouterr().err
    distilbert = build_teacher_folder("distilbert", tmp_path / "distilbert")
    assert vectors(folder / "data", distilbert, "--vector", "pooler", "--name", "p") == 2
    assert "the encoder has no pooler" in capsys.readouterr().err
    roberta = build_teacher_folder("roberta", tmp_path / "roberta")
    assert vectors(folder / "data", roberta) == 2
    assert "another tokenizer than" in capsys.readouterr().err
    shutil.copytree(folder / "bert", tmp_path / "max")
    (tmp_path / "max" / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    assert vectors(folder / "data", tmp_path / "max", "--name", "m") == 2
    assert "was made for the pooling max_tokens" in capsys.readouterr().err
    assert vectors(folder / "data", folder / "bert", "--max-tokens", 0) == 2
    assert "--max-tokens must be at least 1" in capsys.readouterr().err


# ---------------------------------------------------------------- training


def logs(folder):
    """Values of the last validation."""
    return torch.load(folder, weights_only=False)["extra_state"]


def test_a_student_comes_nearer_to_its_teacher(folder, student):
    first = train(folder / "data", folder / "short", *SIZES, updates=1)
    before, after = (logs(path)["val_loss"] for path in (first, student))
    assert after < 0.5 * before
    state = torch.load(student, weights_only=False)
    assert json.loads(state["task_state"]["learned_vectors"])["vector"] == "mean"
    assert not any("classification_heads" in name for name in state["model"])


@pytest.mark.parametrize(
    "options",
    [
        ("--vector-loss", "mse"),
        ("--vector-loss", "both", "--relational-weight", 0.5, "--fp16-no-flatten-grads"),
    ],
)
def test_other_losses_run(folder, tmp_path, options):
    assert np.isfinite(logs(train(folder / "data", tmp_path, *SIZES, *options))["val_loss"])


def test_stores_of_other_data_are_refused_by_name(folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder / "data", data)
    (data / "train.sentences.vec").rename(data / "train.sentences.other.vec")
    with pytest.raises(
        FileNotFoundError,
        match=r"train.sentences.vec does not exist; write it with `fairseq-bert-kd vectors`",
    ):
        train(data, tmp_path / "a", *SIZES)
    shutil.copy(data / "valid.sentences.vec", data / "train.sentences.vec")
    with pytest.raises(ValueError, match="was made for split `valid`, not `train`"):
        train(data, tmp_path / "b", *SIZES)
    shutil.copy(folder / "data" / "train.sentences.vec", data / "train.sentences.vec")
    for suffix in ("bin", "idx"):
        shutil.copy(data / "input0" / f"train.{suffix}", data / "input0" / f"valid.{suffix}")
    with pytest.raises(
        ValueError, match="valid.sentences.vec is shorter than the data: 20 sentences against 60"
    ):
        train(data, tmp_path / "c", *SIZES)
    other, valid = tmp_path / "other.txt", folder / "valid.txt"
    other.write_text("".join(reversed((folder / "train.txt").read_text().splitlines(keepends=True))))
    words = ("--task", "plain", "--full-dictionary", "--train", other, "--valid", valid)
    assert prepare(folder / "bert", tmp_path / "new", *words) == 0
    for split in ("train", "valid"):
        shutil.copy(folder / "data" / f"{split}.sentences.vec", tmp_path / "new")
    with pytest.raises(ValueError, match="was made from another text: the input0 of sentence 0 "):
        train(tmp_path / "new", tmp_path / "d", *SIZES)


def test_widths_and_teachers_must_agree(folder, tmp_path):
    with pytest.raises(ValueError, match="the student's vectors have 5 numbers, the teacher's 32"):
        train(folder / "data", tmp_path / "a", *SIZES, "--vector-dim", 5)
    shutil.copytree(folder / "student", tmp_path / "b")
    assert (
        vectors(
            folder / "data", folder / "bert", "--vector", "cls", "--name", "again", "--subset", "train,valid"
        )
        == 0
    )
    with pytest.raises(ValueError, match=r"learns other vectors .* than those of .*again.vec"):
        train(folder / "data", tmp_path / "b", *SIZES, "--vector-store", "again", updates=40)
    with pytest.raises(ValueError, match="--criterion sentence_representation, not `sentence_prediction`"):
        train(folder / "data", tmp_path / "c", *SIZES, criterion="sentence_prediction")


def test_damaged_or_unfinished_stores_are_refused(folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder / "data", data)
    path = data / "train.sentences.vec"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(ValueError, match="is truncated: .*rebuild it with `fairseq-bert-kd vectors"):
        train(data, tmp_path / "a", *SIZES)
    path.write_bytes(b"KDTOPKw\n" + content[8:])
    with pytest.raises(ValueError, match="is unfinished; run the command that writes it again"):
        train(data, tmp_path / "b", *SIZES)


@pytest.mark.parametrize(("data", "inner"), [("data-classes", 32), ("data-pairs", 4 * 32)])
def test_fine_tuning_by_fairseq_s_own_criterion(folder, student, tmp_path, data, inner):
    path = train(
        folder / data, tmp_path, "--encoder-init", student, task="sentence_prediction_with_teacher",
        criterion="sentence_prediction", updates=3,
    )  # fmt: skip
    weights = torch.load(path, weights_only=False)["model"]
    assert weights["classification_heads.sentence_classification_head.dense.weight"].shape == (512, inner)
    assert cli_main(["evaluate-sentences", str(folder / data), "--path", str(path), "--cpu"]) == 0


def test_task_distillation_on_top(folder, student, tmp_path):
    """TinyBERT's prediction loss, of a teacher that was fine-tuned on the task; the teacher is not saved and does not learn."""
    teacher = tmp_path / "teacher"
    run_fairseq(
        "train", folder / "data-pairs", "--user-dir", PLUGIN, "--task", "sentence_prediction_with_teacher",
        "--criterion", "sentence_prediction", "--arch", "hf_encoder", "--encoder-model", folder / "bert",
        "--optimizer", "adam", "--lr", 0.001, "--batch-size", 8, "--max-update", 2, "--save-dir", teacher,
        "--no-epoch-checkpoints", "--num-workers", 0, "--no-progress-bar", "--cpu",
    )  # fmt: skip
    path = train(
        folder / "data-pairs", tmp_path / "out", "--encoder-init", student, "--layer-stage", "prediction",
        "--kd-teacher", teacher / "checkpoint_last.pt", task="sentence_prediction_with_teacher",
        criterion="layer_distillation",
    )  # fmt: skip
    names = torch.load(path, weights_only=False)["model"]
    assert {name.split(".")[0] for name in names} == {
        "token_to_encoder", "embedding", "lstm", "output", "classification_heads",
    }  # fmt: skip


# ---------------------------------------------------------------- vectors of text


def own_vectors(student, folder, lines):
    """By the model alone, one line at a time."""
    from fairseq import checkpoint_utils

    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(student)], arg_overrides={"data": str(folder / "data")}
    )
    tokenizer, found = HfTokenizer(str(folder / "bert")), []
    for line in lines:
        ids = [*map(task.dictionary.index, tokenizer.encode(line)), task.dictionary.eos()]
        with torch.inference_mode():
            found.append(
                model.eval().sentence_vectors(torch.tensor([ids]), torch.tensor([len(ids)]))[0].numpy()
            )
    return np.stack(found)


def test_encode_streams_lines_into_an_array(folder, student, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(encode_command, "TOGETHER", 2)  # three lines come in two parts
    text, out = tmp_path / "text.txt", tmp_path / "out.npy"
    text.write_text("".join(f"{line}\n" for line in LINES))
    assert encode(text, "--path", student, "--output", out) == 0
    assert "3 vectors of 32 numbers" in capsys.readouterr().out
    expected = own_vectors(student, folder, LINES)
    np.testing.assert_allclose(np.load(out), expected, rtol=0, atol=1e-5)
    assert encode(text, "--path", student, "--output", out) == 2
    assert "exists; pass --overwrite" in capsys.readouterr().err
    assert (
        encode(text, "--path", student, "--output", out, "--overwrite", "--normalise", "--dtype", "float16")
        == 0
    )
    unit = np.load(out)
    assert unit.dtype == np.float16
    np.testing.assert_allclose(
        unit, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=2e-3, atol=2e-3
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "text.txt"]


def test_encode_by_the_teacher_itself(folder, tmp_path):
    text = folder / "train.txt"
    assert (
        encode(text, "--path", folder / "bert", "--data", folder / "data", "--output", tmp_path / "a.npy")
        == 0
    )
    stored = VectorReader(vector_store_path(folder / "data", "train")).vectors(np.arange(60))[0]
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), stored, rtol=2e-3, atol=2e-3)


def test_encode_counts_pieces_that_the_dictionary_does_not_have(folder, tmp_path, capsys):
    (tmp_path / "train.txt").write_text("a a a\n")
    given = ("--task", "plain", "--train", tmp_path / "train.txt")
    assert prepare(folder / "bert", tmp_path / "data", *given) == 0
    (tmp_path / "text.txt").write_text("a\na 1 1\n")
    words = ("--path", folder / "bert", "--data", tmp_path / "data", "--output", tmp_path / "out.npy")
    assert encode(tmp_path / "text.txt", *words) == 0
    assert (
        "warning: 2 pieces are not in the model's dictionary and read as unknown" in capsys.readouterr().out
    )


def test_an_encoder_s_own_pooling_is_that_of_encode_too(folder, tmp_path):
    """A folder that says cls is not averaged, unless one asks for it."""
    shutil.copytree(folder / "bert", tmp_path / "cls")
    (tmp_path / "cls" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    found = {}
    for name, options in (("own", ()), ("cls", ("--vector", "cls")), ("mean", ("--vector", "mean"))):
        out = tmp_path / f"{name}.npy"
        words = (folder / "train.txt", "--path", tmp_path / "cls", "--data", folder / "data", "--output", out)
        assert encode(*words, *options) == 0
        found[name] = np.load(out)
    np.testing.assert_array_equal(found["own"], found["cls"])
    assert np.abs(found["own"] - found["mean"]).max() > 1e-3


def test_another_head_of_a_fine_tuned_student_starts_anew(folder, student, tmp_path):
    settings = {"task": "sentence_prediction_with_teacher", "criterion": "sentence_prediction", "updates": 1}
    data = folder / "data-classes"
    first = train(data, tmp_path / "one", "--encoder-init", student, **settings)
    named = ("--finetune-from-model", first, "--classification-head-name", "other", "--encoder-init", student)
    second = train(data, tmp_path / "two", *named, **settings)
    weights = torch.load(second, weights_only=False)["model"]
    assert {key.split(".")[1] for key in weights if key.startswith("classification_heads.")} == {"other"}


def test_what_encode_refuses(folder, student, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("a man\n\n")
    out = tmp_path / "out.npy"
    assert encode(text, "--path", student, "--output", out) == 2
    assert (
        "line 2: the tokenizer leaves nothing of it, and an empty sentence has no vector"
        in capsys.readouterr().err
    )
    text.write_text("")
    assert encode(text, "--path", student, "--output", out) == 2
    assert "there are no lines to encode" in capsys.readouterr().err
    assert encode(text, "--path", folder / "bert", "--output", out) == 2
    assert "is not a checkpoint, which would name its data; give the data folder" in capsys.readouterr().err
    assert encode(tmp_path / "absent", "--path", student, "--output", out) == 2
    assert "does not exist, or is no file" in capsys.readouterr().err
    assert not out.exists()


def test_sts_of_student_and_teacher(folder, student, tmp_path, capsys):
    table = tmp_path / "sts.tsv"
    rows = ["text\tother\tlabel", "a man\tthe man\t4.5", "a man\tpeople eat\t1", "the men sit\tmen sit\t5"]
    table.write_text("".join(f"{row}\n" for row in rows))
    columns = ("--columns", "text,other", "--label-column", "label", "--label-kind", "numbers")
    for path in (student, folder / "bert"):
        words = [
            "evaluate-sentences",
            folder / "data",
            "--path",
            path,
            "--input",
            table,
            *columns,
            "--sts",
            "--cpu",
        ]
        assert cli_main(list(map(str, words))) == 0
        assert "Spearman" in capsys.readouterr().out


def test_encode_keeps_the_place_of_empty_lines(folder, student, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(encode_command, "TOGETHER", 2)  # the first two lines are empty, and come alone
    (tmp_path / "full.txt").write_text("a man\nthe men\n")
    (tmp_path / "some.txt").write_text("\n \na man\n\nthe men\n")
    for name, empty in (("full", "error"), ("some", "zeros")):
        output = ("--output", tmp_path / f"{name}.npy", "--empty", empty, "--normalise")
        assert encode(tmp_path / f"{name}.txt", "--path", student, *output) == 0
    assert "warning: 3 empty lines have a vector of zeros" in capsys.readouterr().out
    full, some = (np.load(tmp_path / f"{name}.npy") for name in ("full", "some"))
    assert not some[[0, 1, 3]].any()
    np.testing.assert_allclose(some[[2, 4]], full, rtol=1e-5, atol=1e-6)


def test_the_teacher_s_digest_does_not_depend_on_the_precision(folder):
    options = ("--subset", "valid", "--precision", "bf16", "--name", "half")
    assert vectors(folder / "data", folder / "bert", *options) == 0
    whole, half = (VectorReader(vector_store_path(folder / "data", "valid", name)) for name in ("", "half"))
    assert (whole.info.precision, half.info.precision) == ("fp32", "bf16")
    assert half.info.teacher_digest == whole.info.teacher_digest


def test_numbers_that_the_type_does_not_hold_are_refused(tmp_path):
    parts = [np.ones((2, 3), np.float32), np.array([[1.0, 2.0, 3.0], [1.0, 1e6, 3.0]], np.float32)]
    with pytest.raises(ValueError, match="line 4: its vector is not finite in float16; give --dtype float32"):
        write_array(tmp_path / "x.npy", iter(parts), np.dtype("float16"))
    assert write_array(tmp_path / "x.npy", iter(parts), np.dtype("float32")) == 4


def test_stores_of_all_folders_are_checked_before_training(folder, tmp_path):
    shutil.copytree(folder / "data", tmp_path / "other")
    vector_store_path(tmp_path / "other", "train").unlink()
    with pytest.raises(FileNotFoundError, match="other"):
        train(f"{folder / 'data'}:{tmp_path / 'other'}", tmp_path / "student", *SIZES, updates=1)


def test_validation_needs_no_store_of_the_training_text(folder, student, tmp_path):
    """The checkpoint remembers what the loss by default was."""
    data = shutil.copytree(folder / "data", tmp_path / "data")
    vector_store_path(data, "train").unlink()
    with logged("valid") as lines:
        run_fairseq(
            "validate", data, "--user-dir", PLUGIN, "--task", "sentence_vectors", "--path", student, "--valid-subset", "valid",
            "--batch-size", 8, "--cpu", "--log-format", "json",
        )  # fmt: skip
    [found] = map(json.loads, lines)
    assert found["valid_loss"] == found["valid_cosine_loss"]


def test_an_encoder_with_another_tokenizer_is_refused(folder, tmp_path):
    """Also beside ``--kd-tokenizer``; a folder of weights alone and a copy under another name are taken."""
    options = ("--kd-tokenizer", folder / "bert", "--embedding-init", "teacher", *SIZES, "--encoder-model")
    other = build_teacher_folder("electra", tmp_path / "other", dim=32)
    build_tokenizer("bert_cased", other)
    pairs = (*options[:2], "--encoder-model", other, "--evaluator-positions", "sinusoidal", "--arch")
    with pytest.raises(ValueError, match=r"--encoder-model `.*other` has another tokenizer than --kd-tok"):
        train(folder / "data", tmp_path / "refused", *options, other)
    with pytest.raises(ValueError, match=r"--encoder-model `.*other` has another tokenizer than --kd-tok"):
        train(
            folder / "data-pairs", tmp_path / "refused", *pairs, "decomposable_attention",
            task="sentence_prediction_with_teacher", criterion="sentence_prediction",
        )  # fmt: skip
    assert not list((tmp_path / "refused").glob("*.pt"))
    copied = shutil.copytree(folder / "bert", tmp_path / "copied")
    assert train(folder / "data", tmp_path / "one", *options, copied, updates=1).is_file()
    for file in copied.glob("*token*"):
        file.unlink()
    assert train(folder / "data", tmp_path / "two", *options, copied, updates=1).is_file()
