"""Files of predictions for GLUE's server."""

import pytest

from fairseq_bert_kd.cli.sentence_presets import GLUE, PRESETS, glue_lines


@pytest.mark.parametrize(
    ("task", "predictions", "spelled"),
    [
        ("sst2", ["positive", "negative"], ["1", "0"]),
        ("cola", ["acceptable", "unacceptable"], ["1", "0"]),
        ("mrpc", ["not_equivalent", "equivalent"], ["0", "1"]),
        ("qqp", ["duplicate", "not_duplicate"], ["1", "0"]),
        ("wnli", ["entailment", "not_entailment"], ["1", "0"]),
        ("rte", ["entailment", "not_entailment"], ["entailment", "not_entailment"]),
        ("qnli", ["not_entailment", "entailment"], ["not_entailment", "entailment"]),
        ("mnli", ["neutral", "contradiction"], ["neutral", "contradiction"]),
        ("stsb", [5.25, -0.5, 2.5], ["5.000000", "0.000000", "2.500000"]),
    ],
)
def test_predictions_are_spelled_as_in_the_task_s_files(task, predictions, spelled):
    rows = [f"{row}\t{label}" for row, label in enumerate(spelled)]
    assert list(glue_lines(task, predictions)) == ["index\tprediction", *rows]


def test_other_tasks_and_classes_are_refused():
    with pytest.raises(ValueError, match="GLUE has no task `trec`; its tasks are cola, sst2"):
        list(glue_lines("trec", ["DESC"]))
    with pytest.raises(
        ValueError, match="the model predicts `good`, the classes of sst2 are negative, positive"
    ):
        list(glue_lines("sst2", ["good"]))


def test_glue_s_tasks_are_known():
    assert set(GLUE) < set(PRESETS)
