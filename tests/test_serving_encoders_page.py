"""The blocks of docs/serving_encoders.md, in order, on a tiny student."""

import contextlib
import io
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from fairseq_bert_kd.cli.main import cli_main
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
from tests.tiny_chain import build_teacher_folder

PAGE = (Path(__file__).parents[1] / "docs/serving_encoders.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", PAGE, flags=re.S)
NO_ONNX = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Names of the page's first two blocks, which have run in the present folder."""
    monkeypatch.chdir(tmp_path)
    folder = build_teacher_folder("bert", tmp_path / "bert")
    task = sentence_task(folder)
    torch.manual_seed(1)
    student = build(task, **sizes())
    Path("student").mkdir()
    save(student, "student/checkpoint_best.pt")
    kinds, blocks = zip(*BLOCKS, strict=True)
    assert kinds == ("bash", "python", "bash", "python")  # the third one's test is in test_one_sided.py
    words = shlex.split(blocks[0].replace("$TEACHER", "bert"))
    assert words[0] == "fairseq-bert-kd"
    assert cli_main(words[1:]) == 0
    names = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(blocks[1], names)
    return student, task, names, printed.getvalue()


def test_classifier_of_the_page_is_the_student(served):
    student, task, names, printed = served
    inputs = names["tokenizer"](FIRST, padding=True, return_tensors="pt")
    expected, _ = student(**batch_of(task, FIRST), classification_head_name=HEAD)
    torch.testing.assert_close(names["model"](**inputs).logits, expected, rtol=0, atol=1e-5)
    assert printed == f"{[NAMES[number] for number in names['logits'].argmax(dim=-1).tolist()]}\n"


@pytest.mark.skipif(bool(NO_ONNX), reason=f"not installed: {', '.join(NO_ONNX)}")
def test_onnx_gives_the_same_logits_at_any_size(served):
    names = served[2]
    exec(BLOCKS[3][1], names)
    for texts in ((["a"],), ([*FIRST, *SECOND],), (FIRST, SECOND)):
        inputs = names["tokenizer"](*texts, padding=True, return_tensors="pt")
        expected = names["model"](**inputs).logits
        given = {name: tokens.numpy() for name, tokens in inputs.items()}
        found = torch.from_numpy(names["session"].run(["logits"], given)[0])
        torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-5)
