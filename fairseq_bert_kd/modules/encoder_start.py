"""Where the training of an encoder starts: pre-trained weights, a checkpoint of ours, or random weights of given sizes."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fairseq_bert_kd import compat
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.modules.encoder_layers import keep_layers
from fairseq_bert_kd.modules.pretrained_encoder import (
    EncoderSpec,
    encoder_from_config,
    encoder_from_pretrained,
)
from fairseq_bert_kd.modules.sentence_classifier import Pooler, SentenceParts, new_linear, take_apart

logger = logging.getLogger(__name__)

# option -> name in a transformers config, which knows the names of other model types
SIZES = {
    "encoder_layers": "num_hidden_layers",
    "encoder_hidden": "hidden_size",
    "encoder_heads": "num_attention_heads",
    "encoder_ffn": "intermediate_size",
}
FFN_OF_DISTILBERT = "hidden_dim"  # the one size whose common name it does not answer to


def starting_point(cfg: Any, vocabulary: Any) -> SentenceParts:
    """Encoder, pooler and classifier as the options of ``hf_encoder`` name them.

    Args:
        cfg: ``encoder_model``, ``encoder_init``, ``encoder_init_layers`` and the sizes.
        vocabulary: text format, digests and number of ids of the task's tokenizer.

    Raises:
        ValueError: options that exclude each other, or weights that do not fit them.
    """
    origins = [name for name in ("encoder_model", "encoder_init") if getattr(cfg, name)]
    if len(origins) == 2:
        raise ValueError(
            "--encoder-model and --encoder-init both say where the encoder starts; give one of them"
        )
    if not origins:
        return random_encoder(cfg, vocabulary)
    if cfg.encoder_model:
        parts = take_apart(*encoder_from_pretrained(cfg.encoder_model))
    else:
        reads_entities = bool(getattr(cfg, "entity_vectors", None))
        parts = parts_of_checkpoint(cfg.encoder_init, vocabulary.digests["tokenizer"], reads_entities)
    if cfg.encoder_init_layers:
        _keep(parts.encoder, cfg.encoder_init_layers)
    _check_sizes(cfg, parts.encoder.config, getattr(cfg, origins[0]))
    return parts


def random_encoder(cfg: Any, vocabulary: Any) -> SentenceParts:
    """A BERT of the given sizes with the random weights of its own initialisation.

    Raises:
        ValueError: a size is missing, or the heads do not divide the width.
    """
    if cfg.encoder_init_layers:
        raise ValueError(
            "--encoder-init-layers chooses layers of --encoder-model or --encoder-init; give one of them"
        )
    layers, hidden, heads = cfg.encoder_layers, cfg.encoder_hidden, cfg.encoder_heads
    if not (layers and hidden and heads):
        raise ValueError(
            "--arch hf_encoder needs --encoder-model, --encoder-init, or the sizes of a new encoder: --encoder-layers, "
            "--encoder-hidden and --encoder-heads"
        )
    if hidden % heads:
        raise ValueError(f"--encoder-hidden must be a multiple of --encoder-heads, got {hidden} and {heads}")
    text_format: TextFormat = vocabulary.text_format
    settings = {
        "model_type": "bert",
        "vocab_size": vocabulary.encoder_size,
        "pad_token_id": text_format.pad,
        "intermediate_size": cfg.encoder_ffn or 4 * hidden,
        **{SIZES[name]: getattr(cfg, name) for name in SIZES if name != "encoder_ffn"},
    }
    return take_apart(encoder_from_config(settings))._replace(pooler=None)


def parts_of_checkpoint(path: str, tokenizer: str, reads_entities: bool = False) -> SentenceParts:
    """`parts_of_state` of a checkpoint, for data of a tokenizer with this digest."""
    try:
        parts, spec = parts_of_state(compat.load_checkpoint(path), path, reads_entities)
    except ValueError as error:
        raise ValueError(f"--encoder-init: {error}") from None
    if spec.digests["tokenizer"] != tokenizer:
        raise ValueError(
            f"--encoder-init `{path}` was trained with another tokenizer (sha256 {spec.digests['tokenizer'][:12]} against "
            f"{tokenizer[:12]}); prepare the data with that one"
        )
    return parts


def entities_of_checkpoint(path: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Sizes of a checkpoint's entity stream (`EncoderSpec.entities`), and the weights of its reader; both empty without one."""
    state = compat.load_checkpoint(path)
    return _described(state).entities, _below(state["model"], "entities.")


def check_same_heads(path: str, heads: int) -> None:
    """ValueError unless the encoder of a checkpoint from which training goes on has so many attention heads: any number fits its weights."""
    trained = _described(compat.load_checkpoint(path)).config.get("num_attention_heads", heads)
    if trained != heads:
        raise ValueError(
            f"checkpoint `{path}`, from which training goes on, has --encoder-heads {trained}, which is {heads} now: its weights would "
            f"compute something else; give {trained}, or another --save-dir"
        )


def head_names(path: str, head: str) -> tuple[str, ...]:
    """Label names of a head of a checkpoint; empty where it has no such head, or none with names."""
    heads = _described(compat.load_checkpoint(path)).heads
    return tuple(heads[head].names) if head in heads else ()


def _described(state: dict[str, Any]) -> EncoderSpec:
    """What a checkpoint of ours says about its encoder."""
    settings = compat.model_settings(state)
    return EncoderSpec.from_json(settings.get("encoder_spec") or settings["teacher_spec"])


def parts_of_state(
    state: dict[str, Any], name: str, reads_entities: bool = False
) -> tuple[SentenceParts, EncoderSpec]:
    """Encoder of a checkpoint of ours with its weights, pooler and classifier if there are, and its description.

    Args:
        state: content of the checkpoint.
        name: its path, for the message.
        reads_entities: whether the model to build has an entity stream too.

    Raises:
        ValueError: the checkpoint holds no transformers encoder, or one with an entity stream that would be lost.
    """
    settings, weights = compat.model_settings(state), state["model"]
    described = settings.get("encoder_spec") or settings.get("teacher_spec") or "{}"
    if "model_type" not in json.loads(described).get("config", {}):  # other models describe themselves too
        raise ValueError(
            f"`{name}` holds no transformers encoder but a `{settings['_name']}` model; give a checkpoint of "
            "--arch hf_encoder"
        )
    spec = _described(state)
    if spec.entities and not reads_entities:
        raise ValueError(
            f"`{name}` has an entity stream, without which its encoder was not trained; go on from it with --arch "
            "entity_encoder and its --entity-vectors"
        )
    encoder = take_apart(encoder_from_config(spec.config)).encoder
    encoder.load_state_dict(_below(weights, "encoder."))
    parts = SentenceParts(encoder)
    if spec.pooler:
        pooler = Pooler.new(encoder.config)
        pooler.load_state_dict(_below(weights, "pooler."))
        parts = parts._replace(pooler=pooler)
    parts = parts._replace(projections=_projections(spec, weights))
    if len(spec.heads) != 1:
        return parts, spec
    [(head_name, head)] = spec.heads.items()
    trained = _below(weights, f"classification_heads.{head_name}.output.")
    # wider than the encoder: of an entity_encoder that reads at arguments
    output = new_linear(trained["weight"].size(1), head.classes, encoder.config)
    output.load_state_dict(trained)
    form = str(settings["classification_pooling"]), str(settings["classifier"])
    return parts._replace(output=output, names=head.names, form=form), spec


def _projections(spec: EncoderSpec, weights: Mapping[str, Tensor]) -> dict[str, nn.Linear]:
    """Maps of hidden states by name, with their weights."""
    found = {}
    for name, (width, bias) in spec.projections.items():
        below = _below(weights, f"projections.{name}.")
        found[name] = nn.Linear(below["weight"].size(1), width, bias)
        found[name].load_state_dict(below)
    return found


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Weights of one module, without its name."""
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def _keep(encoder: Any, listed: str) -> None:
    """Keep the layers of ``--encoder-init-layers``."""
    try:
        layers = keep_layers(encoder, [int(number) for number in listed.split(",")])
    except ValueError as error:
        raise ValueError(f"--encoder-init-layers {listed}: {error}") from None
    logger.info("--encoder-init-layers: layers %s of %d", listed, layers)


def _check_sizes(cfg: Any, config: Any, origin: str) -> None:
    """ValueError if a given size is not that of the encoder."""
    for option, name in SIZES.items():
        given = getattr(cfg, option)
        own = getattr(config, name, None) or getattr(config, FFN_OF_DISTILBERT, None)
        if given is not None and given != own:
            raise ValueError(
                f"--{option.replace('_', '-')} is {given}, but `{origin}` has {own}; leave the option out, or start from "
                "random weights"
            )


def take_common_parts(
    model: nn.Module, state_dict: dict[str, Any], prefix: str, optional: tuple[str, ...]
) -> None:
    """Let ``--finetune-from-model`` take what checkpoint and model have in common of some parts.

    Args:
        model: model that is loaded.
        state_dict: weights of the checkpoint; weights that fit nothing are taken out, missing ones are the model's own.
        prefix: name of the model in them, as in `upgrade_state_dict_named`.
        optional: names of the parts; all others must fit.
    """
    start = f"{prefix}." if prefix else ""
    own = {f"{start}{key}": weight for key, weight in model.state_dict().items()}
    starts = tuple(f"{start}{part}." for part in optional)
    for key in {*state_dict, *own}:
        if not key.startswith(starts) or same_shape(state_dict.get(key), own.get(key)):
            continue
        if key in own:
            logger.info("%s starts anew: the checkpoint has no such weight", key)
            state_dict[key] = own[key]
        else:
            logger.info("%s of the checkpoint is left out", key)
            del state_dict[key]


def same_shape(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether both are absent, or both present with one shape."""
    return (one is None) == (other is None) and (one is None or other is None or one.shape == other.shape)
