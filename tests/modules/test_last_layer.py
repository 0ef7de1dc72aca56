import pytest
import torch
import transformers

from fairseq_bert_kd.modules.encoder_layers import after_attention
from fairseq_bert_kd.modules.last_layer import output_rows

SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "hidden_dim": 16,  # DistilBERT's name for the same
    "pad_token_id": 0,
}
KNOWN = ["bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"]
ROWS = torch.tensor([1, 3, 4, 9, 9])  # in two rows of five; the last one twice


def encoder(model_type="bert", **settings):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **SIZES, **settings)
    return transformers.AutoModelForMaskedLM.from_config(config).base_model.eval()


def inputs():
    ids = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 0]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def whole(model):
    return model(**inputs())[0].reshape(10, 8)[ROWS]


@pytest.mark.parametrize("model_type", KNOWN)
def test_rows_are_those_of_the_whole_output(model_type):
    model = encoder(model_type)
    assert after_attention(model) is not None
    torch.testing.assert_close(output_rows(model, ROWS, **inputs()), whole(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", KNOWN)
def test_gradients_are_those_of_the_whole_output(model_type):
    gradients = []
    for rows in (lambda model: output_rows(model, ROWS, **inputs()), whole):
        model = encoder(model_type)
        (rows(model) * torch.arange(8.0)).sin().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("model_type", KNOWN)
def test_feed_forward_of_the_last_layer_sees_the_rows_only(model_type):
    model, seen = encoder(model_type), []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module.in_features == 16:
            module.register_forward_hook(lambda _, __, out, name=name: seen.append(out.numel() // 8))
    output_rows(model, ROWS, **inputs())
    assert seen == [10, 5]


def test_no_hook_stays_even_after_an_error():
    model = encoder()
    output_rows(model, ROWS, **inputs())
    with pytest.raises(IndexError):
        output_rows(model, torch.tensor([10]), **inputs())
    assert model(**inputs())[0].shape == (2, 5, 8)


def test_no_rows_give_no_states():
    assert output_rows(encoder(), ROWS[:0], **inputs()).shape == (0, 8)


@pytest.mark.parametrize(
    ("model_type", "settings"), [("mpnet", {}), ("bert", {"chunk_size_feed_forward": 5})]
)
def test_layers_that_are_not_known_compute_the_whole_output(model_type, settings):
    model = encoder(model_type, **settings)
    assert after_attention(model) is None
    torch.testing.assert_close(output_rows(model, ROWS, **inputs()), whole(model))


def test_recomputed_layers_run_whole():
    model = encoder().train()
    model.gradient_checkpointing_enable()
    assert after_attention(model) is None
    output_rows(model, ROWS, **inputs()).sum().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
