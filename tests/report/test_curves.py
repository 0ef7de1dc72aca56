import pytest

from fairseq_bert_kd.report.curves import (
    STUDENT_CURVES,
    SystemCurve,
    read_student_logs,
    read_teacher_logs,
    system_curve,
)
from fairseq_bert_kd.report.experiment import read_experiment
from fairseq_bert_kd.report.notes import Note, Notes
from tests.report.small_experiments import done, log_lines, write_experiment, write_text


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "out", store=False)


def read(folder, reader):
    notes = Notes(folder)
    experiment = read_experiment(folder, notes)
    return experiment, reader(experiment, notes), notes


def test_the_mean_is_over_updates_that_all_seeds_have():
    curve = SystemCurve("x", "x", {1: {100: 4.0, 200: 2.0, 300: 1.0}, 2: {200: 3.0, 100: 5.0}})
    assert curve.mean == {100: 4.5, 200: 2.5}
    assert SystemCurve("x", "x", {}).mean == {}


def test_curves_of_a_system(folder):
    experiment, logs, notes = read(folder, read_student_logs)
    assert notes == []
    runs = [run for run in experiment.runs if run.system == "plain"]
    curve = system_curve(runs, logs, STUDENT_CURVES[0])
    assert curve.by_seed[1][100] == pytest.approx(5.1)  # the log's offset is a tenth of the seed
    assert curve.mean[400] == pytest.approx(2.15)
    assert system_curve(runs, {}, STUDENT_CURVES[0]) is None


def test_logs_absent_cut_short_and_behind_are_noted(folder):
    logs = folder / "logs/students"
    (logs / "plain.1.log").unlink()
    write_text(logs / "plain.2.log", log_lines(300))
    write_text(logs / "distilled.1.log", [*log_lines(200), done()])
    assert read(folder, read_student_logs)[2] == [
        Note("logs/students/distilled.1.log", "training ended after 200 of 400 updates"),
        Note("logs/students/plain.1.log", "not there: no learning curve"),
        Note("logs/students/plain.2.log", "cut short or still running: it ends after 300 of 400 updates"),
    ]


def test_teachers(folder):
    lines = log_lines(600, name="masked_accuracy 50.5")
    lines += [line.replace("loss 1.000", "loss 9.000") for line in lines[-2:]]
    write_text(folder / "logs/teacher-small.log", lines)  # the last validation, logged again, is the worst
    _, teachers, notes = read(folder, read_teacher_logs)
    assert [(t.name, t.updates, t.accuracy, t.perplexity) for t in teachers] == [
        ("teacher", 400, 62.4, 4.0),
        ("teacher-small", 400, 50.5, 4.0),
    ]
    assert notes == [Note("logs/teacher-small.log", "cut short or still running: it ends after 600 updates")]


def test_a_teacher_whose_log_is_missing_beside_another(folder):
    (folder / "logs/teacher.log").rename(folder / "logs/teacher-small.log")
    _, teachers, notes = read(folder, read_teacher_logs)
    assert [teacher.name for teacher in teachers] == ["teacher-small"]
    assert notes == [
        Note("logs/teacher.log", "not there: masked accuracy and perplexity of the teacher are not known")
    ]


def test_without_a_teachers_log_or_validation(folder):
    write_text(folder / "logs/teacher.log", ["nothing", done()])
    _, teachers, notes = read(folder, read_teacher_logs)
    assert teachers == []
    assert notes == [Note("logs/teacher.log", "holds no validation: the teacher's accuracy is not known")]
    (folder / "logs/teacher.log").unlink()
    assert "not there: masked accuracy" in read(folder, read_teacher_logs)[2][0].text
