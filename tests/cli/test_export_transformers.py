"""A student as a folder that plain transformers loads: equal logits, its tokenizer and labels, and refusals."""

import json

import pytest
import torch
import transformers

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.models.small_encoders import (
    FIRST,
    HEAD,
    NAMES,
    SECOND,
    batch_of,
    build,
    save,
    sentence_task,
    sizes,
)
from tests.tiny_chain import TEACHERS, build_teacher_folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return build_teacher_folder("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def task(bert):
    return sentence_task(bert)


def export(checkpoint, output, *arguments):
    return cli_main(
        [
            "export-student",
            str(checkpoint),
            "--format",
            "transformers",
            "--output",
            str(output),
            *map(str, arguments),
        ]
    )


def logits_of(folder, *texts):
    """What plain transformers makes of lines of text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = tokenizer(*texts, padding=True, return_tensors="pt")
    if getattr(model.config, "type_vocab_size", 0) < 2:
        inputs.pop("token_type_ids", None)
    return model(**inputs).logits


@pytest.mark.parametrize("name", TEACHERS)
def test_transformers_gives_the_same_logits_from_the_text(name, tmp_path, capsys):
    folder = build_teacher_folder(name, tmp_path / "pretrained")
    torch.manual_seed(1)
    task = sentence_task(folder)
    model = build(task, encoder_model=str(folder))
    path = save(
        model,
        tmp_path / "student.pt",
        encoder_model=str(folder),
        classification_pooling="pooler",
        classifier="dropout",
    )
    assert export(path, tmp_path / "out") == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'out'}: ")
    assert (tmp_path / "out/model.safetensors").is_file()
    assert HfTokenizer(str(tmp_path / "out")).digest() == task.tokenizer.digest()
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.id2label == dict(enumerate(NAMES))
    assert config.label2id == {name: number for number, name in enumerate(NAMES)}
    assert config.problem_type == "single_label_classification"
    for texts in ((FIRST,), (FIRST, SECOND)):
        expected, _ = model(**batch_of(task, *texts), classification_head_name=HEAD)
        assert expected.std() > 1e-3  # sentences and classes differ
        torch.testing.assert_close(logits_of(tmp_path / "out", *texts), expected, rtol=0, atol=1e-5)


def student(task, path, **options):
    """A checkpoint of a small encoder with a head."""
    torch.manual_seed(2)
    model = build(task, **sizes(), **options)
    return model, save(model, path, classification_dropout=0.3, **options)


def test_new_student_of_given_sizes(task, bert, tmp_path):
    model, path = student(task, tmp_path / "student.pt")
    weights = torch.load(path, weights_only=True)
    weights["model"]["projection.weight"] = torch.ones(2, 2)  # of a distillation; stays behind
    torch.save(weights, path)
    assert export(path, tmp_path / "out", "--tokenizer", bert) == 0
    expected, _ = model(**batch_of(task, FIRST), classification_head_name=HEAD)
    torch.testing.assert_close(logits_of(tmp_path / "out", FIRST), expected, rtol=0, atol=1e-5)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["classifier_dropout"] == 0.3
    exported = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert sum(w.numel() for w in exported.parameters()) == sum(w.numel() for w in model.parameters())


def test_regression(task, bert, tmp_path):
    numbers = type(task)(**{**vars(task), "label_names": (), "num_classes": 1})
    model, path = student(numbers, tmp_path / "student.pt")
    assert export(path, tmp_path / "out", "--tokenizer", bert) == 0
    expected, _ = model(**batch_of(task, FIRST, SECOND), classification_head_name=HEAD)
    assert expected.shape == (2, 1)
    torch.testing.assert_close(logits_of(tmp_path / "out", FIRST, SECOND), expected, rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "out/config.json").read_text())["problem_type"] == "regression"


def test_pieces_outside_the_dictionary_are_unknown(task, bert, tmp_path):
    """As for the student: the dictionary may be the corpus's own, smaller than the tokenizer's."""
    lines = ["two people stand near a man", "people"]
    assert task.tokenizer.piece_to_id("people") not in task.vocabulary.token_to_encoder
    model = build(task, encoder_model=str(bert))
    path = save(model, tmp_path / "student.pt")
    inputs = batch_of(task, lines)
    assert (inputs["texts"][0] == task.dictionary.unk()).any(dim=1).all()
    assert export(path, tmp_path / "out", "--tokenizer", bert) == 0
    expected, _ = model(**inputs, classification_head_name=HEAD)
    torch.testing.assert_close(logits_of(tmp_path / "out", lines), expected, rtol=0, atol=1e-5)


def test_what_the_vocabulary_lacks_is_read_otherwise_by_plain_transformers(task, bert):
    """As docs/serving_encoders.md says: an unknown token a byte here, one a word there; ends of rows are left out."""
    plain = transformers.AutoTokenizer.from_pretrained(bert)
    unknown, a = plain.unk_token_id, plain.convert_tokens_to_ids("a")
    for text, ours, theirs in (
        ("a ☃", [a, *[unknown] * 3], [a, unknown]),
        ("a 🙂🙂", [a, *[unknown] * 8], [a, unknown]),
    ):
        ids = [task.tokenizer.piece_to_id(piece) for piece in task.tokenizer.encode(text)]
        assert (ids, plain(text)["input_ids"][1:-1]) == (ours, theirs)
    assert len(task.tokenizer.encode("a" * 101)) > 1
    assert plain("a" * 101)["input_ids"][1:-1] == [unknown]
    assert plain.mask_token_id in plain("[MASK]")["input_ids"]
    assert plain.mask_token_id not in map(task.tokenizer.piece_to_id, task.tokenizer.encode("[MASK]"))


@pytest.mark.parametrize("head", [False, True])
def test_encoder_alone(task, bert, tmp_path, head):
    model = build(task, head=head, **sizes(), classification_pooling="mean")
    path = save(model, tmp_path / "student.pt", classification_pooling="mean")
    assert export(path, tmp_path / "out", "--tokenizer", bert, *(["--encoder-only"] if head else [])) == 0
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(
        FIRST, padding=True, return_tensors="pt"
    )
    torch.testing.assert_close(loaded(**inputs)[0], model(**batch_of(task, FIRST))[0], rtol=0, atol=1e-5)


def test_pooler_of_an_encoder_alone(task, bert, tmp_path):
    model = build(task, head=False, **sizes())
    assert export(save(model, tmp_path / "student.pt"), tmp_path / "out", "--tokenizer", bert) == 0
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert torch.equal(loaded.pooler.dense.weight, model.pooler.dense.weight)


def test_exported_folder_starts_another_training(task, bert, tmp_path):
    model, path = student(task, tmp_path / "student.pt")
    assert export(path, tmp_path / "out", "--tokenizer", bert) == 0
    again = build(task, encoder_model=str(tmp_path / "out"))
    inputs = batch_of(task, FIRST, SECOND)
    torch.testing.assert_close(
        again(**inputs, classification_head_name=HEAD)[0], model(**inputs, classification_head_name=HEAD)[0]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classification_pooling": "mean"}, "no `bert` classifier of --classification-pooling mean; train with --classification-pooling pooler"),
        ({"classification_pooling": "cls"}, "no `bert` classifier of --classification-pooling cls"),
        ({"classifier": "relu"}, "no `bert` classifier of --classifier relu; train with --classifier dropout"),
    ],
)  # fmt: skip
def test_heads_that_transformers_has_not_are_refused(task, bert, tmp_path, capsys, options, message):
    _, path = student(task, tmp_path / "student.pt", **options)
    assert export(path, tmp_path / "out", "--tokenizer", bert) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "or export the encoder without the head (--encoder-only)" in said
    assert [file.name for file in tmp_path.iterdir()] == ["student.pt"]
    assert export(path, tmp_path / "out", "--tokenizer", bert, "--encoder-only") == 0


def test_other_model_types_are_refused_by_name(task, bert, tmp_path, capsys):
    config = transformers.AlbertConfig(
        vocab_size=task.tokenizer.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, pad_token_id=0,
    )  # fmt: skip
    transformers.AlbertModel(config).save_pretrained(tmp_path / "albert")
    model = build(task, encoder_model=str(tmp_path / "albert"))
    path = save(model, tmp_path / "student.pt")
    assert export(path, tmp_path / "out", "--tokenizer", bert) == 2
    assert (
        "classifier of model type `albert` in transformers is not known; use an encoder of"
        in capsys.readouterr().err
    )
    assert export(path, tmp_path / "out", "--tokenizer", bert, "--encoder-only") == 0
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    inputs = transformers.AutoTokenizer.from_pretrained(bert)(FIRST, padding=True, return_tensors="pt")
    torch.testing.assert_close(loaded(**inputs)[0], model(**batch_of(task, FIRST))[0])


def test_tokenizer_is_needed_and_compared(task, tmp_path, capsys):
    _, path = student(task, tmp_path / "student.pt")
    assert export(path, tmp_path / "out") == 2
    assert "--format transformers needs --tokenizer" in capsys.readouterr().err
    other = build_teacher_folder("roberta", tmp_path / "roberta")
    assert export(path, tmp_path / "out", "--tokenizer", other) == 2
    assert f"tokenizer `{other}` is not the one that `{path}` was trained with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_existing_folder_is_replaced_only_when_asked(task, bert, tmp_path, capsys):
    _, path = student(task, tmp_path / "student.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    assert export(path, tmp_path / "out", "--tokenizer", bert) == 2
    assert "exists; pass --overwrite to replace it" in capsys.readouterr().err
    assert export(path, tmp_path / "out", "--tokenizer", bert, "--overwrite") == 2
    assert "a folder with `mine`, which this export does not write" in capsys.readouterr().err
    assert (tmp_path / "out/mine").read_text() == "mine"
    (tmp_path / "out/mine").unlink()
    (tmp_path / "out/config.json").write_text("of an earlier export")
    assert export(path, tmp_path / "out", "--tokenizer", bert, "--overwrite") == 0
    assert json.loads((tmp_path / "out/config.json").read_text())
    assert (tmp_path / "out/config.json").is_file()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "student.pt"]


def test_translation_student_has_no_encoder_of_transformers(tmp_path, capsys):
    torch.save(
        {"model": {}, "cfg": {"model": {"_name": "transformer"}}, "args": None}, tmp_path / "student.pt"
    )
    assert export(tmp_path / "student.pt", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "a `transformer` model, which --format transformers cannot hold; give --format fairseq" in said


def test_encoder_is_not_for_stock_fairseq(task, tmp_path, capsys):
    _, path = student(task, tmp_path / "student.pt")
    state = torch.load(path, weights_only=True)
    state["optimizer_history"] = [{}]
    torch.save(state, path)
    assert cli_main(["export-student", str(path), "--output", str(tmp_path / "out.pt")]) == 2
    assert (
        "holds a `hf_encoder` model, which --format fairseq cannot hold; give --format transformers"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out.pt").exists()


def test_options_of_another_format_are_refused(task, tmp_path, capsys):
    _, path = student(task, tmp_path / "student.pt")
    assert (
        cli_main(["export-student", str(path), "--output", str(tmp_path / "out.pt"), "--encoder-only"]) == 2
    )
    assert (
        "--encoder-only is an option of --format transformers; add that, or leave --encoder-only out"
        in capsys.readouterr().err
    )
