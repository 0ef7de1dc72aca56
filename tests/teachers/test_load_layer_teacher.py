"""Classes of a teacher, by name."""

import pytest

from fairseq_bert_kd.teachers.load_layer_teacher import class_columns


def test_other_orders_are_found_by_name():
    assert class_columns("t", ("no", "yes"), 2, ("no", "yes"), 2) is None
    assert class_columns("t", ("yes", "maybe", "no"), 3, ("no", "yes", "maybe"), 3) == [2, 0, 1]


def test_a_folder_without_names_can_be_given_them(tmp_path):
    """Many classifiers on the hub have transformers' own LABEL_0, LABEL_1."""
    said = "predicts LABEL_0, LABEL_1, and the data's labels are no, yes"
    with pytest.raises(
        ValueError, match=f"{said}.*correct id2label and label2id in the teacher's config.json"
    ):
        class_columns(str(tmp_path), ("LABEL_0", "LABEL_1"), 2, ("no", "yes"), 2)
    for path, classes in ((str(tmp_path), 3), ("checkpoint.pt", 2)):
        names = tuple(f"LABEL_{number}" for number in range(classes))
        with pytest.raises(ValueError, match="fine-tuned on these$"):
            class_columns(path, names, classes, ("no", "yes"), 2)


def test_unlabelled_text_has_no_predictions_to_learn():
    with pytest.raises(ValueError, match="the data have no labels, so the student has none; give data with"):
        class_columns("teacher.pt", ("no", "yes"), 2, (), 0)
