"""The teacher's view in a header; older headers are read and written as they were."""

from dataclasses import replace

import pytest

from fairseq_bert_kd.storage.schema import differing_fields, info_digest
from fairseq_bert_kd.storage.topk import TopKInfo, scoring_plan

STRIDED = TopKInfo(
    k=2,
    dictionary_size=10,
    dictionary_digest="ab" * 32,
    split="train",
    source_lang="de",
    target_lang="en",
    passes=7,
    teacher="t/checkpoint_best.pt",
    teacher_digest="cd" * 32,
    mask_ratio=0.15,
    versions={"numpy": "2.0"},
)
PREFIX = replace(STRIDED, mask_plan="left-to-right", passes=1, mask_ratio=0.0)


def test_strided_stores_are_the_same_bytes_as_before_there_was_another_plan():
    assert info_digest(STRIDED).hex() == "b963b87a0f3c85d04ea9a5eecfc7ede5"  # of the code before
    assert "mask_plan" not in STRIDED.stated()


def test_plan_is_part_of_the_digest():
    assert PREFIX.stated()["mask_plan"] == "left-to-right"
    assert info_digest(PREFIX) != info_digest(replace(PREFIX, mask_plan="strided"))
    assert differing_fields(PREFIX, replace(PREFIX, mask_plan="strided")) == [
        "mask_plan: 'left-to-right' against 'strided'"
    ]


def test_plan_in_words():
    assert [scoring_plan(info) for info in (STRIDED, PREFIX)] == ["7 passes", "1 pass, left to right"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_plan": "random"}, "mask_plan must be strided or left-to-right, got 'random'"),
        ({"mask_plan": None}, "mask_plan must be str, got None"),
        ({"passes": 7}, "a left-to-right store was scored in 1 pass, got passes=7"),
    ],
)
def test_impossible_plans_are_refused(changes, message):
    PREFIX.check()
    with pytest.raises(ValueError, match=message):
        replace(PREFIX, **changes).check()
