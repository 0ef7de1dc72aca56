"""Starting point of a model with a transformers encoder: a pre-trained folder, or the description in a checkpoint."""

import json
import logging
import pickle
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, NoReturn

from torch import nn

from fairseq_bert_kd import compat
from fairseq_bert_kd.functional.masking import ALWAYS_MASKED, Replacement
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.functional.text_input import BIDIRECTIONAL
from fairseq_bert_kd.modules.weight_files import unreadable_files

logger = logging.getLogger(__name__)

NO_LIMIT = 2**20  # positions of an encoder with relative positions
_NO_FAULT_OF_FILES = (ImportError, MemoryError)


class Head(NamedTuple):
    """Description of a classification head.

    Attributes:
        classes: numbers that it gives.
        names: label names in the order of the numbers; empty for regression.
    """

    classes: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderSpec:
    """A checkpoint's description of its encoder, so that it loads without the original weights and tokenizer.

    Attributes:
        config: settings for `masked_lm_from_config` or `encoder_from_config`.
        text_format: special ids and segments of the input.
        digests: digests of what the maps to the encoder's ids were made with, by name.
        attention: one of `text_input.ATTENTIONS`.
        replacement: what it was trained to see at predicted positions.
        pooler: whether a pooler's weights stand beside the encoder's.
        heads: classification heads by name.
        projections: width and bias of maps of hidden states for training alone, by name.
        entities: sizes of an entity stream; empty without one.
    """

    config: dict[str, Any]
    text_format: TextFormat
    digests: dict[str, str]
    attention: str = BIDIRECTIONAL
    replacement: Replacement = ALWAYS_MASKED
    pooler: bool = False
    heads: dict[str, Head] = field(default_factory=dict)
    projections: dict[str, tuple[int, bool]] = field(default_factory=dict)
    entities: dict[str, Any] = field(default_factory=dict)

    def with_entities(self, entities: dict[str, Any]) -> "EncoderSpec":
        """The same with an entity stream of these sizes."""
        return replace(self, entities=entities)

    def to_json(self) -> str:
        """One line with sorted keys."""
        fields = {
            "config": self.config,
            "pair_format": self.text_format.to_dict(),  # the key that all checkpoints have
            "digests": self.digests,
            "attention": self.attention,
            "replacement": asdict(self.replacement),
            "pooler": self.pooler,
            "heads": self.heads,
            "projections": self.projections,
            **({"entities": self.entities} if self.entities else {}),
        }
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "EncoderSpec":
        """The description of `to_json`; older ones lack some fields, which are then the defaults."""
        fields = json.loads(text)
        return cls(
            config=fields["config"],
            text_format=TextFormat.from_dict(fields["pair_format"]),
            digests=fields["digests"],
            attention=fields.get("attention", BIDIRECTIONAL),
            replacement=Replacement(**fields.get("replacement", {})),
            pooler=fields.get("pooler", False),
            heads={
                name: Head(classes, tuple(names))
                for name, (classes, names) in fields.get("heads", {}).items()
            },
            projections={
                name: (width, bias) for name, (width, bias) in fields.get("projections", {}).items()
            },
            entities=fields.get("entities", {}),
        )


def pretrained_masked_lm(path_or_name: str, with_head: bool = False) -> Any:
    """A pre-trained transformers ``*ForMaskedLM`` in float32, with a complete encoder that looks to both sides.

    Args:
        path_or_name: folder or hub name.
        with_head: whether its head must be pre-trained too; else a missing one starts from random weights, with a warning.

    Raises:
        ValueError: it cannot be loaded, its config and weights differ in size, or weights are missing.
    """
    what = "a masked language model"
    config = _config(path_or_name, what)
    masked_lm, missing = _pretrained(path_or_name, config, "AutoModelForMaskedLM", what)
    head = [key for key in missing if "pooler" not in key]
    if with_head and head:
        raise ValueError(
            f"`{path_or_name}` lacks {len(head)} weights of its masked language modelling head (first: {head[0]}): its "
            "predictions would be random; give a masked language model, or train a head on sentences first (fairseq-train "
            "--task conditional_masked_lm --cmlm-one-sided)"
        )
    if any("dense" in key or "transform" in key for key in head):
        logger.warning(
            "`%s` has no MLM transform (an encoder without its pre-training head): created one with random "
            "weights; it is learned while fine-tuning",
            path_or_name,
        )
    return masked_lm


def encoder_from_pretrained(path_or_name: str) -> tuple[Any, list[str]]:
    """A pre-trained transformers model with a complete encoder, in float32.

    Returns:
        A ``*ForSequenceClassification`` if its config names one, else the encoder alone; and the names of weights outside
        the encoder proper (pooler, head) that it lacks, which are random.

    Raises:
        ValueError: it cannot be loaded, is no encoder, or weights of its encoder are missing.
    """
    config = _config(path_or_name, "an encoder")
    if config.is_encoder_decoder:
        raise ValueError(
            f"`{path_or_name}` is an encoder-decoder ({config.model_type}); give an encoder, such as BERT or RoBERTa"
        )
    classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    model_class = "AutoModelForSequenceClassification" if classifier else "AutoModel"
    return _pretrained(path_or_name, config, model_class, "an encoder")


def _config(path_or_name: str, what: str) -> Any:
    """The transformers config of a folder or hub name, as of an encoder that looks to both sides.

    A model that was saved as the decoder of a sequence-to-sequence model is the same weights under a mask, and perhaps
    cross attention, which an encoder does not have.
    """
    transformers = compat.import_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(path_or_name)
    except _NO_FAULT_OF_FILES:
        raise
    except Exception as error:  # as below
        _raise_not_loaded(path_or_name, what, "config.json", error)
    if getattr(config, "is_decoder", False):
        logger.warning(
            "config.json of `%s` says is_decoder: true (it was saved as a decoder), with which no token sees what follows "
            "it: loaded as an encoder instead, is_decoder: false; its training has to get used to the right context",
            path_or_name,
        )
        config.is_decoder = config.add_cross_attention = False
    return config


def _pretrained(path_or_name: str, config: Any, model_class: str, what: str) -> tuple[Any, list[str]]:
    """A pre-trained model with a complete encoder, and the names of other weights that it lacks."""
    transformers = compat.import_transformers()
    try:
        model, info = getattr(transformers, model_class).from_pretrained(
            path_or_name,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported below, by their sizes
        )
    except _NO_FAULT_OF_FILES:
        raise
    except Exception as error:  # safetensors, pickle, torch and transformers raise very different types
        _raise_not_loaded(path_or_name, what, "config.json and the weights", error)
    _check_sizes(path_or_name, compat.mismatched_sizes(model, info))
    prefix = "" if model.base_model is model else model.base_model_prefix + "."
    missing = sorted(info["missing_keys"])
    optional = [key for key in missing if not key.startswith(prefix) or "pooler" in key]
    encoder = [key for key in missing if key not in optional and "position_ids" not in key]
    if encoder:
        raise ValueError(
            f"`{path_or_name}` lacks {len(encoder)} weights of its encoder (first: {encoder[0]}): it would start from "
            "random numbers; give a complete checkpoint of this architecture"
        )
    return model.float(), optional  # transformers 5 keeps the type in which the weights were saved


def masked_lm_with_random_weights(path_or_name: str) -> Any:
    """The architecture of a folder or hub name with the weights of its config's own initialisation, in float32.

    Raises:
        ValueError: its config cannot be loaded, or is of no masked language model.
    """
    what = "a masked language model"
    config = _config(path_or_name, what)
    try:
        return masked_lm_from_config(config_settings(config))
    except _NO_FAULT_OF_FILES:
        raise
    except Exception as error:  # as above
        _raise_not_loaded(path_or_name, what, "config.json", error)


def config_settings(config: Any) -> dict[str, Any]:
    """Settings of a transformers config for `masked_lm_from_config`, without version, origin and arithmetic."""
    settings = json.loads(config.to_json_string(use_diff=False))
    for key in ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"):
        settings.pop(key, None)
    return settings


def masked_lm_from_config(settings: dict[str, Any]) -> Any:
    """A transformers masked language model with random weights, from the settings of its config.json."""
    return _from_config(settings, "AutoModelForMaskedLM")


def encoder_from_config(settings: dict[str, Any]) -> Any:
    """A transformers encoder with random weights, from the settings of its config.json."""
    return _from_config(settings, "AutoModel")


def classifier_from_config(settings: dict[str, Any]) -> Any:
    """A transformers ``*ForSequenceClassification`` with random weights, from the settings of its config.json."""
    return _from_config(settings, "AutoModelForSequenceClassification")


def _from_config(settings: dict[str, Any], model_class: str) -> Any:
    transformers = compat.import_transformers()
    settings = dict(settings)
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    return getattr(transformers, model_class).from_config(config).float()


def _raise_not_loaded(path_or_name: str, what: str, needed: str, error: Exception) -> NoReturn:
    """Raise the error in our words: about the file that cannot be read, or the library's own first line."""
    reason = next(unreadable_files(path_or_name), "")
    if not reason and any(isinstance(cause, pickle.UnpicklingError) for cause in _causes(error)):
        # transformers' own message proposes to run what the file holds
        reason = "its weights are not a file of tensors alone."
    raise ValueError(
        f"cannot load `{path_or_name}` as {what}: {reason or compat.first_line(error)} "
        f"Give a folder that holds {needed}, or a hub name (which needs a network)."
    ) from (None if reason else error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and the errors during which it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _check_sizes(path_or_name: str, mismatched: Collection[tuple[str, Any, Any]]) -> None:
    """ValueError for weights of other sizes than the config's, given as name, size in the file or None, and size by the config."""
    if mismatched:
        name, *sizes = min(mismatched, key=lambda entry: ("word_embeddings" not in entry[0], entry[0]))
        in_file, by_config = (" x ".join(map(str, size)) if size else "of another size" for size in sizes)
        raise ValueError(
            f"config.json of `{path_or_name}` and its weights are not of one model: {len(mismatched)} weights differ in size, "
            f"`{name}` is {by_config} by config.json and {in_file} in the weights; give both files from the same origin"
        )


def check_embedded(encoder: Any, largest_id: int, name: str) -> None:
    """ValueError if the tokenizer uses ids for which the encoder has no embedding.

    Args:
        encoder: a transformers encoder.
        largest_id: largest id of the tokenizer in use.
        name: folder or hub name of the encoder, for the message.
    """
    embedded = encoder.get_input_embeddings().weight.size(0)
    if largest_id >= embedded:
        raise ValueError(
            f"the tokenizer uses id {largest_id} but `{name}` embeds only {embedded} "
            "ids: model and tokenizer do not belong together; give the model's own tokenizer"
        )


def encoder_positions(encoder: Any) -> int:
    """Number of input tokens for which the encoder has positions.

    RoBERTa and its relatives start counting after the padding index: 514 embeddings, 512 positions.
    """
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - skipped
    limit = getattr(encoder.config, "max_position_embeddings", None)
    return limit if limit and limit > 0 else NO_LIMIT
