"""The blocks of docs/sentences.md, in order, on small tables and a tiny model."""

import re
from pathlib import Path

from tests.test_docs import run
from tests.tiny_chain import build_teacher_folder
from tests.tiny_sentences import write_table

PAGE = (Path(__file__).parents[1] / "docs/sentences.md").read_text(encoding="utf-8")
# hub names become folders, and a model of 3 layers is small enough at 24 numbers a state
SMALLER = {"TEACHER=bert-base-uncased": "TEACHER=bert", "--encoder-hidden 192": "--encoder-hidden 24"}
NEEDS_NO_GPU = "fairseq-bert-kd evaluate-sentences"


def commands():
    part = PAGE[PAGE.index("<!-- sentences:") : PAGE.index("<!-- end of sentences -->")]
    script = "\n".join(re.findall(r"```bash\n(.*?)```", part, flags=re.S))
    for printed, tried in SMALLER.items():
        assert printed in script
        script = script.replace(printed, tried)
    return script.replace(NEEDS_NO_GPU, f"{NEEDS_NO_GPU} --cpu").replace(
        "fairseq-validate ", "fairseq-validate --cpu "
    )


def test_commands_of_the_page(tmp_path):
    build_teacher_folder("bert", tmp_path / "bert")
    for name, rows in (("reviews", 40), ("reviews-dev", 20), ("new", 10)):
        table = write_table(tmp_path / f"{name}.tsv", rows, seed=rows)
        lines = table.read_text().replace("text\tlabel", "review\topinion").splitlines()
        if name == "new":
            lines = [line.split("\t")[0] for line in lines]
        table.write_text("".join(f"{line}\n" for line in lines))
    said = run(commands(), tmp_path)
    assert "train: 40 rows, " in said
    assert re.search(r"^against reviews.valid.txt: accuracy [\d.]+, [+-][\d.]+, p = ", said, flags=re.M)
    assert (tmp_path / "reviews.valid.txt").read_text().count("\n") == 20
    predicted = (tmp_path / "new.predicted.txt").read_text().split()
    assert len(predicted) == 10
    assert set(predicted) <= {"bad", "good"}
    accuracies = re.findall(r"^accuracy +([\d.]+)  \[", said, flags=re.M)
    assert len(accuracies) == 3  # and none of the file without labels
    assert accuracies[0] == accuracies[2]  # the same rows, as another folder
