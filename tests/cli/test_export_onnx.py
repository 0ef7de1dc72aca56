"""``export-student --format onnx``: the same vectors from onnxruntime and the tokenizer alone."""

import shutil

import numpy as np
import pytest
import torch

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.modules.sentence_lstm_spec import POOLINGS
from tests.models import small_encoders
from tests.models.small_encoders import FIRST, SECOND, batch_of
from tests.models.small_lstms import build_lstm, lstm_task, save_lstm
from tests.tiny_chain import build_teacher_folder

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_teacher_folder("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def task(folder):
    return lstm_task(folder)


def exported_vectors(folder, lines):
    """What onnxruntime makes of lines of text."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    inputs = tokenizer(lines, padding=True, return_tensors="np")
    fed = {name: inputs[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    [found] = session.run(["sentence_embedding"], fed)
    return found


def export(checkpoint, output, *options):
    return cli_main(
        ["export-student", str(checkpoint), "--output", str(output), "--format", "onnx", *map(str, options)]
    )


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [1, 2])
def test_vectors_are_the_model_s(task, folder, tmp_path, pooling, layers):
    model = build_lstm(task, pooling=pooling, lstm_layers=layers, hidden_size=17, vector_dim=8)
    with torch.no_grad():
        for parameter in model.parameters():  # larger than at the start, so that a mistake shows
            parameter.mul_(3)
    assert export(save_lstm(model, tmp_path / "model.pt"), tmp_path / "out", "--tokenizer", folder) == 0
    lines = [*FIRST, *SECOND]
    found = exported_vectors(tmp_path / "out", lines)
    (tokens,), (lengths,) = batch_of(task, lines).values()
    expected = model.sentence_vectors(tokens, lengths).detach().numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_pieces_outside_the_dictionary_are_unknown(task, folder, tmp_path):
    """As for the student: the dictionary may be the corpus's own, smaller than the tokenizer's."""
    lines = ["two people stand near a man", "people"]
    assert task.tokenizer.piece_to_id("people") not in task.vocabulary.token_to_encoder
    model = build_lstm(task)
    with torch.no_grad():
        model.embedding.weight.mul_(10)
    assert export(save_lstm(model, tmp_path / "model.pt"), tmp_path / "out", "--tokenizer", folder) == 0
    (tokens,), (lengths,) = batch_of(task, lines).values()
    assert (tokens == task.dictionary.unk()).any(dim=1).all()
    expected = model.sentence_vectors(tokens, lengths).detach().numpy()
    np.testing.assert_allclose(exported_vectors(tmp_path / "out", lines), expected, rtol=0, atol=1e-5)


def test_the_tokenizer_neither_cuts_nor_pads(task, folder, tmp_path):
    """Whatever the teacher's own did: a student reads texts of any length."""
    from tokenizers import Tokenizer

    limited = shutil.copytree(folder, tmp_path / "limited")
    tokenizer = Tokenizer.from_file(str(limited / "tokenizer.json"))
    tokenizer.enable_truncation(6)
    tokenizer.enable_padding(length=6)
    tokenizer.save(str(limited / "tokenizer.json"))
    assert (
        export(save_lstm(build_lstm(task), tmp_path / "model.pt"), tmp_path / "out", "--tokenizer", limited)
        == 0
    )
    saved = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert [len(saved.encode(text).ids) for text in ("man", "man " * 20)] == [3, 22]


def test_a_head_is_said_to_be_left_out(task, folder, tmp_path, capsys):
    for name, head in (("plain", False), ("classifier", True)):
        checkpoint = save_lstm(build_lstm(task, head=head), tmp_path / f"{name}.pt")
        assert export(checkpoint, tmp_path / name, "--tokenizer", folder) == 0
        assert ("without the classification head" in capsys.readouterr().out) == head


def test_another_model_or_tokenizer_is_refused(task, folder, tmp_path, capsys):
    other = small_encoders.save(small_encoders.build(task, **small_encoders.sizes()), tmp_path / "other.pt")
    assert export(other, tmp_path / "out", "--tokenizer", folder) == 2
    assert (
        "`hf_encoder` model, which --format onnx cannot hold; give --format transformers"
        in capsys.readouterr().err
    )
    checkpoint = save_lstm(build_lstm(task), tmp_path / "model.pt")
    for name in ("fairseq", "transformers"):
        assert export(checkpoint, tmp_path / "out", "--format", name) == 2
        said = capsys.readouterr().err
        assert f"a `sentence_lstm` model, which --format {name} cannot hold; give --format onnx" in said
    assert export(checkpoint, tmp_path / "out") == 2
    assert "--format onnx needs --tokenizer" in capsys.readouterr().err
    roberta = build_teacher_folder("roberta", tmp_path / "roberta")
    assert export(checkpoint, tmp_path / "out", "--tokenizer", roberta) == 2
    assert "is not the one that" in capsys.readouterr().err
    assert export(checkpoint, tmp_path / "out", "--tokenizer", folder, "--encoder-only") == 2
    assert "--encoder-only is an option of --format transformers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
