import json

import pytest

from fairseq_bert_kd.report.read_experiment import Note, Notes, read_experiment, step_rows
from tests.report.small_experiments import experiment_record, run_record, write_experiment, write_json


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "out", store=False)


def read(folder):
    notes = Notes(folder)
    return read_experiment(folder, notes), notes


def test_all_of_it(folder):
    experiment, notes = read(folder)
    assert notes == []
    assert experiment.title == "Toy German-English"
    assert experiment.bleu_tokenize == "13a"
    assert [run.name for run in experiment.runs] == ["distilled.1", "distilled.2", "plain.1", "plain.2"]
    assert experiment.runs[0].option("--kd-topk") == "3"
    assert experiment.runs[0].option("--kd") is None
    assert next(iter(experiment.steps)) == "teacher"
    assert experiment.output(experiment.runs[0], "test") == folder / "outputs" / "distilled.1.test.out"


def test_a_folder_that_is_not_an_experiment(tmp_path):
    with pytest.raises(
        ValueError, match="is not an experiment: it has no experiment.json; give a folder that"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "noted"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object, got list"),
        (json.dumps(experiment_record(format=2)), "has format 2, this code reads format 1"),
        (json.dumps(experiment_record(lowercase="no")), "`lowercase` must be bool, got 'no'"),
        (json.dumps({"format": 1}), "lacks `task`; add it"),
    ],
)
def test_an_experiment_file_that_cannot_be_used(folder, content, noted):
    (folder / "experiment.json").write_text(content)
    with pytest.raises(ValueError, match="experiment.json") as error:
        read(folder)
    assert noted in str(error.value)


def test_broken_runs_are_left_out_and_noted(folder):
    (folder / "students/plain.1/run.json").write_text("{")
    write_json(folder / "students/plain.2/run.json", run_record("plain", 2) | {"seed": "2"})
    write_json(folder / "students/again/run.json", run_record("distilled", 1))
    experiment, notes = read(folder)
    assert [run.name for run in experiment.runs] == ["distilled.1", "distilled.2"]
    noted = {note.where: note.text for note in notes}
    assert "is not valid JSON" in noted["students/plain.1"]
    assert "left out: `students/plain.2/run.json`: `seed` must be int, got '2'" in noted["students/plain.2"]
    assert noted["students/again"] == "left out: its run.json is of distilled.1"


def test_steps_cut_short_and_repeated(folder):
    path = folder / "steps.jsonl"
    path.write_text(path.read_text() + '{"step": "teacher", "seconds": 1, "ended": ""}\n{"step": "du')
    experiment, notes = read(folder)
    assert list(experiment.steps.items())[-1] == ("teacher", 1)
    assert notes[0].text.startswith("line 6 is not readable and is left out: ")
    path.write_text('{"step": "teacher", "seconds": NaN}\n{"step": "dump", "seconds": -1}\n')
    experiment, notes = read(folder)
    assert (experiment.steps, len(notes)) == ({}, 2)
    path.unlink()
    assert read(folder)[1] == [Note("steps.jsonl", "missing: no times of the steps")]


def test_before_the_first_run(tmp_path):
    experiment, notes = read(write_experiment(tmp_path, runs=False, store=False))
    assert experiment.runs == ()
    assert notes == [Note("", "no run has begun yet: there is no students/*/run.json")]


def test_notes_say_things_once_and_without_the_folders_path(tmp_path):
    notes = Notes(tmp_path)
    for _ in range(2):
        notes.add("x", ValueError(f"`{tmp_path}/data-bin/dict.txt` is gone"))
    assert notes == [Note("x", "`data-bin/dict.txt` is gone")]


def test_runs_of_a_system_share_a_row():
    names = [
        "teacher",
        "students/weight-0.1.1",
        "students/weight-0.9.1",
        "students/weight-0.9.2",
        "students/odd",
    ]
    names += ["outputs/weight-0.9.1.test", "outputs/plain.1.test"]
    assert step_rows({name: 10.0 + i for i, name in enumerate(names)}) == {
        "teacher": {"": 10.0},
        "students/weight-0.1": {"1": 11.0},
        "students/weight-0.9": {"1": 12.0, "2": 13.0},
        "students/odd": {"": 14.0},
        "outputs/weight-0.9": {"1.test": 15.0},
        "outputs/plain": {"1.test": 16.0},
    }


@pytest.mark.parametrize(
    ("metric", "kind"),
    [("bleu", "text"), ("rouge", "text"), ("comet", "text"), ("mcc", "classes"), ("spearman", "numbers")],
)
def test_the_metric_names_the_kind_of_task(folder, metric, kind):
    write_json(folder / "experiment.json", experiment_record(metric=metric))
    assert read(folder)[0].kind == kind
