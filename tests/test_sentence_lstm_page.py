"""The blocks of docs/sentence_lstm.md, in order, on small text and a tiny teacher."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fairseq_bert_kd.cli.main import cli_main
from tests.test_docs import run
from tests.tiny_chain import WORDS, build_teacher_folder

PAGE = (Path(__file__).parents[1] / "docs/sentence_lstm.md").read_text(encoding="utf-8")
SMALLER = {
    "TEACHER=sentence-transformers/all-MiniLM-L6-v2": "TEACHER=bert",
    "--hidden-size 256": "--hidden-size 8",
}
ON_CPU = ("fairseq-bert-kd evaluate-sentences", "fairseq-bert-kd encode", "fairseq-bert-kd vectors")
NO_ONNX = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]


def blocks(name):
    part = PAGE[PAGE.index(f"<!-- {name}:") : PAGE.index(f"<!-- end of {name} -->")]
    return "\n".join(re.findall(r"```bash\n(.*?)```", part, flags=re.S))


def commands():
    script = blocks("vectors")
    for printed, tried in SMALLER.items():
        assert printed in script
        script = script.replace(printed, tried)
    for command in ON_CPU:
        assert command in script
        script = script.replace(command, f"{command} --cpu")
    return script


def test_commands_of_the_page(tmp_path, monkeypatch, capsys):
    build_teacher_folder("bert", tmp_path / "bert")
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(60)]
    (tmp_path / "sentences.txt").write_text("".join(f"{line}\n" for line in lines[:40]))
    (tmp_path / "sentences-dev.txt").write_text("".join(f"{line}\n" for line in lines[40:]))
    rows = [
        f"{one}\t{other}\t{rng.uniform(0, 5):.2f}" for one, other in zip(lines[:30], lines[30:], strict=True)
    ]
    (tmp_path / "pairs.tsv").write_text("".join(f"{row}\n" for row in ["one\tother\tscore", *rows]))
    said = run(commands(), tmp_path)
    assert "40 vectors `mean` of 32 numbers in float16" in said
    assert said.count("Spearman") >= 2
    vectors = np.load(tmp_path / "vectors.npy")
    assert vectors.shape == (20, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    if NO_ONNX:
        pytest.skip(f"the export needs {' and '.join(NO_ONNX)}")
    monkeypatch.chdir(tmp_path)
    install, export = blocks("onnx").splitlines()
    assert install.startswith("pip install ")
    assert cli_main(shlex.split(export)[1:]) == 0
    capsys.readouterr()
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, flags=re.S)[1], names)
    assert capsys.readouterr().out == "(2, 32)\n"
    np.testing.assert_allclose(names["encode"](lines[40:]), vectors, rtol=0, atol=1e-4)
