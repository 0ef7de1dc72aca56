import pytest

from fairseq_bert_kd.report.training_log import read_training_log
from tests.report.small_experiments import done, log_lines, write_text


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
    lines += [line.replace("'valid' subset", "'valid1' subset").replace("200", "999") for line in lines]
    write_text(path, [line.replace("num_updates=999", "lr=1") for line in lines])
    log = read_training_log(path)
    assert log.curve("train", "nll_loss") == {100: 5.0}
    assert list(log.valid) == [200]


@pytest.mark.parametrize(
    "damage", [("nll_loss=4.000", "nll_loss=4.00.0"), ("num_updates=200", "num_updates=inf")]
)
def test_a_damaged_number_is_passed_over(path, damage):
    write_text(path, [line.replace(*damage) for line in log_lines(300)])
    assert read_training_log(path).curve("train", "nll_loss") == {100: 5.0, 300: 3.0}


def test_an_empty_log(path):
    path.write_bytes(b"")
    assert read_training_log(path).updates == 0


def test_bytes_that_are_no_utf8(path):
    write_text(path, log_lines(100))
    path.write_bytes(b"\xff\xfe\n" + path.read_bytes())
    assert read_training_log(path).updates == 100
