"""The blocks of docs/tinybert.md, in order, on small tables and tiny models."""

import re
from pathlib import Path

from tests.test_docs import run
from tests.tiny_chain import build_teacher_folder
from tests.tiny_sentences import write_table

PAGE = (Path(__file__).parents[1] / "docs/tinybert.md").read_text(encoding="utf-8")
SMALLER = {
    "TEACHER=bert-base-uncased": "TEACHER=bert",
    "--arch tinybert_4x312": "--arch tinybert_4x312 --encoder-layers 1 --encoder-hidden 16 --encoder-heads 2 --encoder-ffn 32",
    "fairseq-bert-kd evaluate-sentences": "fairseq-bert-kd evaluate-sentences --cpu",
}


def commands():
    script = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, flags=re.S))
    for printed, tried in SMALLER.items():
        assert printed in script
        script = script.replace(printed, tried)
    return script


def test_commands_of_the_page(tmp_path):
    build_teacher_folder("bert", tmp_path / "bert")
    for name, rows in (("reviews", 40), ("reviews-dev", 20)):
        table = write_table(tmp_path / f"{name}.tsv", rows, seed=rows)
        lines = table.read_text().replace("text\tlabel", "review\topinion").splitlines()
        table.write_text("".join(f"{line}\n" for line in lines))
        text = "".join(f"{line.split(chr(9))[0]}\n" for line in lines[1:])
        (tmp_path / f"{name.replace('reviews', 'text')}.txt").write_text(text)
    said = run(commands(), tmp_path)
    for stage in ("general", "intermediate"):
        assert f"--layer-stage {stage} does not reach" in said
    assert said.count("does not reach") == 2
    assert "| valid on 'valid' subset | loss" in said
    assert re.search(r"prediction_loss [\d.]+ \| accuracy [\d.]+ \| agreement", said)
    assert re.search(r"^against teacher.valid.txt: accuracy [\d.]+, [+-][\d.]+, p = ", said, flags=re.M)
    assert (tmp_path / "classifier" / "model.safetensors").is_file()
