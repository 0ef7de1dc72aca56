"""Criterion layer_distillation: parity with the released formulas, its stages, its teacher, and what it refuses."""

import copy
import json
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions.sentence_prediction import SentencePredictionCriterion
from fairseq.logging import metrics
from omegaconf import OmegaConf
from torch.testing import assert_close

from fairseq_bert_kd.batch import REPEATS, twice
from fairseq_bert_kd.criterions.layer_distillation import LayerDistillationCriterion
from fairseq_bert_kd.criterions.layer_distillation_options import TERMS, LayerDistillationConfig, term_weights
from fairseq_bert_kd.tasks.sentence_prediction_with_teacher import SentencePredictionWithTeacherTask
from fairseq_bert_kd.teachers.layer_teacher import LiveLayerTeacher
from tests.models.small_encoders import FIRST, HEAD, SECOND, batch_of, build, sentence_task, sizes
from tests.tiny_chain import build_teacher_folder


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return sentence_task(build_teacher_folder("bert", tmp_path_factory.mktemp("bert")))


@pytest.fixture
def teacher(task):
    torch.manual_seed(1)
    return build(task, **sizes(layers=4, hidden=24))


@pytest.fixture
def student(task):
    torch.manual_seed(2)
    return build(task, **sizes(layers=2, hidden=12))


def made(task, student, teacher=None, **options):
    """The criterion as the task makes it."""
    task.teacher = None if teacher is None else LiveLayerTeacher(teacher, HEAD)
    task.spec, task.starts_from = SimpleNamespace(texts=1), None
    task.trial_input = lambda: SentencePredictionWithTeacherTask.trial_input(task)
    criterion = LayerDistillationCriterion(OmegaConf.structured(LayerDistillationConfig(**options)), task)
    criterion.prepare(student)
    return criterion.train()


def sample_of(task, *texts):
    """A batch whose sentences differ in their lengths; the labels are 2, 0."""
    net_input = batch_of(task, *texts)
    return {
        "id": torch.arange(2),
        "net_input": net_input,
        "target": torch.tensor([2, 0]),
        "nsentences": 2,
        "ntokens": int(sum(lengths.sum() for lengths in net_input["lengths"])),
    }


def gradients(model):
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


# ---- a sentence that stands in the batch twice -------------------------------------------------------------
def test_each_copy_of_a_sentence_learns_its_own_prediction(task, student, teacher):
    """The teacher reads single sentences and answers for both copies, which stand one after the other."""
    criterion = made(task, student, teacher, layer_stage="prediction")
    sample = sample_of(task, FIRST)
    single = criterion._ask_teacher(student, sample).logits
    answers = criterion._ask_teacher(student, twice(sample)).logits
    assert not torch.equal(single[0], single[1])
    assert [torch.equal(answer, single[row // 2]) for row, answer in enumerate(answers)] == [True] * 4
    loss, size, _ = criterion(student.eval(), sample)
    loss_of_both, size_of_both, _ = criterion(student, twice(sample))
    assert_close(loss_of_both, 2 * loss)
    assert (size, size_of_both) == (2, 4)


# ---- parity with the released code -------------------------------------------------------------------------
def released_states(model, inputs):
    """Logits, scores with the mask in them, and hidden states, as TinyBERT's model returns them."""
    encoder, heads = model.encoder, model.encoder.config.num_attention_heads
    output = encoder(
        input_ids=inputs.input_ids, token_type_ids=inputs.token_type_ids, attention_mask=inputs.attention_mask,
        output_hidden_states=True,
    )  # fmt: skip
    masked = (1.0 - inputs.attention_mask[:, None, None, :].float()) * -10000.0
    scores = []
    for layer, hidden in zip(encoder.encoder.layer, output.hidden_states, strict=False):
        query, key = (
            part(hidden).unflatten(2, (heads, -1)).transpose(1, 2)
            for part in (layer.attention.self.query, layer.attention.self.key)
        )
        scores.append(query @ key.transpose(2, 3) / math.sqrt(query.size(3)) + masked)
    pooled = torch.tanh(model.pooler.dense(output.last_hidden_state[:, 0]))
    logits = model.classification_heads[HEAD].output(torch.relu(pooled))
    return logits, scores, list(output.hidden_states)


def released_losses(student, teacher, inputs):
    """Attention, hidden and prediction loss of a batch, after the lines of the released task_distill.py."""
    logits, scores, hidden = released_states(student, inputs)
    with torch.no_grad():
        teacher_logits, teacher_scores, teacher_hidden = released_states(teacher, inputs)
    step = len(teacher_scores) // len(scores)
    attention = hidden_loss = 0.0
    for place, own in enumerate(scores):
        pair = (own, teacher_scores[place * step + step - 1])
        own, other = (torch.where(each <= -1e2, torch.zeros_like(each), each) for each in pair)
        attention = attention + F.mse_loss(own, other)
    projection = student.projections["shared"]
    for place, own in enumerate(hidden):
        hidden_loss = hidden_loss + F.mse_loss(projection(own), teacher_hidden[place * step])
    soft = (-torch.softmax(teacher_logits, dim=-1) * torch.log_softmax(logits, dim=-1)).mean()
    return {"attention": attention, "hidden": hidden_loss, "prediction": soft}


@pytest.mark.parametrize("texts", [(FIRST,), (SECOND, FIRST)])
def test_parity_with_the_released_formulas(task, texts):
    torch.manual_seed(3)
    teacher = build(task, **sizes(layers=4, hidden=24), classifier="relu")
    student = build(task, **sizes(layers=2, hidden=12), classifier="relu")
    criterion = made(
        task, student, teacher, layer_loss_positions="all", layer_projection="shared", layer_prediction_weight=1.0,
        layer_mean_over_classes=True,
    )  # fmt: skip
    sample = sample_of(task, *texts)
    inputs = student.lay_out(**sample["net_input"])
    assert (inputs.attention_mask == 0).any()
    expected = released_losses(student, teacher, inputs)
    sum(expected.values()).backward()
    wanted = gradients(student)
    student.zero_grad(set_to_none=True)
    loss, size, log = criterion(student, sample)  # in evaluation mode, as the reference: no dropout
    (loss / size).backward()
    assert_close(log["attention_loss"] / 2, expected["attention"].data, atol=1e-5, rtol=1e-5)
    assert_close(
        (log["hidden_loss"] + log["embedding_loss"]) / 2, expected["hidden"].data, atol=1e-5, rtol=1e-5
    )
    assert_close(log["prediction_loss"] / 2, expected["prediction"].data, atol=1e-5, rtol=1e-5)
    found = gradients(student)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_scores_compared_inside_attention_change_nothing(name, tmp_path, monkeypatch):
    """Dropout aside, with padding in the batch."""
    folder = build_teacher_folder(name, tmp_path / "pretrained")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings |= {key: 0.0 for key, value in settings.items() if "dropout" in key and value}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    task = sentence_task(folder)
    student, teacher = (build(task, encoder_model=str(folder)) for _ in range(2))
    torch.manual_seed(4)
    with torch.no_grad():
        for weight in student.parameters():
            weight += 0.1 * torch.randn_like(weight)
    criterion, sample = made(task, student, teacher), sample_of(task, FIRST)
    asked, found = criterion._attention_compares, []
    for inside in (True, False):
        monkeypatch.setattr(criterion, "_attention_compares", lambda model, inside=inside: inside)
        student.zero_grad()
        loss, _, log = criterion(student.train(), sample)
        loss.backward()
        found.append((log["attention_loss"], loss, gradients(student)))
    assert asked(student)
    assert not asked(student.eval())
    assert found[0][0] > 0
    assert_close(*found, rtol=1e-5, atol=1e-5)


# ---- weights and stages ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"layer_stage": "general"}, (1, 1, 1, 0, 0)),
        ({}, (1, 1, 1, 0, 0)),
        ({"layer_stage": "prediction"}, (0, 0, 0, 1, 0)),
        ({"layer_attention_weight": 0.5, "layer_label_weight": 2.0}, (1, 1, 0.5, 0, 2)),
        (
            {"layer_stage": "prediction", "layer_hidden_weight": 1.0, "layer_prediction_weight": 0.0},
            (0, 1, 0, 0, 0),
        ),
    ],
)
def test_stages_set_weights_that_options_override(options, weights):
    assert term_weights(LayerDistillationConfig(**options)) == dict(zip(TERMS, weights, strict=True))


def test_terms_are_logged_with_their_weights_and_add_up(task, student, teacher):
    everything = dict.fromkeys([f"layer_{term}_weight" for term in TERMS], 1.0)
    sample = sample_of(task, FIRST)
    _, size, plain = made(task, student, teacher, **everything)(student, sample)
    assert size == plain["sample_size"] == plain["nsentences"] == 2
    assert_close(sum(plain[f"{term}_loss"] for term in TERMS), plain["loss"])
    weights = dict(zip(everything, (0.5, 2.0, 3.0, 0.25, 4.0), strict=True))
    loss, _, log = made(task, student, teacher, **weights)(student, sample)
    for (name, weight), term in zip(weights.items(), TERMS, strict=True):
        assert_close(log[f"{term}_loss"], plain[f"{term}_loss"] * weight, msg=name)
    assert_close(loss.data, sum(log[f"{term}_loss"] for term in TERMS))


def test_layers_are_summed_and_sentences_too(task, student, teacher):
    criterion = made(task, student, teacher)
    both = sample_of(task, FIRST)
    together = criterion(student, both)[2]
    alone = []
    for line in FIRST:
        net_input = batch_of(task, [line])
        one = {"net_input": net_input, "nsentences": 1, "ntokens": 1}
        alone.append(criterion(student, one)[2])
    for term in ("embedding", "hidden", "attention"):
        assert_close(together[f"{term}_loss"], sum(log[f"{term}_loss"] for log in alone))
    first = made(task, student, teacher, layer_map="0,1,4", layer_attention_weight=0.0)(student, both)[2]
    assert first["hidden_loss"] != together["hidden_loss"]
    assert "attention_loss" not in first


@pytest.mark.parametrize("labels", ["classes", "numbers"])
def test_labels_alone_are_fairseq_s_criterion(task, labels):
    if labels == "numbers":
        task = sentence_task(task.tokenizer.name, label_names=(), num_classes=1)
    torch.manual_seed(2)
    student = build(task, **sizes())
    criterion = made(
        task, student, layer_stage="prediction", layer_prediction_weight=0.0, layer_label_weight=1.0
    )
    assert not criterion.needs_teacher
    stock = SentencePredictionCriterion(
        OmegaConf.create({
            "classification_head_name": HEAD, "regression_target": labels == "numbers", "report_mcc": False,
            "report_acc_and_f1": False, "report_pearson_and_spearman": False,
        }),
        task,
    )  # fmt: skip
    sample = sample_of(task, FIRST)
    if labels == "numbers":
        sample["target"] = torch.tensor([0.5, -1.0])
    results = []
    for each in (criterion, stock):
        student.zero_grad(set_to_none=True)
        torch.manual_seed(5)  # of the dropout
        loss, size, _ = each(student.train(), sample)
        loss.backward()
        results.append((loss, size, gradients(student)))
    (loss, size, grads), (expected, expected_size, expected_grads) = results
    assert torch.equal(loss, expected)
    assert size == expected_size
    assert grads.keys() == expected_grads.keys()
    assert all(torch.equal(grads[name], expected_grads[name]) for name in grads)


def test_the_validation_log_has_terms_and_accuracy(task, student, teacher):
    criterion, sample = made(task, student, teacher, layer_stage="prediction"), sample_of(task, FIRST)
    student.eval()
    log = criterion(student, sample)[2]
    logits = student(**sample["net_input"], classification_head_name=HEAD)[0]
    others = teacher(**sample["net_input"], classification_head_name=HEAD)[0]
    with metrics.aggregate() as logged:
        LayerDistillationCriterion.reduce_metrics([log, log])
    values = logged.get_smoothed_values()
    assert values["accuracy"] == 50.0 * int((logits.argmax(1) == sample["target"]).sum())
    assert values["agreement"] == 50.0 * int((logits.argmax(1) == others.argmax(1)).sum())
    assert values["loss"] == pytest.approx(float(log["loss"]) / 2, abs=1e-4)
    assert values["prediction_loss"] == values["loss"]


def test_every_stage_with_labels_has_an_accuracy_in_validation_only(task, student, teacher):
    criterion, sample = made(task, student, teacher), sample_of(task, FIRST)
    assert "n_accuracy" in criterion(student.eval(), sample)[2]
    assert "n_accuracy" not in criterion(student.train(), sample)[2]
    del sample["target"]
    assert "n_accuracy" not in criterion(student.eval(), sample)[2]


def test_reports_of_validation_are_fairseq_s_names(task, student, teacher):
    """In validation only, and beside the sums."""
    options = {"layer_stage": "prediction", "report_mcc": True}
    criterion, sample = made(task, student, teacher, **options), sample_of(task, FIRST)
    assert criterion.keep_pred_and_targ  # by which the task knows that logs are no sums
    log = criterion(student.eval(), sample)[2]
    with metrics.aggregate(new_root=True) as logged:
        LayerDistillationCriterion.reduce_metrics([log, log])
    assert {"loss", "accuracy", "agreement", "mcc"} <= logged.get_smoothed_values().keys()
    assert log["targ"] == [2, 0]
    assert "pred" not in criterion(student.train(), sample)[2]


def test_numbers_learn_the_teacher_s_numbers(task):
    task = sentence_task(task.tokenizer.name, label_names=(), num_classes=1)
    torch.manual_seed(1)
    teacher, student = build(task, **sizes(layers=4)), build(task, **sizes())
    sample = sample_of(task, FIRST)
    log = made(task, student, teacher, layer_stage="prediction")(student, sample)[2]
    own, other = (
        model(**sample["net_input"], classification_head_name=HEAD)[0] for model in (student, teacher)
    )
    assert_close(log["prediction_loss"], (own - other).square().sum().data)
    assert "n_accuracy" not in log


# ---- relations ---------------------------------------------------------------------------------------------
def test_relations_need_neither_equal_heads_nor_widths(task, teacher):
    torch.manual_seed(2)
    student = build(task, **sizes(layers=3, hidden=20, heads=5))
    options = {"layer_attention_loss": "relations", "layer_relation_heads": 4}
    only = {"layer_embedding_weight": 0.0, "layer_hidden_weight": 0.0}
    criterion = made(task, student, teacher, **options, **only)
    assert not student.projections
    assert criterion.pairs.relations == ((3, 4),)
    loss, _, _ = criterion(student, sample_of(task, FIRST))
    loss.backward()
    assert student.encoder.encoder.layer[2].attention.self.value.weight.grad.abs().sum() > 0
    assert made(task, student, teacher, **options, **only, layer_relation_layer=2).pairs.relations == (
        (3, 2),
    )


# ---- the teacher -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("projection", ["none", "paper", "shared", "per-layer"])
def test_a_copy_of_the_teacher_has_nothing_to_learn(task, teacher, projection):
    student = copy.deepcopy(teacher)
    everything = {"layer_projection": projection, "layer_prediction_weight": 1.0}
    criterion = made(task, student, teacher, **everything)
    for linear in student.projections.values():
        torch.nn.init.eye_(linear.weight)
    loss, _, log = criterion(student.eval(), sample_of(task, FIRST))
    loss.backward()
    assert [float(log[f"{term}_loss"]) for term in ("embedding", "hidden", "attention")] == [0.0] * 3
    for name, gradient in gradients(student).items():
        assert gradient.abs().max() < 1e-7, name


def test_the_teacher_is_frozen_in_evaluation_mode_and_in_no_module(task, student, teacher):
    criterion = made(task, student, teacher, layer_prediction_weight=1.0)
    before = copy.deepcopy(teacher.state_dict())
    sample = sample_of(task, FIRST)
    student.train()
    criterion.train()
    loss, _, _ = criterion(student, sample)
    loss.backward()
    assert not teacher.training
    assert not gradients(teacher)
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())
    assert not list(criterion.parameters())
    assert not criterion.state_dict()
    held = {id(weight) for weight in student.parameters()}
    assert held.isdisjoint(id(weight) for weight in teacher.parameters())


def test_the_teacher_has_no_dropout_and_the_student_has(task, student, teacher):
    assert teacher.encoder.config.hidden_dropout_prob > 0
    live, net_input = LiveLayerTeacher(teacher.train(), HEAD), batch_of(task, FIRST)
    passes = [live.run(net_input, torch.ones(1), hidden=[0, 4], scores=[4], predict=True) for _ in range(2)]
    assert torch.equal(passes[0].logits, passes[1].logits)
    one, other = (each.states for each in passes)
    assert torch.equal(one.hidden[0], other.hidden[0])
    assert torch.equal(one.hidden[4], other.hidden[4])
    assert torch.equal(one.scores(4), other.scores(4))
    assert not one.hidden[4].requires_grad
    student.train()
    hidden = [student(**net_input)[0] for _ in range(2)]
    assert not torch.equal(*hidden)


@pytest.mark.parametrize(
    "options",
    [{}, {"layer_loss_positions": "all"}, {"layer_attention_loss": "relations", "layer_relation_heads": 4}],
)
def test_the_teacher_reads_a_sentence_once_that_stands_in_the_batch_twice(task, student, teacher, options):
    criterion = made(task, student, teacher, layer_prediction_weight=1.0, **options)
    doubled = twice(sample_of(task, FIRST))
    rows = []
    teacher.encoder.register_forward_pre_hook(
        lambda _, args, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    _, size, log = criterion(student.eval(), doubled)
    expected = criterion(student, {**doubled, REPEATS: 1})[2]
    assert rows == [2, 4]
    assert size == 4
    assert log.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(log[name], value)


def test_predictions_alone_are_asked_for_once(task, student, teacher):
    """The second epoch has the same losses, and gradients, without the teacher."""
    criterion, sample = made(task, student, teacher, layer_stage="prediction"), sample_of(task, FIRST)
    rows = []
    teacher.encoder.register_forward_pre_hook(lambda *_: rows.append(1))
    found = []
    for doubled in (sample, sample, twice(sample)):
        student.zero_grad()
        loss, size, _ = criterion(student.eval(), doubled)
        loss.backward()
        found.append((loss / size, next(student.classification_heads[HEAD].parameters()).grad / size))
    assert len(rows) == 1
    for one in found[1:]:
        assert_close(one, found[0])


def test_the_teacher_s_classes_are_put_in_the_student_s_order(task, teacher):
    live, net_input = LiveLayerTeacher(teacher, HEAD, columns=[2, 0, 1]), batch_of(task, FIRST)
    expected, _ = teacher(**net_input, classification_head_name=HEAD)
    assert torch.equal(live.run(net_input, torch.ones(1), predict=True).logits, expected[:, [2, 0, 1]])


def test_half_precision(task, student, teacher):
    """fairseq's --fp16: the student is half, so is its teacher, losses are float32."""
    criterion = made(task, student, teacher, layer_prediction_weight=1.0)
    expected = criterion(student, sample_of(task, FIRST))[2]
    student.half()
    loss, _, log = criterion(student, sample_of(task, FIRST))
    assert loss.dtype == torch.float32
    assert next(teacher.parameters()).dtype == torch.float16
    for term in ("embedding", "hidden", "attention", "prediction"):
        assert_close(log[f"{term}_loss"], expected[f"{term}_loss"], rtol=2e-2, atol=1e-3)


def test_losses_are_float32_under_automatic_casts(task, student, teacher):
    """fairseq's --amp: weights stay float32, activations are cast."""
    for options in ({}, {"layer_attention_loss": "relations", "layer_relation_heads": 4}):
        criterion = made(task, student, teacher, layer_prediction_weight=1.0, **options)
        expected = criterion(student, sample_of(task, FIRST))[2]
        with torch.autocast("cpu", torch.bfloat16):
            loss, _, log = criterion(student, sample_of(task, FIRST))
        loss.backward()
        assert loss.dtype == torch.float32
        for term in ("embedding", "hidden", "attention", "prediction"):
            assert log[f"{term}_loss"].dtype == torch.float32
            assert_close(log[f"{term}_loss"], expected[f"{term}_loss"], rtol=3e-2, atol=3e-2)


def test_scores_that_overflow_in_half_precision(task, student, teacher):
    for model in (student, teacher):
        for layer in model.encoder.encoder.layer:
            for part in (layer.attention.self.query, layer.attention.self.key):
                part.weight.data.mul_(60)
    criterion = made(task, student, teacher, layer_embedding_weight=0.0, layer_hidden_weight=0.0)
    loss, _, log = criterion(student.half(), sample_of(task, FIRST))
    assert torch.isfinite(loss)
    assert log["attention_loss"] > 300  # squares beyond half precision are not needed to see that it is large


# ---- what a stage trains -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "frozen"),
    [
        ({"layer_stage": "general"}, {"pooler.dense", "classification_heads." + HEAD}),
        ({"layer_stage": "prediction"}, set()),
        ({"layer_prediction_weight": 1.0}, set()),
        ({"layer_hidden_weight": 0.0, "layer_attention_weight": 0.0}, {"pooler.dense", "classification_heads." + HEAD, "encoder.encoder"}),
        ({"layer_map": "bottom", "layer_embedding_weight": 0.0}, {"pooler.dense", "classification_heads." + HEAD}),
    ],
)  # fmt: skip
def test_what_a_stage_does_not_reach_is_frozen_and_all_else_gets_a_gradient(
    task, student, teacher, options, frozen
):
    before, state = copy.deepcopy(student.state_dict()), torch.get_rng_state()
    criterion = made(task, student, teacher, **options)
    assert all(
        torch.equal(weight, before[name]) for name, weight in student.state_dict().items() if name in before
    )
    if not student.projections:
        assert torch.equal(torch.get_rng_state(), state)
    assert not gradients(student)
    assert not student.training
    parts = {
        ".".join(name.split(".")[:2])
        for name, weight in student.named_parameters()
        if not weight.requires_grad
    }
    assert parts == frozen
    criterion(student.train(), sample_of(task, FIRST))[0].backward()
    trained = {name for name, weight in student.named_parameters() if weight.requires_grad}
    assert gradients(student).keys() == trained


def test_the_last_layer_s_output_is_frozen_where_only_its_scores_are_learned(task, student, teacher):
    made(task, student, teacher, layer_embedding_weight=0.0, layer_hidden_weight=0.0)
    last = student.encoder.encoder.layer[-1]
    assert last.attention.self.query.weight.requires_grad
    assert not last.attention.self.value.weight.requires_grad
    assert not last.output.dense.weight.requires_grad
    assert student.encoder.encoder.layer[0].output.dense.weight.requires_grad


def test_what_was_frozen_before_stays_frozen(task, student, teacher):
    student.encoder.embeddings.word_embeddings.weight.requires_grad_(False)
    made(task, student, teacher)
    assert not student.encoder.embeddings.word_embeddings.weight.requires_grad


@pytest.mark.parametrize(
    ("projection", "names", "bias"),
    [
        ("paper", ["embedding", "hidden"], False),
        ("shared", ["shared"], True),
        ("per-layer", ["layer0", "layer1", "layer2"], False),
    ],
)
def test_projections_are_the_student_s(task, student, teacher, projection, names, bias):
    made(task, student, teacher, layer_projection=projection)
    assert sorted(student.projections) == names
    for linear in student.projections.values():
        assert (linear.in_features, linear.out_features, linear.bias is not None) == (12, 24, bias)
        assert linear.weight.requires_grad
    assert {name for name in student.state_dict() if name.startswith("projections")} == {
        f"projections.{name}.{part}" for name in names for part in ("weight", "bias")[: 1 + bias]
    }


def test_a_projection_that_no_weight_needs_is_not_made(task, student, teacher):
    made(task, student, teacher, layer_hidden_weight=0.0)
    assert list(student.projections) == ["embedding"]


def test_a_last_stage_without_the_one_before_is_warned_of(task, student, teacher, caplog):
    made(task, student, teacher)
    assert "starts from random weights" not in caplog.text
    made(task, student, teacher, layer_stage="prediction")
    assert "--layer-stage prediction starts from random weights" in caplog.text


# ---- what is refused ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layer_hidden_weight": -1.0}, "--layer-hidden-weight must not be negative, got -1.0"),
        ({"layer_label_weight": float("nan")}, "--layer-label-weight must not be negative, got nan"),
        ({"layer_stage": "prediction", "layer_prediction_weight": 0.0}, "all weights of .* are 0"),
        ({"layer_stage": "general", "layer_label_weight": 1.0}, "--layer-stage general reads unlabelled text"),
        ({"layer_temperature": 0.0}, "--layer-temperature must be positive, got 0.0"),
        ({"layer_relation_heads": 0}, "--layer-relation-heads must be at least 1, got 0"),
        ({"layer_relation_layer": 2}, "--layer-relation-layer 2 is for --layer-attention-loss relations"),
        ({"layer_attention_loss": "relations", "layer_loss_positions": "all"}, "which knows no relations"),
        ({"layer_map": "0,4"}, "--layer-map 0,4: the map of layers `0,4` has 2 numbers and must have 3"),
        ({"layer_map": "middle"}, "--layer-map middle: `middle` is not a map of layers"),
        ({"layer_projection": "none"}, "--layer-projection none needs a student as wide as its teacher, got 12 and 24"),
        ({"layer_attention_loss": "relations", "layer_relation_heads": 5}, "must divide the student's width 12 and .* 24"),
        ({"layer_attention_loss": "relations", "layer_relation_heads": 4, "layer_relation_layer": 5}, "from 1 to 4"),
        ({"classification_head_name": "other", "layer_stage": "prediction"}, "the student has no head `other`"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(task, student, teacher, options, reason):
    with pytest.raises(ValueError, match=reason):
        made(task, student, teacher, **options)
    assert not student.projections


def test_students_that_do_not_fit_are_refused(task, teacher):
    with pytest.raises(
        ValueError, match="the student has 2 heads, the teacher 3. Give the student --encoder-heads 3"
    ):
        made(task, build(task, **sizes(hidden=12, heads=2)), teacher)
    with pytest.raises(ValueError, match=r"divides the teacher's 4 \(1, 2, 4\), it has 3"):
        made(task, build(task, **sizes(layers=3)), teacher)
    with pytest.raises(ValueError, match="at least as many layers; it has 5 and the teacher 4"):
        made(task, build(task, **sizes(layers=5)), teacher)


def test_labels_that_are_not_there_are_refused(task, student, teacher):
    criterion, sample = made(task, student, teacher, layer_label_weight=1.0), sample_of(task, FIRST)
    del sample["target"]
    with pytest.raises(
        ValueError, match=r"--layer-label-weight 1.0 learns from labels, and the data have none"
    ):
        criterion(student, sample)
