import argparse

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.distributed import LegacyDistributedDataParallel, ModuleProxyWrapper
from fairseq.models.fconv import FConvModel, fconv_iwslt_de_en
from fairseq.models.lstm import LSTMModel
from fairseq.models.lstm import base_architecture as lstm_defaults
from fairseq.models.transformer import TransformerDecoder, TransformerModel
from fairseq.models.transformer.transformer_legacy import tiny_architecture

from fairseq_bert_kd.batch import TEACHER, pack
from fairseq_bert_kd.criterions.distillation_loss import LabelSmoothedCrossEntropyWithDistillationCriterion
from fairseq_bert_kd.criterions.distillation_options import DistillationConfig
from fairseq_bert_kd.modules.student_projection import Projection, gives_logits, projection_of, scores_of

VOCAB, DIM = 20, 8


class Task:
    def __init__(self):
        self.source_dictionary = self.target_dictionary = Dictionary()
        for token in range(VOCAB - len(self.target_dictionary)):
            self.target_dictionary.add_symbol(str(token))


def transformer(**options):
    settings = {
        "encoder_embed_dim": DIM, "encoder_ffn_embed_dim": 8, "encoder_attention_heads": 2, "encoder_layers": 1,
        "decoder_embed_dim": DIM, "decoder_ffn_embed_dim": 8, "decoder_attention_heads": 2, "decoder_layers": 1,
        "dropout": 0.0, "max_source_positions": 16, "max_target_positions": 16,
    } | options  # fmt: skip
    args = argparse.Namespace(**settings)
    tiny_architecture(args)
    torch.manual_seed(0)
    return TransformerModel.build_model(args, Task()).train()


def lstm(**options):
    sizes = {
        f"{side}_{what}": DIM for side in ("encoder", "decoder") for what in ("embed_dim", "hidden_size")
    }
    args = argparse.Namespace(
        **(
            sizes
            | {"decoder_out_embed_dim": DIM, "dropout": 0.0, "decoder_attention": "1", "criterion": "any"}
            | options
        )
    )
    lstm_defaults(args)
    args.max_source_positions = args.max_target_positions = 16
    torch.manual_seed(0)
    return LSTMModel.build_model(args, Task()).train()


def fconv():
    args = argparse.Namespace(encoder_layers="[(8, 3)]", decoder_layers="[(8, 3)]", dropout=0.0)
    fconv_iwslt_de_en(args)
    args.max_source_positions = args.max_target_positions = 16
    torch.manual_seed(0)
    return FConvModel.build_model(args, Task()).train()


ADAPTIVE = {
    "adaptive_softmax_cutoff": "10",
    "share_decoder_input_output_embed": False,
    "adaptive_softmax_dropout": 0.0,
}
STUDENTS = {
    "transformer": lambda: transformer(),
    "transformer, tied": lambda: transformer(share_all_embeddings=True),
    "transformer, decoder tied": lambda: transformer(share_decoder_input_output_embed=True),
    "transformer, another size before the projection": lambda: transformer(decoder_output_dim=6),
}


def sample():
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(4, VOCAB, (3, 5), generator=generator)
    target[1, 3:] = target[2, 4:] = 1
    previous = torch.cat([torch.full((3, 1), 2), target[:, :-1]], dim=1)
    source = torch.randint(4, VOCAB, (3, 6), generator=generator)
    ids = torch.rand(3, 5, VOCAB, generator=generator).topk(4).indices
    logits = -torch.rand(3, 5, 4, generator=generator).cumsum(-1)
    return {
        "net_input": {
            "src_tokens": source,
            "src_lengths": torch.full((3,), 6),
            "prev_output_tokens": previous,
        },
        "target": target,
        "ntokens": int(target.ne(1).sum()),
        TEACHER: [pack({"topk_ids": ids, "topk_logits": logits.half(), "present": target.ne(1)})],
    }


def loss_and_gradients(model, projection):
    config = DistillationConfig(
        sentence_avg=False, label_smoothing=0.1, kd_topk=4, kd_temperature=10.0, kd_projection=projection
    )
    criterion = LabelSmoothedCrossEntropyWithDistillationCriterion(config, Task()).train()
    model.zero_grad()
    loss, _, _ = criterion(model, sample())
    loss.backward()
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", STUDENTS)
def test_chunked_loss_and_gradients_are_the_plain_ones(name):
    model = STUDENTS[name]()
    assert isinstance(projection_of(model), Projection)
    assert gives_logits(model)
    loss, gradients = loss_and_gradients(model, "chunked")
    expected_loss, expected = loss_and_gradients(model, "plain")
    torch.testing.assert_close(loss, expected_loss)
    assert gradients.keys() == expected.keys()
    assert len(expected) > 5
    for key, gradient in expected.items():
        torch.testing.assert_close(gradients[key], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", STUDENTS)
def test_projection_of_features_is_what_the_model_returns(name):
    model = STUDENTS[name]().eval()
    projection = projection_of(model)
    logits = model(**sample()["net_input"])[0]
    features = model(**sample()["net_input"], features_only=True)[0]
    torch.testing.assert_close(
        torch.nn.functional.linear(features, projection.weight, projection.bias), logits
    )


@pytest.mark.parametrize("cutoff", ["10", "6,12"])
def test_adaptive_softmax_gives_fairseqs_probabilities(cutoff):
    model = transformer(**ADAPTIVE | {"adaptive_softmax_cutoff": cutoff, "adaptive_softmax_factor": 2}).eval()
    net_output = model(**sample()["net_input"])
    with torch.no_grad():
        expected = model.get_normalized_probs(net_output, log_probs=True)
    torch.testing.assert_close(scores_of(model, net_output), expected)
    torch.testing.assert_close(expected.exp().sum(dim=-1), torch.ones(3, 5))


@pytest.mark.parametrize("prefix", [0, 2])
def test_criterions_assemble_what_fairseq_s_own_read_without_a_gradient(prefix):
    model = transformer(**ADAPTIVE).eval()
    config = DistillationConfig(sentence_avg=False, label_smoothing=0.1, ignore_prefix_size=prefix)
    criterion = LabelSmoothedCrossEntropyWithDistillationCriterion(config, Task())
    net_output = model(**sample()["net_input"])
    log_probs, target = criterion.get_lprobs_and_target(model, net_output, sample())
    with torch.no_grad():
        expected, expected_target = criterion.get_lprobs_and_target(model, net_output, sample())
    assert log_probs.shape == (3 * (5 - prefix), VOCAB)
    torch.testing.assert_close(log_probs, expected)
    assert target.tolist() == expected_target.tolist()


class CopyDecoder(TransformerDecoder):
    def output_layer(self, features):
        return torch.log_softmax(super().output_layer(features), -1)


class OwnForward(TransformerModel):
    def forward(self, src_tokens, src_lengths, prev_output_tokens):  # knows no features_only
        return super().forward(src_tokens, src_lengths, prev_output_tokens)


class OwnNormalisation(TransformerModel):
    def get_normalized_probs(self, net_output, log_probs, sample=None):
        return torch.log_softmax(2 * net_output[0], -1)


def with_class(model, kind):
    model.__class__ = kind
    return model


def copying():
    model = transformer()
    model.decoder.__class__ = CopyDecoder
    return model


def find_unused():
    model = transformer()
    model.find_unused_parameters = True
    return model


def scaled_projection():
    class Scaled(torch.nn.Linear):
        def forward(self, features):
            return 2 * super().forward(features)

    model = transformer()
    model.decoder.output_projection.__class__ = Scaled
    return model


OTHERS = {
    "adaptive softmax": (lambda: transformer(**ADAPTIVE), "the student has an adaptive softmax", False),
    "copy mechanism": (copying, "the output layer of CopyDecoder is not a plain projection", True),
    "own probabilities": (
        lambda: with_class(transformer(), OwnNormalisation), "TransformerDecoderBase is not a plain projection", False,
    ),
    "unused parameters": (find_unused, "--find-unused-parameters", True),
    "own projection": (scaled_projection, "is a Scaled, not a plain linear layer", True),
    "own forward pass": (
        lambda: with_class(transformer(), OwnForward), "OwnForward is not one of fairseq's Transformers", True,
    ),
    "convolutional": (fconv, "FConvModel is not one of fairseq's Transformers", True),
    "lstm": (lstm, "LSTMModel is not one of fairseq's Transformers", True),
    "lstm, tied": (
        lambda: lstm(share_all_embeddings=True), "LSTMModel is not one of fairseq's Transformers", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_students_project_themselves(name):
    build, reason, logits = OTHERS[name]
    model = build()
    assert reason in projection_of(model)
    assert gives_logits(model) == logits
    loss, gradients = loss_and_gradients(model, "chunked")  # falls back
    expected, expected_gradients = loss_and_gradients(model, "plain")
    assert torch.equal(loss, expected)
    assert all(torch.equal(gradients[key], value) for key, value in expected_gradients.items())
    # and the plain form asks the model for its probabilities
    batch = sample()
    lprobs = model.get_normalized_probs(model(**batch["net_input"]), log_probs=True)
    teacher = batch[TEACHER][0]
    weights = (teacher["topk_logits"].view(torch.float16).float() / 10).softmax(-1)
    soft = -(weights * lprobs.gather(-1, teacher["topk_ids"].long())).sum(-1)
    nll = -lprobs.gather(-1, batch["target"][..., None])[..., 0]
    label = 0.9 * nll - 0.1 / (VOCAB - 2) * lprobs.sum(-1)
    both = torch.where(batch["target"].ne(1), 0.5 * label + 0.5 * soft, 0.0).sum()
    torch.testing.assert_close(loss, both, rtol=1e-4, atol=1e-4)


def test_projection_is_found_inside_fairseqs_wrapper():
    model = transformer()
    wrapped = ModuleProxyWrapper(LegacyDistributedDataParallel(model, process_group=None, buffer_size=2**10))
    assert projection_of(wrapped).weight is model.decoder.output_projection.weight
    loss, gradients = loss_and_gradients(model, "plain")
    wrapped_loss, wrapped_gradients = loss_and_gradients(wrapped, "chunked")
    torch.testing.assert_close(wrapped_loss, loss)
    torch.testing.assert_close(
        list(wrapped_gradients.values()), list(gradients.values()), rtol=1e-4, atol=1e-6
    )


def test_unknown_wrapper_is_left_alone():
    class Sharded(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    assert "Sharded is not one of fairseq's Transformers" in projection_of(Sharded(transformer()))
