"""Hooked states against those that transformers gives itself, in training mode without dropout."""

import pytest
import torch
import transformers
from torch import nn

from fairseq_bert_kd.functional.encoder_states import AttentionParts, EncoderParts, record
from fairseq_bert_kd.modules.encoder_layers import inside

SIZES = {
    "vocab_size": 20,
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 16,
}
OTHERS = {
    "distilbert": {"dim": 12, "n_layers": 3, "n_heads": 3, "hidden_dim": 16, "dropout": 0.0, "attention_dropout": 0.0},
    "electra": {"embedding_size": 8},  # a projection stands between embeddings and first layer
}  # fmt: skip
KNOWN = ["bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"]
IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
LAYERS = (1, 2, 3)


def encoder(model_type, attention=None):  # None: the fastest one that the installed transformers has
    torch.manual_seed(0)
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    settings = {"pad_token_id": 0, **SIZES, **no_dropout, **OTHERS.get(model_type, {})}
    config = transformers.AutoConfig.for_model(model_type, **settings)
    return transformers.AutoModel.from_config(config, attn_implementation=attention).float().train()


@pytest.mark.parametrize("model_type", KNOWN)
def test_scores_give_the_attention_of_the_eager_path(model_type):
    model, eager = encoder(model_type), encoder(model_type, "eager")
    eager.load_state_dict(model.state_dict())
    attentions = eager(input_ids=IDS, attention_mask=MASK, output_attentions=True).attentions
    with record(inside(model), scores=LAYERS) as states:
        model(input_ids=IDS, attention_mask=MASK)
    absent = ~MASK.bool()[:, None, None, :]
    for layer, expected in zip(LAYERS, attentions, strict=True):
        softmax = states.scores(layer).masked_fill(absent, -torch.inf).softmax(dim=-1)
        torch.testing.assert_close(softmax, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model_type", KNOWN)
def test_hidden_states_are_those_of_transformers(model_type):
    model = encoder(model_type)
    expected = model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
    with record(inside(model), hidden=range(4)) as states:
        model(input_ids=IDS, attention_mask=MASK)
    assert list(states.hidden) == [0, 1, 2, 3]
    for layer in range(4):
        torch.testing.assert_close(states.hidden[layer], expected[layer], rtol=0, atol=1e-6)


def test_relations_are_the_projections_and_nothing_else_is_kept():
    model = encoder("bert")
    with record(inside(model), hidden=(1,), relations=(3,)) as states:
        model(input_ids=IDS)
    hidden = model(input_ids=IDS, output_hidden_states=True).hidden_states
    attention = model.encoder.layer[2].attention.self
    expected = (attention.query(hidden[2]), attention.key(hidden[2]), attention.value(hidden[2]))
    torch.testing.assert_close(states.relations(3), expected)
    assert states.scores(3).shape == (2, 3, 5, 5)
    assert list(states.hidden) == [1]
    with pytest.raises(KeyError):
        states.scores(2)


def test_scores_by_hand():
    """One head of width 4: the scores of ones with ones are 4 / sqrt(4)."""
    layer = nn.Identity()
    parts = EncoderParts((layer,), (AttentionParts(nn.Identity(), nn.Identity(), nn.Identity()),), heads=1)
    with record(parts, hidden=(0, 1), scores=(1,)) as states:
        parts.attentions[0].query(torch.tensor([[[1.0, 1, 1, 1], [1, 0, 0, 0]]]))
        parts.attentions[0].key(torch.tensor([[[1.0, 1, 1, 1], [0, 3, 0, 0]]]))
        layer(torch.ones(1, 2, 4))
    torch.testing.assert_close(states.scores(1), torch.tensor([[[[2.0, 1.5], [0.5, 0.0]]]]))
    assert torch.equal(states.hidden[0], states.hidden[1])


def test_gradients_flow_and_hooks_go():
    model = encoder("distilbert")
    with record(inside(model), hidden=(2,), scores=(1,)) as states:
        model(input_ids=IDS)
    (states.scores(1).sum() + states.hidden[2].square().sum()).backward()
    assert model.transformer.layer[0].attention.k_lin.weight.grad.abs().sum() > 0
    assert model.transformer.layer[2].attention.k_lin.weight.grad is None
    before = states.hidden[2]
    model(input_ids=IDS)
    assert states.hidden[2] is before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in inside(model).layers)


def test_hooks_go_after_an_error():
    model = encoder("bert")
    with pytest.raises(RuntimeError, match="stop"), record(inside(model), hidden=(0, 1)):
        raise RuntimeError("stop")
    layer = inside(model).layers[0]
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"hidden": [4]}, "layers 0 to 3, but layer 4"),
        ({"hidden": [-1]}, "layers 0 to 3, but layer -1"),
        ({"scores": [0]}, "layers 1 to 3, but layer 0"),
        ({"relations": [7]}, "layers 1 to 3, but layer 7"),
    ],
)
def test_layers_that_the_encoder_has_not_are_refused(asked, message):
    with pytest.raises(ValueError, match=message), record(inside(encoder("bert")), **asked):
        pass


def test_other_model_types_are_refused_by_name():
    with pytest.raises(
        ValueError, match="layers of model type `albert` are not known; use an encoder of type bert, "
    ):
        inside(encoder("albert"))


def test_a_layer_that_is_computed_past_its_module_is_found():
    parts = inside(encoder("bert"))
    with (
        pytest.raises(
            ValueError, match="layers 2 of this encoder are computed without calling their modules"
        ),
        record(parts, hidden=[0, 1, 2]),
    ):
        parts.layers[0](torch.zeros(1, 2, 12))


@pytest.mark.parametrize("asked", [{"hidden": [2]}, {"scores": [2]}, {"relations": [2]}])
def test_so_it_is_where_it_is_the_only_one(asked):
    parts = inside(encoder("bert"))
    with (
        pytest.raises(ValueError, match="layers 2 of this encoder are computed without calling"),
        record(parts, **asked),
    ):
        parts.attentions[1].query(torch.zeros(1, 2, 12))
    with record(parts, **asked):
        pass  # nothing ran


def test_embeddings_before_a_layer_that_is_computed_past_its_module_are_not_there():
    parts = inside(encoder("bert"))
    with pytest.raises(ValueError, match="layers 1 of this encoder"), record(parts, hidden=[0]):
        parts.attentions[0].query(torch.zeros(1, 2, 12))
