"""Labels and teachers in one loss: by hand, and compared with the slow form of each position."""

import math

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss

from fairseq_bert_kd.functional import soft_targets
from fairseq_bert_kd.functional.distillation import OBJECTIVES
from fairseq_bert_kd.functional.teacher_targets import TeacherTargets
from tests.functional.slow_losses import (
    DOUBLE,
    PAD,
    example,
    log_q,
    objective_of,
    rows_of,
    slow_of,
    sums_of,
    targets_of,
    teacher_rows_of,
)

# Two targets of three tokens, vocabulary 5, k = 2, flattened to six positions. The student says the same everywhere;
# -log: 0.693147, 2.302585, 1.609438, 2.302585, 2.302585, together 9.210340.
STUDENT = torch.tensor([0.5, 0.1, 0.2, 0.1, 0.1], dtype=DOUBLE).log().repeat(6, 1)
GOLD = torch.tensor([0, 2, 3, 4, 0, PAD])
TEACHER = TeacherTargets(
    torch.tensor([[0, 2], [2, 0], [3, 4], [0, 0], [0, 2], [0, 0]]),
    torch.tensor([0.0, -math.log(3.0)], dtype=DOUBLE).repeat(6, 1),  # 3/4 and 1/4 of the two
    torch.tensor([True, True, True, False, True, False]),
    # 0.6, 0.2, and 0.2 for all others at temperature 1
    torch.full((6, 1), -math.log(0.6), dtype=DOUBLE),
    (1.0,),
    torch.tensor([0.0, -math.log(3.0), 0.0, 0.0, -math.log(3.0), 0.0], dtype=DOUBLE),
)
BY_HAND = objective_of("paper", 1.0, weight=0.3)


# --- by hand


def test_sums_by_hand():
    sums = sums_of(STUDENT, GOLD, [TEACHER], BY_HAND)
    # labels smoothed by 0.1 / (5 - 2): 0.9 * 0.693147 + 0.033333 * 9.210340 = 0.930844 and so on;
    # 0.930844 + 1.755506 + 2.379338 (gold 3) + 2.379338 (gold 4, no teacher) + 0.930844
    assert sums["label_loss"].item() == pytest.approx(8.375870, abs=2e-6)
    assert sums["nll_loss"].item() == pytest.approx(7.600902, abs=2e-6)
    # 0.922220 + 1.380365 + 2.302585 + 0.922220
    assert sums["kd_loss"].item() == pytest.approx(5.527390, abs=2e-6)
    # 0.7 * (8.375870 - 2.379338) + 0.3 * 5.527390 + 2.379338; sides swapped it would be 8.047
    assert sums["loss"].item() == pytest.approx(8.235127, abs=2e-6)
    assert sums["kd_positions"].item() == sums["kd_rows"].item() == 4
    assert sums["kd_positions"].dtype == torch.int64


def test_metrics_by_hand():
    sums = sums_of(STUDENT, GOLD, [TEACHER], BY_HAND)
    # the student's best is always 0: gold at positions 0 and 4, the teacher's best at the same
    assert sums["n_correct"].item() == 2
    assert sums["kd_agreement"].item() == 2
    # outside {0, 2}: 0.3; outside {3, 4}: 0.8
    assert sums["kd_student_tail"].item() == pytest.approx(0.3 * 3 + 0.8)
    assert sums["kd_captured"].item() == pytest.approx(0.8 * 4)
    # the teacher gives gold 0.6, 0.2, 0.6, 0.2; the student 0.5, 0.2, 0.1, 0.5
    assert sums["kd_teacher_nll"].item() == pytest.approx(-2 * math.log(0.6) - 2 * math.log(0.2))
    assert sums["kd_gold_nll"].item() == pytest.approx(-math.log(0.5 * 0.2 * 0.1 * 0.5))


def test_metrics_at_another_temperature():
    teacher = TEACHER._replace(
        log_normalisers=torch.cat([torch.full((6, 1), math.log(4.0)), TEACHER.log_normalisers], 1).double(),
        temperatures=(2.0, 1.0),
    )
    sums = sums_of(STUDENT, GOLD, [teacher], objective_of("tail-bucket", 2.0))
    # (1 + sqrt(1 / 3)) / 4 each
    assert sums["kd_captured"].item() == pytest.approx(4 * (1 + 3**-0.5) / 4)
    # roots .7071, .3162, .4472, .3162, .3162: outside {0, 2} 3 of the last, outside {3, 4} the others
    roots = [p**0.5 for p in (0.5, 0.1, 0.2, 0.1, 0.1)]
    tail = (3 * 3 * roots[1] + roots[0] + roots[1] + roots[2]) / sum(roots)
    assert sums["kd_student_tail"].item() == pytest.approx(tail)
    # still at temperature 1
    assert sums["kd_teacher_nll"].item() == pytest.approx(-2 * math.log(0.6) - 2 * math.log(0.2))


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"temperatures": (), "log_normalisers": torch.empty(6, 0)}, {"kd_captured", "kd_teacher_nll", "kd_gold_nll"}),
        ({"temperatures": (5.0,)}, {"kd_captured", "kd_teacher_nll", "kd_gold_nll"}),
        ({"gold_logit": None}, {"kd_teacher_nll", "kd_gold_nll"}),
    ],
    ids=["no normalisers", "another temperature", "no gold"],
)  # fmt: skip
def test_what_is_not_known_is_not_logged(changes, missing):
    everything = sums_of(STUDENT, GOLD, [TEACHER], BY_HAND)
    sums = sums_of(STUDENT, GOLD, [TEACHER._replace(**changes)], BY_HAND)
    assert everything.keys() - sums.keys() == missing
    assert sums["loss"] == everything["loss"]


def test_metrics_are_of_the_first_teacher():
    other = TEACHER._replace(topk_ids=TEACHER.topk_ids.flip(1), present=torch.ones(6, dtype=torch.bool))
    sums = sums_of(STUDENT, GOLD, [TEACHER, other], BY_HAND)
    assert (sums["kd_rows"], sums["kd_positions"], sums["kd_agreement"]) == (4, 5, 2)


def test_without_any_teacher_row_the_label_loss_counts_in_full():
    nowhere = TEACHER._replace(present=torch.zeros(6, dtype=torch.bool))
    sums = sums_of(STUDENT, GOLD, [nowhere, nowhere], BY_HAND)
    assert torch.equal(sums["loss"], sums["label_loss"])
    assert sums["loss"].item() == pytest.approx(8.375870, abs=2e-6)
    assert sums["kd_positions"] == sums["kd_loss"] == sums["kd_agreement"] == 0


def test_teacher_rows_on_padding_are_not_covered():
    sums = sums_of(STUDENT, GOLD, [TEACHER._replace(present=torch.ones(6, dtype=torch.bool))], BY_HAND)
    assert sums["kd_positions"] == sums["kd_rows"] == 5
    # 0.693147 of the position that had no row before, whose two tokens are both 0; nothing of the padding
    assert sums["kd_loss"].item() == pytest.approx(5.527390 + 0.693147, abs=2e-6)


@pytest.mark.parametrize(("kind", "rows"), [("confidence", 0.6), ("entropy", None)])
def test_token_weights_by_hand(kind, rows):
    objective = objective_of("paper", 1.0, weight=0.5, token_weight=kind)
    if rows is None:  # of 0.6, 0.2, 0.2
        rows = 1 + (0.6 * math.log(0.6) + 0.4 * math.log(0.2)) / math.log(3)
    w = 0.5 * rows
    total = sums_of(STUDENT, GOLD, [TEACHER], objective)["loss"].item()
    assert total == pytest.approx((1 - w) * (8.375870 - 2.379338) + w * 5.527390 + 2.379338, abs=2e-6)


def test_token_weights_are_at_temperature_1_whatever_the_objectives():
    student, target, teachers = example()
    results = []
    for temperatures in ((1.0, 2.0), (2.0, 1.0)):
        [teacher] = example(temperatures=temperatures)[2]
        objective = objective_of("tail-bucket", 2.0, token_weight="confidence")
        results.append(sums_of(student, target, [teacher], objective)["loss"])
    torch.testing.assert_close(*results)
    # at another temperature they would differ
    assert (teachers[0].log_normalisers[:, 0] - teachers[0].log_normalisers[:, 1]).abs().min() > 0.1


# --- compared with the slow form


def objectives_and_teachers():
    for name in OBJECTIVES:
        yield objective_of(name, 1.0, 0.3, epsilon=0.0), 1  # one normaliser, no sum of logits
        yield objective_of(name, 2.0, 0.3), 3
        if name != "paper":
            yield objective_of(name, 2.0, 0.7, square_temperature=True), 1
    for kind in ("confidence", "entropy"):
        yield objective_of("conditional", 2.0, 0.7, token_weight=kind), 3


@pytest.mark.parametrize(("objective", "count"), objectives_and_teachers(), ids=str)
def test_total_and_gradient_equal_the_slow_form(objective, count):
    student, target, teachers = example(teachers=count)
    student.requires_grad_()
    total = sums_of(student, target, teachers, objective)["loss"]
    expected = slow_of(student, target, teachers, objective)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (total, expected)))


@pytest.mark.parametrize("temperature", [1.0, 5.0, 10.0])
@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_default_objective_to_a_millionth(temperature, weight, dtype):
    student, target, [teacher] = example(positions=30, vocab=60, temperatures=())
    teacher = teacher._replace(topk_logits=teacher.topk_logits.half().to(dtype))
    student = student.to(dtype).requires_grad_()
    objective = objective_of(temperature=temperature, weight=weight)
    total = sums_of(student, target, [teacher], objective)["loss"]
    expected = slow_of(student, target, [teacher], objective)
    assert total.dtype == dtype
    assert total.item() == pytest.approx(expected.item(), rel=1e-6 if dtype == torch.float32 else 1e-12)
    ours, slow = (torch.autograd.grad(loss, student)[0] for loss in (total, expected))
    torch.testing.assert_close(ours, slow, atol=1e-6, rtol=1e-6)


def test_gold_that_is_stored_counts_once():
    # drawn outside it in one store, not in the other
    student, target, [teacher] = example()
    objective = objective_of("sampled", 2.0, 1.0)
    among = (teacher.topk_ids == target[:, None]).any(dim=1) & target.ne(PAD) & teacher.present
    outside = ~among & target.ne(PAD) & teacher.present
    assert among.any()
    assert outside.any()
    results = []
    for stored in (True, False):
        alone = teacher._replace(gold_stored=stored)
        rows = [
            sums_of(student[i : i + 1], target[i : i + 1], [alone.select(slice(i, i + 1))], objective)["loss"]
            for i in range(12)
        ]
        results.append(torch.stack(rows))
    assert torch.equal(results[0][among], results[1][among])
    assert (results[0] - results[1])[outside].abs().min() > 1e-6


@pytest.mark.parametrize("gold_stored", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("gold", [3, 9])
def test_sampled_over_all_draws_is_the_full_divergence(gold_stored, temperature, gold):
    # the gold token is among the 3 (3) or not (9): the mean over draws by their probabilities, exactly
    whole, student, vocab = teacher_rows_of(1, 12), rows_of(1, 12), 12
    assert (gold in whole.topk(3).indices.tolist()[0]) == (gold == 3)
    target, objective = torch.full((vocab,), gold), objective_of("sampled", temperature, 1.0, epsilon=0.0)
    many = whole.expand(vocab, vocab)
    teacher = targets_of(many, 3, gold=target, gold_stored=gold_stored)
    draws = torch.arange(vocab)[:, None]
    teacher = teacher._replace(sample_ids=draws, sample_logits=many.gather(1, draws))
    probs = whole[0].exp().scatter(0, teacher.topk_ids[0], 0.0)
    if gold_stored:
        probs[gold] = 0.0
    probs /= probs.sum()
    expected = 0.0
    for v in range(vocab):
        row = slice(v, v + 1)
        total = sums_of(student, target[row], [teacher.select(row)], objective)["loss"]
        expected = expected + probs[v] * total
    torch.testing.assert_close(expected, soft_targets.full(student, whole, temperature).sum())


# --- labels


@pytest.mark.parametrize("symbol", [PAD, 0, 4], ids=["padding", "gold", "other"])
def test_every_symbol_is_in_the_smoothed_sum(symbol):
    target, teacher = torch.tensor([0]), TEACHER.select(slice(3, 4))
    changed = STUDENT[:1].clone()
    changed[0, symbol] -= 3.0
    # log-probabilities that do not sum to one: undo the normaliser's part
    lift = 5 * 0.1 / 3 + 0.9
    labels = [sums_of(row, target, [teacher], BY_HAND)["label_loss"] for row in (changed, STUDENT[:1])]
    difference = (labels[0] - labels[1] - lift * torch.logsumexp(changed, dim=1)).item()
    # 3 * 0.1 / (5 - 2), and 3 * 0.9 more for the gold symbol
    assert difference == pytest.approx(0.1 + (2.7 if symbol == 0 else 0.0))


def test_fairseqs_label_smoothing_differs_by_about_epsilon_over_vocabulary():
    vocab, epsilon, target = 1000, 0.1, torch.tensor([7])
    student, teacher = rows_of(1, vocab), targets_of(teacher_rows_of(1, vocab), 2)
    ours = sums_of(student, target, [teacher], objective_of())["label_loss"]
    q = log_q(student[0], 1.0)[None]
    fairseq, nll = label_smoothed_nll_loss(q, target[:, None], epsilon)
    expected = epsilon / (vocab - 1) * nll + epsilon * -q.sum() / ((vocab - 1) * (vocab - 2))
    torch.testing.assert_close(ours - fairseq, expected)
    assert ours / fairseq - 1 < 3 * epsilon / vocab


# --- temperatures that are not known


@pytest.mark.parametrize(
    ("objective", "temperature"),
    [
        (objective_of("tail-bucket", 3.5), "3.5"),
        (objective_of("sampled", 3.5), "3.5"),
        (objective_of("paper", token_weight="confidence"), "1"),
    ],
)
@pytest.mark.parametrize(("stored", "listed"), [((2.0, 0.25), "2, 0.25"), ((), "no temperature")])
def test_temperature_that_is_not_known_is_an_error(objective, temperature, stored, listed):
    student, target, [teacher] = example(temperatures=stored)
    with pytest.raises(
        ValueError,
        match=rf"log-normaliser at temperature {temperature} is not known; it is known at {listed}$",
    ):
        sums_of(student, target, [teacher], objective)
