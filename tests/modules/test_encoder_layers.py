import pytest
import torch
import transformers

from fairseq_bert_kd.modules.encoder_layers import keep_first_layers, keep_layers, layer_owner
from fairseq_bert_kd.modules.last_layer import output_rows

SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "hidden_dim": 16,  # DistilBERT's name for the same
    "pad_token_id": 0,
}
KNOWN = ["bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"]
IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])


def encoder(model_type):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **SIZES)
    return transformers.AutoModelForMaskedLM.from_config(config).base_model.eval()


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("model_type", KNOWN)
def test_output_is_that_of_the_layer_before_the_cut(model_type, count):
    model = encoder(model_type)
    expected = model(input_ids=IDS, output_hidden_states=True).hidden_states[count]  # [0] are the embeddings
    assert keep_first_layers(model, count) == 4
    torch.testing.assert_close(model(input_ids=IDS)[0], expected)
    rows = torch.tensor([0, 7])
    torch.testing.assert_close(output_rows(model, rows, input_ids=IDS), expected.reshape(10, 8)[rows])


@pytest.mark.parametrize("model_type", KNOWN)
def test_config_makes_a_model_for_the_kept_weights(model_type):
    model = encoder(model_type)
    keep_first_layers(model, 2)
    config = transformers.AutoConfig.for_model(**{**model.config.to_dict(), "model_type": model_type})
    rebuilt = transformers.AutoModelForMaskedLM.from_config(config).base_model.eval()
    rebuilt.load_state_dict(model.state_dict())  # every weight has its place
    torch.testing.assert_close(rebuilt(input_ids=IDS)[0], model(input_ids=IDS)[0])


@pytest.mark.parametrize("model_type", KNOWN)
def test_chosen_layers_are_applied_in_their_order(model_type):
    model, whole = encoder(model_type), encoder(model_type)
    assert keep_layers(model, (0, 2)) == 4
    assert len(layer_owner(model).layer) == model.config.num_hidden_layers == 2
    layer_owner(whole).layer = torch.nn.ModuleList([layer_owner(whole).layer[0], layer_owner(whole).layer[2]])
    torch.testing.assert_close(model(input_ids=IDS)[0], whole(input_ids=IDS)[0])


@pytest.mark.parametrize("chosen", [(), (0, 4), (-1, 2), (2, 0), (1, 1)])
def test_choices_that_the_model_has_not_are_refused(chosen):
    model = encoder("bert")
    message = f"must be increasing numbers from 0 to 3, the layers of the model, got {','.join(map(str, chosen)) or 'none'}"
    with pytest.raises(ValueError, match=message):
        keep_layers(model, chosen)
    assert len(layer_owner(model).layer) == model.config.num_hidden_layers == 4


@pytest.mark.parametrize("count", [0, -1, 5])
def test_numbers_that_the_model_has_not_are_refused(count):
    model = encoder("bert")
    message = f"the layers to keep must be from 1 to 4, the layers of the pre-trained model, got {count}"
    with pytest.raises(ValueError, match=message):
        keep_first_layers(model, count)
    assert len(layer_owner(model).layer) == model.config.num_hidden_layers == 4


def test_shared_layers_are_refused_by_name():
    model = encoder("albert")
    assert layer_owner(model) is None
    with pytest.raises(ValueError, match="layers of model type `albert` are not known; use an encoder of"):
        keep_first_layers(model, 1)
