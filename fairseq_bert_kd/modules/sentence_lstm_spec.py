"""What a checkpoint says about its ``sentence_lstm``."""

import json
from typing import Any, NamedTuple

from fairseq_bert_kd import compat
from fairseq_bert_kd.functional.text_format import TextFormat

MAX = "max"
MEAN = "mean"
LAST = "last"
ATTENTION = "attention"
POOLINGS = (MAX, MEAN, LAST, ATTENTION)


class LstmSpec(NamedTuple):
    """A checkpoint's description of its model.

    Attributes:
        embedded: ids of the tokenizer that have an embedding.
        sizes: ``embedding_dim``, ``hidden_size``, ``lstm_layers``, ``pooling`` and ``vector_dim``.
        text_format: special ids of the tokenizer.
        digests: digests of what the map to these ids was made with, by name.
    """

    embedded: int
    sizes: dict[str, Any]
    text_format: TextFormat
    digests: dict[str, str]

    def to_json(self) -> str:
        """One line with sorted keys."""
        return json.dumps(self._asdict() | {"text_format": self.text_format.to_dict()}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "LstmSpec":
        """The description of `to_json`."""
        fields = json.loads(text)
        return cls(**fields | {"text_format": TextFormat.from_dict(fields["text_format"])})


def spec_of_state(state: dict[str, Any], name: str) -> LstmSpec:
    """The description in a checkpoint.

    Args:
        state: content of the checkpoint.
        name: its path or option, for the message.

    Raises:
        ValueError: the checkpoint is of another architecture.
    """
    settings = compat.model_settings(state)
    described = settings.get("encoder_spec")
    if not described or "sizes" not in json.loads(described):
        raise ValueError(
            f"{name} holds a `{settings['_name']}` model; give a checkpoint of --arch sentence_lstm"
        )
    return LstmSpec.from_json(described)
