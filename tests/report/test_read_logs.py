import pytest

from fairseq_bert_kd.evaluation.fairseq_output import READERS
from fairseq_bert_kd.report.read_experiment import Note, Notes, read_experiment
from fairseq_bert_kd.report.read_logs import (
    STUDENT_CURVES,
    SystemCurve,
    TrainingLog,
    read_student_logs,
    read_teacher_logs,
    read_training_log,
    system_curve,
)
from tests.report.small_experiments import done, json_lines, log_lines, write_experiment, write_text


@pytest.fixture
def path(tmp_path):
    return tmp_path / "plain.1.log"


def test_values_by_update(path):
    write_text(path, [*log_lines(400), done(12.5)])
    log = read_training_log(path)
    assert log.curve("train", "nll_loss") == {100: 5.0, 200: 4.0, 300: 3.0, 400: 2.0}
    assert log.curve("valid", "nll_loss") == {200: 4.0, 400: 2.0}
    assert log.curve("valid", "bleu") == {200: 20.5, 400: 20.5}
    assert log.curve("valid", "masked_accuracy") == {}
    assert (log.updates, log.seconds, log.finished) == (400, 12.5, True)


def test_json_lines_say_the_same(path):
    write_text(path, [*json_lines(400), done(12.5)])
    log = read_training_log(path)
    assert log.curve("train", "nll_loss") == {100: 5.0, 200: 4.0, 300: 3.0, 400: 2.0}
    assert log.curve("valid", "nll_loss") == {200: 4.0, 400: 2.0}
    assert log.curve("valid", "bleu") == {200: 20.5, 400: 20.5}
    assert (log.updates, log.seconds, log.finished) == (400, 12.5, True)


@pytest.mark.parametrize(
    "damage",
    [
        ('"nll_loss": "5.000"', '"nll_loss": 5.00.0'),
        ('"nll_loss": "5.000"', '"nll_loss": [5]'),
        ('"100"', "null"),
    ],
)
def test_a_damaged_json_line_is_skipped(path, damage):
    write_text(path, [line.replace(*damage) for line in json_lines(300)])
    assert read_training_log(path).curve("train", "nll_loss") == {200: 4.0, 300: 3.0}


@pytest.mark.parametrize("name", ["JsonProgressBar", "SimpleProgressBar"])
def test_what_fairseq_itself_logs(path, name, caplog):
    progress_bar = pytest.importorskip("fairseq.logging.progress_bar")
    bar = getattr(progress_bar, name)(range(4), epoch=1, log_interval=2)
    for i in bar:
        bar.log({"nll_loss": 8 - i, "num_updates": i + 1}, tag="train_inner", step=i + 1)
    for subset, loss in (("valid", 2.5), ("valid1", 9.0)):
        bar = getattr(progress_bar, name)(range(4), epoch=1, prefix=f"valid on '{subset}' subset")
        bar.print({"nll_loss": loss, "num_updates": 4}, tag=subset, step=4)
    write_text(path, [f"x | INFO | {record.name} | {record.getMessage()}" for record in caplog.records])
    log = read_training_log(path)
    assert log.curve("train", "nll_loss") == {2: 7.0, 4: 5.0}
    assert log.curve("valid", "nll_loss") == {4: 2.5}


def test_a_log_cut_in_the_middle_of_a_line(path):
    write_text(path, log_lines(200))
    text = path.read_text()
    path.write_text(text[: text.index("num_updates 200") + len("num_updates 2")])
    log = read_training_log(path)
    assert log.valid == {}  # not an update 2
    assert (log.updates, log.finished) == (200, False)


def test_a_run_that_was_started_again(path):
    again = "2026 | INFO | fairseq.trainer | begin training epoch 2"
    write_text(path, [*log_lines(300), done(), again, *log_lines(200, offset=0.5)])
    log = read_training_log(path)
    assert log.curve("train", "nll_loss") == {100: 5.5, 200: 4.5, 300: 3.0}  # the later line counts
    assert not log.finished


def test_values_that_are_not_finite_and_other_subsets_are_left_out(path):
    lines = [line.replace("nll_loss=4.000", "nll_loss=nan") for line in log_lines(200)]
    lines += [
        line.replace("| valid |", "| valid1 |")
        .replace("'valid' subset", "'valid1' subset")
        .replace("200", "999")
        for line in lines
    ]
    write_text(path, [line.replace("num_updates=999", "lr=1") for line in lines])
    log = read_training_log(path)
    assert log.curve("train", "nll_loss") == {100: 5.0}
    assert list(log.valid) == [200]


@pytest.mark.parametrize(
    "damage", [("nll_loss=4.000", "nll_loss=4.00.0"), ("num_updates=200", "num_updates=inf")]
)
def test_a_damaged_number_is_skipped(path, damage):
    write_text(path, [line.replace(*damage) for line in log_lines(300)])
    assert read_training_log(path).curve("train", "nll_loss") == {100: 5.0, 300: 3.0}


def test_an_empty_log(path):
    path.write_bytes(b"")
    assert read_training_log(path).updates == 0


def test_bytes_that_are_not_utf8(path):
    write_text(path, log_lines(100))
    path.write_bytes(b"\xff\xfe\n" + path.read_bytes())
    assert read_training_log(path).updates == 100


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "out", store=False)


def read(folder, reader):
    notes = Notes(folder)
    experiment = read_experiment(folder, notes)
    return experiment, reader(experiment, notes), notes


def test_the_mean_is_over_updates_that_all_seeds_have():
    curve = SystemCurve("x", {1: {100: 4.0, 200: 2.0, 300: 1.0}, 2: {200: 3.0, 100: 5.0}})
    assert curve.mean == {100: 4.5, 200: 2.5}
    assert SystemCurve("x", {1: {100: 4.0}, 2: {200: 3.0}}).mean == {100: 4.0}


def test_every_kind_of_output_has_its_curves():
    assert STUDENT_CURVES.keys() == READERS.keys()


def test_curves_of_a_system(folder):
    experiment, logs, notes = read(folder, read_student_logs)
    assert notes == []
    runs = [run for run in experiment.runs if run.system == "plain"]
    curve = system_curve(runs, logs, STUDENT_CURVES["text"][0])
    assert curve.by_seed[1][100] == pytest.approx(5.1)  # the log's offset is a tenth of the seed
    assert curve.mean[400] == pytest.approx(2.15)
    assert system_curve(runs, {}, STUDENT_CURVES["text"][0]) is None


def test_logs_absent_cut_short_and_behind_are_noted(folder):
    logs = folder / "logs/students"
    (logs / "plain.1.log").unlink()
    write_text(logs / "plain.2.log", log_lines(300))
    write_text(logs / "distilled.1.log", [*log_lines(200), done()])
    assert read(folder, read_student_logs)[2] == [
        Note("logs/students/distilled.1.log", "training ended after 200 of 400 updates"),
        Note("logs/students/plain.1.log", "missing: no learning curve"),
        Note("logs/students/plain.2.log", "cut short or still running: it ends after 300 of 400 updates"),
    ]


def test_teachers(folder):
    lines = log_lines(600, name="masked_accuracy 50.5")
    lines += [line.replace("loss 1.000", "loss 9.000") for line in lines[-2:]]
    write_text(folder / "logs/teacher-small.log", lines)  # the last validation, logged again, is the worst
    _, teachers, notes = read(folder, read_teacher_logs)
    best = {name: (log.best, log.valid[log.best]) for name, log in teachers.items()}
    assert list(best) == ["teacher", "teacher-small"]
    assert (best["teacher"][0], best["teacher-small"][0]) == (400, 400)
    assert best["teacher-small"][1]["masked_accuracy"] == 50.5
    assert best["teacher-small"][1]["ppl"] == 4.0
    assert notes == [Note("logs/teacher-small.log", "cut short or still running: it ends after 600 updates")]


def test_of_equal_losses_the_last_one_is_the_best_as_of_fairseq_s_checkpoints():
    log = TrainingLog(
        valid={update: {"loss": loss} for update, loss in ((1, 3.0), (2, 2.0), (3, 2.0), (4, 2.5))}
    )
    assert log.best == 3
    assert TrainingLog().best is None


def test_a_teacher_whose_log_is_missing_beside_another(folder):
    (folder / "logs/teacher.log").rename(folder / "logs/teacher-small.log")
    _, teachers, notes = read(folder, read_teacher_logs)
    assert list(teachers) == ["teacher-small"]
    assert notes == [Note("logs/teacher.log", "missing: no masked accuracy and perplexity of the teacher")]


def test_without_a_teachers_log_or_validation(folder):
    write_text(folder / "logs/teacher.log", ["nothing", done()])
    _, teachers, notes = read(folder, read_teacher_logs)
    assert teachers == {}
    assert notes == [Note("logs/teacher.log", "has no validation: no accuracy of the teacher")]
    (folder / "logs/teacher.log").unlink()
    assert "missing: no masked accuracy" in read(folder, read_teacher_logs)[2][0].text
