"""Packing and unpacking of a teacher's rows in a mini-batch."""

import math

import pytest
import torch

from fairseq_bert_kd.batch import pack, unpack
from fairseq_bert_kd.functional.teacher_targets import TeacherTargets, teacher_targets

PRESENT = torch.tensor([[True, True, False], [True, False, True]])
# all different: number 10 * (3 * sentence + position) + column
IDS = (torch.arange(6)[:, None] * 10 + torch.arange(2)).view(2, 3, 2)


def entry(**changes):
    """Two sentences of three positions, k = 2, two temperatures, one drawn token, a dictionary of 4."""
    rows = {
        "topk_ids": IDS.int(),
        "topk_logits": (-IDS / 8).half(),
        "present": PRESENT,
        "log_normalisers": IDS.float() / 3,
        "temperatures": (1.0, 5.0),
        "weight": 2.5,
        "gold_logit": (-IDS[..., 0] / 4).half(),
        "gold_stored": True,
        "sample_ids": IDS[..., :1].int() + 7,
        "sample_logits": (-IDS[..., :1] / 2).half(),
        "full_logits": torch.arange(24.0).view(2, 3, 4),
    }
    return pack(rows | changes)


def expected(part, rows, fill=0):
    """Flat rows; absent ones (2 and 4) hold zeros."""
    part = part.flatten(0, 1).clone()
    part[[2, 4]] = fill
    return part[rows]


@pytest.mark.parametrize(
    ("prefix", "kept", "rows"),
    [
        (0, None, [0, 1, 2, 3, 4, 5]),
        (1, None, [1, 2, 4, 5]),
        (0, [5, 0, 2], [5, 0, 2]),
        (1, [0, 3], [1, 5]),  # counted after the prefix is left out
        (2, [1], [5]),
        (0, [], []),
        (3, None, []),
    ],
)
def test_rows_are_flat_decoded_and_zero_where_there_are_none(prefix, kept, rows):
    teacher = teacher_targets(
        entry(), prefix, None if kept is None else torch.tensor(kept, dtype=torch.int64)
    )
    fields = {
        "topk_ids": expected(IDS, rows),
        "topk_logits": expected(-IDS.float() / 8, rows),
        "present": PRESENT.flatten()[rows],
        "log_normalisers": expected(IDS.float() / 3, rows),
        "gold_logit": expected(-IDS[..., 0].float() / 4, rows),
        "sample_ids": expected(IDS[..., :1] + 7, rows),
        "sample_logits": expected(-IDS[..., :1].float() / 2, rows),
        "full_logits": expected(torch.arange(24.0).view(2, 3, 4), rows),
    }
    for name, part in fields.items():
        found = getattr(teacher, name)
        assert found.dtype == part.dtype, name
        assert torch.equal(found, part), name
    assert (teacher.temperatures, teacher.weight, teacher.gold_stored) == ((1.0, 5.0), 2.5, True)


def test_only_what_every_teacher_has():
    rows = entry()
    teacher = teacher_targets({name: rows[name] for name in ("topk_ids", "topk_logits", "present")}, 0)
    assert teacher.log_normalisers.shape == (6, 0)
    assert teacher.temperatures == ()
    assert teacher[5:9] == (None, None, None, None)
    assert (teacher.gold_stored, teacher.weight) == (False, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nothing_of_an_absent_row_survives(value):
    absent = ~PRESENT
    rows = entry()
    logits, normalisers = torch.full((2, 3, 2), -1.0).half(), torch.ones(2, 3, 2)
    full = torch.ones(2, 3, 4)
    for part in (logits, normalisers, full):
        part[absent] = value
    rows |= pack(
        {
            "topk_ids": IDS.int() + 1,
            "topk_logits": logits,
            "log_normalisers": normalisers,
            "gold_logit": logits[..., 0].contiguous(),
            "sample_logits": logits,
            "full_logits": full,
        }
    )
    for part in teacher_targets(rows, 0):
        if isinstance(part, torch.Tensor):
            assert torch.isfinite(part).all()
            assert not part[absent.flatten()].any()
            assert part[PRESENT.flatten()].all()


def test_bits_survive_a_round_trip():
    every_half = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    halves = every_half[every_half.isfinite()]  # -0 and subnormal numbers too
    normalisers = torch.tensor([0.0, 1e-30, 10.3, 1 + 2**-23])
    packed = pack(
        {"topk_logits": halves, "gold_logit": halves, "sample_logits": halves, "log_normalisers": normalisers}
    )
    assert {values.dtype for name, values in packed.items() if name != "log_normalisers"} == {torch.int16}
    assert packed["log_normalisers"].dtype == torch.int32
    fields = unpack(packed)
    assert {values.dtype for values in fields.values()} == {torch.float32}
    for name in ("topk_logits", "gold_logit", "sample_logits"):
        assert torch.equal(fields[name].half().view(torch.int16), halves.view(torch.int16))
    assert torch.equal(fields["log_normalisers"], normalisers)


def test_ids_and_other_fields():
    ids, full = torch.tensor([[3, 1]]), torch.tensor([0.5])
    packed = pack({"topk_ids": ids, "sample_ids": ids, "present": torch.tensor([True]), "full_logits": full})
    assert [values.dtype for values in packed.values()] == [
        torch.int32,
        torch.int32,
        torch.bool,
        torch.float32,
    ]
    fields = unpack(packed)
    assert torch.equal(fields["topk_ids"], ids)
    assert fields["sample_ids"].dtype == torch.int64
    assert torch.equal(fields["full_logits"], full)


def test_a_field_of_another_type_is_not_packed():
    with pytest.raises(AssertionError, match="log_normalisers"):
        pack({"log_normalisers": torch.zeros(2).half()})


def test_half_precision_of_fairseq_leaves_numbers_alone():
    # --fp16 casts all float32 tensors of a batch; a normaliser of 10.3 would lose 3 digits
    rows = entry()
    cast = {
        name: part.half() if torch.is_tensor(part) and part.is_floating_point() else part
        for name, part in rows.items()
    }
    ours, before = teacher_targets(cast, 0), teacher_targets(rows, 0)
    for name in ("topk_logits", "log_normalisers", "gold_logit", "sample_logits"):
        assert torch.equal(getattr(ours, name), getattr(before, name))


def test_the_entry_is_not_modified():
    rows = entry()
    before = {name: part.clone() for name, part in rows.items() if torch.is_tensor(part)}
    teacher_targets(rows, 1, torch.tensor([0, 2]))
    assert all(torch.equal(rows[name], part) for name, part in before.items())


def test_some_positions_of_all_parts():
    teacher = teacher_targets(entry(), 0)
    some = teacher.select(slice(1, 4))
    for name, part, whole in zip(TeacherTargets._fields, some, teacher, strict=True):
        assert torch.equal(part, whole[1:4]) if torch.is_tensor(whole) else part == whole, name
    assert teacher.select(slice(5, 99)).topk_ids.tolist() == [[50, 51]]
    bare = TeacherTargets(IDS[0], IDS[0].float(), PRESENT[0], torch.empty(3, 0))
    assert bare.select(slice(0, 2)).gold_logit is None
