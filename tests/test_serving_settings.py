"""Which settings of a student CTranslate2 takes, as docs/serving.md says: random weights, probabilities of random targets."""

import argparse

import ctranslate2
import numpy as np
import pytest
import torch
from ctranslate2.converters import FairseqConverter
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.tasks.translation import TranslationTask

from fairseq_bert_kd.cli.main import cli_main

SIDES = ("encoder", "decoder")
SIZES = {"embed_dim": 16, "ffn_embed_dim": 32, "attention_heads": 2, "layers": 2}
SMALL = {f"{side}_{name}": size for side in SIDES for name, size in SIZES.items()}
WORDS = [f"w{i}" for i in range(50)]


def dictionary(path, words):
    made = Dictionary()
    for word in words:
        made.add_symbol(word)
    made.save(str(path))
    return made


def converted(folder, **settings):
    """A student of random weights, and its translator."""
    args = argparse.Namespace(
        arch="transformer", task="translation", source_lang="de", target_lang="en", data=str(folder),
        **{"max_source_positions": 64, "max_target_positions": 64, **SMALL, **settings},
    )  # fmt: skip
    ARCH_CONFIG_REGISTRY["transformer"](args)
    joined = getattr(args, "share_all_embeddings", False)
    sides = (WORDS, WORDS) if joined else (WORDS[:20], WORDS[20:])
    dictionaries = [
        dictionary(folder / f"dict.{side}.txt", words)
        for side, words in zip(("de", "en"), sides, strict=True)
    ]
    torch.manual_seed(1)
    model = ARCH_MODEL_REGISTRY["transformer"].build_model(args, TranslationTask(args, *dictionaries)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(mean=float("norm" in name and name.endswith("weight")), std=0.3)
        for side in (model.encoder, model.decoder):
            side.embed_tokens.weight[side.padding_idx] = 0
    state = {
        "args": args,
        "cfg": None,
        "model": model.state_dict(),
        "optimizer_history": [{"num_updates": 1}],
    }
    torch.save(state, folder / "student.pt")
    exported = folder / "exported.pt"
    command = ["export-student", folder / "student.pt", "--data", folder, "--output", exported]
    assert cli_main([*map(str, command)]) == 0
    converter = FairseqConverter(str(exported), str(folder), "de", "en", unsafe_deserialization=True)
    converter.convert(str(folder / "ct2"))
    return model, dictionaries, ctranslate2.Translator(str(folder / "ct2"), intra_threads=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"share_all_embeddings": True},
        {"share_all_embeddings": True, "encoder_learned_pos": True, "decoder_learned_pos": True},
        {"share_all_embeddings": True, "layernorm_embedding": True, "no_scale_embedding": True},
        {"share_decoder_input_output_embed": True, "encoder_layers": 3, "decoder_layers": 1},
        {"encoder_normalize_before": True, "decoder_normalize_before": True, "activation_fn": "gelu"},
        {"decoder_embed_dim": 32},
    ],
)
def test_log_probabilities_are_fairseq_s(tmp_path, settings):
    model, (source, target), translator = converted(tmp_path, **settings)
    read, written = source.symbols[source.nspecial :][:7], target.symbols[target.nspecial :][:6]
    (score,) = translator.score_batch([read], [written])
    ids = [*(target.index(word) for word in written), target.eos()]
    tokens = torch.tensor([[*(source.index(word) for word in read), source.eos()]])
    with torch.no_grad():
        output = model(tokens, torch.tensor([len(tokens[0])]), torch.tensor([[target.eos(), *ids[:-1]]]))
        logprobs = model.get_normalized_probs(output, log_probs=True)[0]
    expected = logprobs[torch.arange(len(ids)), ids].numpy()
    assert np.ptp(expected) > 0.1  # it tells words apart
    assert score.log_probs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"adaptive_softmax_cutoff": "10,20"},
        {"decoder_output_dim": 8},
        {"encoder_normalize_before": True, "decoder_normalize_before": True, "no_decoder_final_norm": True},
        {"no_cross_attention": True},
        {"no_token_positional_embeddings": True},
        {"decoder_attention_heads": 4},
        {"decoder_normalize_before": True},
        {"activation_fn": "tanh"},
    ],
)
def test_the_converter_stops_rather_than_change_a_student(tmp_path, settings):
    with pytest.raises((ValueError, AttributeError)):
        converted(tmp_path, **settings)
    assert (tmp_path / "exported.pt").is_file()
    assert not (tmp_path / "ct2").exists()
