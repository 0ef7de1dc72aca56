"""Text smoothing's experiments: their text, their budgets, and the commands of every row."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from fairseq import options

from examples.text_smoothing import prepare_text
from examples.text_smoothing.prepare_text import drawn
from examples.workflow.settings import load
from tests.tiny_chain import PLUGIN

EXAMPLES = Path(__file__).parents[2] / "examples"
FEW_LABELS, SST2, MULTI30K = "text_smoothing", "text_smoothing/sst2.yaml", "text_smoothing/multi30k.yaml"
VARIANTS = (FEW_LABELS, SST2, MULTI30K)
SIZES = {FEW_LABELS: "cpu", SST2: "cpu-subset", MULTI30K: "laptop"}
ROWS = dict.fromkeys(VARIANTS, "rows=[main,more,controls]") | {SST2: "rows=[main]"}
UNSMOOTHED = {"plain", "twice", "scratch", "prediction-only", "distilled"}


def steps(variant, size, *words):
    folder = EXAMPLES / variant if variant.endswith("yaml") else variant
    given = [f"size={size}", "data=DATA", "teacher=TEACHER", "out=OUT", "seeds=[1]", *words]
    settings, kind = load(folder, given)
    return {step.name: step.command for step in kind.steps(settings)}


def trainings(command):
    """Options of each fairseq-train of a command, as fairseq reads them."""
    command = command.replace('"$(fairseq-bert-kd --user-dir)"', str(PLUGIN))
    for part in command.split(" && "):
        if part.startswith("fairseq-train"):
            parser = options.get_training_parser()
            yield options.parse_args_and_arch(parser, input_args=shlex.split(part)[1:])


def students(variant, size):
    """Command of each row; those of TinyBERT's further rows are left out."""
    commands = steps(variant, size, ROWS[variant])
    names = (re.fullmatch(r"students/(.+)\.1", name) for name in commands)
    return {found[1]: commands[found[0]] for found in names if found and found[1] not in ("teacher", "full")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_row_smooths(variant):
    for name, command in students(variant, SIZES[variant]).items():
        [row] = trainings(command)
        if name in UNSMOOTHED:
            assert not getattr(row, "smoothing_weight", 0), name
            continue
        assert (row.smoothing_weight, row.smoothing_topk) == (0.5, 16), name
        assert row.smoothing_source == (name if name in ("unigram", "uniform", "dropout") else "mlm")
        assert row.smoothing_schedule == (name if name in ("only", "mixed") else "both")
        assert row.smoothing_view == ("masked" if name == "masked" else "unmasked")
        if variant != MULTI30K:
            learns = "smoothed_layer_distillation" if name == "both" else "smoothed_sentence_prediction"
            assert (row.criterion, bool(row.kd_teacher)) == (learns, name == "both")


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_have_equal_updates(variant):
    for size in (SIZES[variant], "seconds"):
        found = {
            name: int(re.search(r"--max-update (\d+)", command)[1])
            for name, command in students(variant, size).items()
        }
        assert {"smoothed", "scratch" if variant == SST2 else "plain"} <= found.keys()
        twice = found.pop("twice", None)
        [updates] = set(found.values())
        assert twice in (None, 2 * updates)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_smoother_is_trained_as_bert_was_and_has_a_store(variant):
    commands = steps(variant, "seconds")
    [smoother] = [
        found
        for name, command in commands.items()
        if not name.startswith("students/")
        for found in trainings(command)
        if getattr(found, "cmlm_one_sided", False)
    ]
    assert (smoother.cmlm_keep, smoother.cmlm_random, smoother.data) == (0.1, 0.1, "data-smoother")
    dumps = re.findall(r"fairseq-bert-kd dump .*?(?= &&|$)", " && ".join(commands.values()))
    side = "source --source-lang en --target-lang de" if variant == MULTI30K else "sentences"
    unmasked = [command for command in dumps if "--view unmasked" in command]
    assert unmasked
    assert all("--path smoother/" in command and f"--side {side} " in command for command in unmasked)


def test_training_has_no_sentence_of_the_other_sets(tmp_path, monkeypatch):
    rows = {"train": ["a x", "b Y", "a z", "b w"], "dev": ["a z", "b v", "a y"], "test": ["b y", "a u"]}
    for split, lines in rows.items():
        text = "".join(line.replace(" ", "\t") + "\n" for line in lines)
        (tmp_path / f"t.{split}.tsv").write_text(text)
    # of which Y is in the test set and V in the validation set
    (tmp_path / "more.txt").write_text("A u\nY\nmore\n\nV\n")
    words = ["--data", tmp_path, "--task", "t", "--draws", 1, "--general", tmp_path / "more.txt"]
    words += ["--out", tmp_path / "text"]
    monkeypatch.setattr(sys, "argv", ["prepare_text.py", *map(str, words)])
    prepare_text.main()
    found = {
        name: set((tmp_path / "text" / name).read_text().split("\n")[:-1])
        for name in ("all.txt", "valid.sentence", "test.sentence")
    }
    assert found == {
        "all.txt": {"x", "w", "a u", "more"},
        "valid.sentence": {"z", "v"},
        "test.sentence": {"y", "u"},
    }


def test_a_row_without_a_label_is_named(tmp_path):
    (tmp_path / "t.train.tsv").write_text("a\tx\nno label\n")
    with pytest.raises(
        ValueError, match=r"t.train.tsv, line 2: expected a label, a tab and a sentence, got 'no label'"
    ):
        prepare_text.read(tmp_path, "t", "train")


def test_draws_have_the_same_rows_of_each_class_and_their_own_sentences():
    rows = [[label, f"{label} {i}"] for label in ("a", "b") for i in range(30)] + [["rare", "rare 0"]]
    one, again, other = (drawn(rows, 10, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert [sum(label == name for label, _ in one) for name in ("a", "b", "rare")] == [10, 10, 1]
    assert len({text for _, text in one}) == 21
