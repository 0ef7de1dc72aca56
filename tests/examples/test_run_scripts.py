"""The examples' scripts from end to end, on very little text and with very few updates."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_chain import build_teacher_folder, write_corpus

EXAMPLES = Path(__file__).parents[2] / "examples"
DOCS = EXAMPLES.parent / "docs"


def environment(**settings):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **settings}


def run(script, *arguments, **settings):
    result = subprocess.run(
        ["bash", EXAMPLES / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(**settings),
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    return result.stdout


def test_quickstart_runs_and_a_second_run_reuses_what_is_there(tmp_path):
    settings = {"TRAIN_PAIRS": "200", "TEACHER_UPDATES": "3", "STUDENT_UPDATES": "2"}
    printed = run("quickstart/run.sh", tmp_path, **settings)
    assert "distilled against plain: " in printed
    commands = (tmp_path / "commands.sh").read_text(encoding="utf-8")
    for command in (
        "tokenize",
        "fairseq-preprocess",
        "conditional_masked_lm",
        "dump",
        "--kd-weight 0.5",
        "fairseq-generate",
    ):
        assert command in commands
    assert len(json.loads((tmp_path / "scores.json").read_text())["systems"]) == 2
    again = run("quickstart/run.sh", tmp_path, **settings)
    assert again.count(": done before") == commands.count("# ")
    assert "$ fairseq" not in again


SMALL = {
    "PAIRS": "60",
    "STORE_TOPK": "16",
    "TEACHER_UPDATES": "2",
    "TEACHER_VALIDATE": "1",
    "STUDENT_UPDATES": "2",
    "STUDENT_VALIDATE": "1",
}


def packed(folder):
    for path in folder.iterdir():
        (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def test_multi30k_runs_on_packed_text_row_by_row(tmp_path):
    write_corpus(tmp_path / "raw", train=60)
    packed(tmp_path / "raw")
    bert = build_teacher_folder("bert", tmp_path / "bert")
    arguments = tmp_path / "raw", bert, tmp_path / "out"
    run("multi30k/run.sh", *arguments, SEEDS="1 2", JOBS="2", **SMALL)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (experiment,) = results["experiments"]
    assert {(run["system"], run["seed"]) for run in experiment["runs"]} == {
        (system, seed) for system in ("plain", "distilled") for seed in (1, 2)
    }
    assert all("bleu" in run["scores"]["test"] for run in experiment["runs"])
    printed = run("multi30k/run.sh", *arguments, "topk-1", SEEDS="1", **SMALL)
    assert printed.count("$ fairseq-train") == 1  # the baseline, the teacher and its store were there
    settings = json.loads((tmp_path / "out" / "students" / "topk-1.1" / "run.json").read_text())
    assert settings["group"] == "topk"
    assert settings["store"] == "default"
    assert "--kd-topk 1 " in settings["options"] + " "
    assert (tmp_path / "out" / "report.html").exists()
    another_size_takes_data_teacher_and_store_from_there(*arguments, tmp_path / "other")
    # the command of docs/report.md, with this folder in the place of OUT
    (command,) = re.findall(
        r"<!-- report: .*?```bash\n(.*?)```", (DOCS / "report.md").read_text(), flags=re.S
    )
    subprocess.run(
        ["bash", "-c", command.replace(" OUT ", " out ")], cwd=tmp_path, check=True, env=environment()
    )
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert json.loads((tmp_path / "results.json").read_text())["experiments"]
    assert list((tmp_path / "figures").glob("*.png"))


def another_size_takes_data_teacher_and_store_from_there(raw, bert, finished, out):
    settings = {**SMALL, "SIZE": "ablation", "DRY_RUN": "1", "SEEDS": "1", "FROM": str(finished)}
    printed = run("multi30k/run.sh", raw, bert, out, "distilled", **settings)
    for step in ("tokenize", "preprocess", "teacher", "dump"):
        assert f"== {step}: done before\n\n" in printed
    assert printed.count("$ fairseq-train") == printed.count("--encoder-embed-dim 64") == 2
    assert (out / "logs" / "teacher.log").exists()
    assert '"students/' not in (out / "steps.jsonl").read_text()
    # what is done stays, and says that it was done otherwise
    printed = run("multi30k/run.sh", raw, bert, out, "topk-1", **settings | {"STORE_TOPK": "4", "TOPK": "4"})
    assert "== dump: done before\n   by another command, whose result is kept (remove done/dump" in printed
    assert "== teacher: done before\n\n" in printed
    with pytest.raises(AssertionError, match="differs in title; leave FROM out"):
        run("multi30k/run.sh", raw, bert, f"{out}-2", **settings | {"PAIRS": "50"})
    with pytest.raises(AssertionError, match="no system and no group is called 'topk-8'"):
        run("multi30k/run.sh", raw, bert, out, "topk-8", **settings | {"STORE_TOPK": "4", "TOPK": "4"})
    with pytest.raises(AssertionError, match="differs in size, teacher; give another OUT_DIR"):
        run("multi30k/run.sh", raw, bert, out, **settings | {"SIZE": "laptop", "TEACHER_NAME": "another"})


def refused(script, *arguments, **settings):
    """The text is prepared, then a row that does not exist ends the script."""
    with pytest.raises(AssertionError, match="no system and no group is called 'nothing'"):
        run(script, *arguments, "nothing", **{**SMALL, **settings})


def test_ted_takes_pairs_of_which_neither_side_is_too_long(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for split in ("train", "valid", "test"):
        (raw / f"{split}.de").write_text("a b c\nd\ne f\ng h\n", encoding="utf-8")
        (raw / f"{split}.en").write_text("A\nD E F\nE F\nG\n", encoding="utf-8")
    packed(raw)
    refused("ted_de-en/run.sh", raw, "bert", tmp_path / "out", MAX_WORDS="2", PAIRS="1", TEST_PAIRS="3")
    text = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out" / "text").iterdir()}
    assert (text["train.de"], text["train.en"]) == ("e f\n", "E F\n")
    assert text["valid.de"] == "e f\ng h\n"
    assert text["test.de"] == "a b c\nd\ne f\n"


def test_acl_titles_splits_columns_and_cuts_abstracts(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for split in ("train", "valid", "test"):
        (raw / f"{split}.tsv").write_text("one two three\tTitle A\nfour\tTitle B\n", encoding="utf-8")
    packed(raw)
    refused("acl_titles/run.sh", raw, "bert", tmp_path / "out", WORDS="2", PAIRS="1")
    text = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out" / "text").iterdir()}
    assert (text["train.abstract"], text["train.title"]) == ("one two\n", "Title A\n")
    assert (text["test.abstract"], text["test.title"]) == ("one two\nfour\n", "Title A\nTitle B\n")
    assert json.loads((tmp_path / "out" / "experiment.json").read_text())["metric"] == "rouge"


def test_tatoeba_takes_the_first_pairs_and_a_folder_keeps_its_experiment(tmp_path):
    write_corpus(tmp_path / "raw", train=60)
    refused("tatoeba_de-en/run.sh", tmp_path / "raw", "bert", tmp_path / "out", PAIRS="7")
    assert len((tmp_path / "out" / "text" / "train.de").read_text(encoding="utf-8").splitlines()) == 7
    with pytest.raises(AssertionError, match="differs in title; give another OUT_DIR"):
        run("tatoeba_de-en/run.sh", tmp_path / "raw", "bert", tmp_path / "out", "main", **SMALL)


@pytest.mark.parametrize("task", ["acl_titles", "tatoeba_de-en", "ted_de-en", "multi30k"])
@pytest.mark.parametrize("size", ["gpu", "paper"])
def test_larger_sizes_say_what_they_would_run(tmp_path, task, size):
    write_corpus(tmp_path / "raw", train=60)
    for split in ("train", "valid", "test"):
        lines = ["an abstract\ta title"] * 3
        (tmp_path / "raw" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"DRY_RUN": "1", "SIZE": size, "SEEDS": "1"}
    printed = run(f"{task}/run.sh", tmp_path / "raw", "bert-base", tmp_path / "out", **settings)
    teacher, plain, distilled = re.findall(r"^\$ fairseq-train (.*)$", printed, flags=re.M)
    assert "--teacher-model bert-base" in teacher
    assert " --kd-weight 0" in plain
    budget = [
        re.findall(r"--(?:max-update|max-tokens|lr|warmup-updates|dropout|seed|arch) (\S+)", line)
        for line in (plain, distilled)
    ]
    assert budget[0] == budget[1]
    if size == "paper":
        assert "--max-update 100000 " in teacher
        assert (
            f"--kd-weight {'0.1' if task == 'acl_titles' else '0.5'} --kd-temperature 10 --kd-topk 8"
            in distilled
        )
        assert "--arch distilled_transformer_base" in distilled


def test_an_unknown_size_and_missing_arguments_are_refused(tmp_path):
    with pytest.raises(AssertionError, match="SIZE=huge is not among ablation gpu laptop paper"):
        run("multi30k/run.sh", tmp_path, "bert", tmp_path / "out", SIZE="huge")
    with pytest.raises(AssertionError, match="DATA_DIR TEACHER_DIR OUT_DIR"):
        run("multi30k/run.sh", tmp_path)


def test_what_the_report_needs_is_asked_for_before_the_first_step(tmp_path):
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "jinja2.py").write_text("raise ImportError('not installed')")
    paths = os.pathsep.join([str(shadow), str(EXAMPLES.parent)])
    with pytest.raises(AssertionError) as told:
        run("tatoeba_de-en/run.sh", tmp_path, "bert", tmp_path / "out", PYTHONPATH=paths)
    assert "a report needs jinja2 (not installed). Install it with:" in str(told.value)
    assert "leave the report out: REPORT=0" in str(told.value)
    assert not (tmp_path / "out" / "text").exists()
