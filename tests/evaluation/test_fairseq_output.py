import pytest

from fairseq_bert_kd.evaluation.fairseq_output import (
    read_classes,
    read_hypotheses,
    read_nbest,
    read_numbers,
    read_predictions,
)


@pytest.mark.parametrize("cut", ["D-1\t-0.", "D-1\t-0.2\tgood mor"])
def test_a_hypothesis_cut_in_its_middle(tmp_path, cut):
    path = tmp_path / "x.out"
    path.write_text(f"D-0\t-0.1\tgood\n{cut}")
    with pytest.raises(ValueError, match="has a broken line .*, expected `D-NUMBER score text`") as error:
        read_hypotheses(path, 2)
    assert repr(cut) in str(error.value)


def test_an_empty_hypothesis_is_a_sentence(tmp_path):
    path = tmp_path / "x.out"
    path.write_text("D-0\t-0.1\tgood\t\nD-1\t-0.1\t\n")
    assert read_hypotheses(path, 2) == read_predictions("text", path, 2) == ["good\t", ""]
    assert read_nbest(path) == [["good\t"], [""]]


def test_a_file_with_two_outputs(tmp_path):
    path = tmp_path / "x.out"
    once = "D-1\t-0.1\tgood\nD-1\t-0.2\tbad\nD-0\t-0.1\tday\n"
    path.write_text(once)
    assert read_hypotheses(path, 2) == ["day", "good"]
    path.write_text(once * 2)
    with pytest.raises(ValueError, match="has sentence 1 in two places, so it holds more than one output"):
        read_hypotheses(path, 2)


def test_classes_and_numbers_are_one_per_line(tmp_path):
    path = tmp_path / "x.out"
    path.write_text(" entailment\nneutral\n")
    assert read_classes(path) == ["entailment", "neutral"]
    assert read_predictions("classes", path, 2) == ["entailment", "neutral"]
    path.write_text("1.5\n-2\n")
    assert read_numbers(path) == [1.5, -2.0]


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_classes, "yes\n\nno\n", "line 2: no class; write one class per line"),
        (read_numbers, "1\none\n", "could not convert string to float: 'one'; write one number per line"),
    ],
)
def test_lines_that_are_not_predictions(tmp_path, read, content, message):
    path = tmp_path / "x.out"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read(path)
