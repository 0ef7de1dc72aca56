"""Protocols of what a teacher gives. Code that runs a teacher requires one of these, not a model's name.

A protocol has methods only, so that `issubclass` answers for a registered model class before a model is built.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from fairseq_bert_kd.functional.text_input import TextInput, TextLayout


@runtime_checkable
class TokenTeacher(Protocol):
    """Gives a distribution over the student's target dictionary at target positions of a pair, or of a sentence."""

    def text_layout(self) -> TextLayout:
        """The layout of texts in student ids as the encoder's input; its maps lie on the model's device."""

    def extract_features(self, positions: Tensor, **inputs: Tensor) -> Tensor:
        """Hidden states at some input positions, ``(rows, hidden)``.

        Args:
            positions: ``(rows,)`` int64 in the flattened ``(batch, input_len)``.
            inputs: ``input_ids``, ``token_type_ids`` and ``attention_mask`` of `TextLayout.lay_out`; the mask may be left
                out if nothing is padded. Of a teacher with ``entities_digest`` also ``entities``.
        """

    def project(self, features: Tensor) -> Tensor:
        """``(rows, hidden)`` features to ``(rows, target dictionary)`` logits."""

    def max_positions(self) -> int:
        """Tokens of the longest texts of all sides together."""

    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer that made the pieces; empty if not known."""


@runtime_checkable
class WordPredictor(TokenTeacher, Protocol):
    """A `TokenTeacher` of single sentences whose input embeddings compare words."""

    def input_embeddings(self) -> Tensor:
        """``(encoder vocabulary, embedding)`` vectors of the encoder's ids."""


@runtime_checkable
class LayerTeacher(Protocol):
    """Encodes one or two texts with a transformers encoder, its ``encoder``, so that its layers can be seen.

    Its ``classification_heads`` predict, if it has any.
    """

    def lay_out(self, texts: Sequence[Tensor], lengths: Sequence[Tensor]) -> TextInput:
        """One or two texts, ``(batch, text_len)`` ids of the student's dictionary, as the encoder's input."""

    def encode_inputs(self, inputs: TextInput, inputs_embeds: Tensor | None = None) -> Any:
        """What the encoder returns, its last hidden states ``(batch, input_len, d)`` first."""

    def classify(self, hidden: Tensor, inputs: TextInput, head: str) -> Tensor:
        """Last hidden states to the ``(batch, classes)`` logits of a head."""

    def forward(
        self,
        texts: Sequence[Tensor],
        lengths: Sequence[Tensor],
        features_only: bool = False,
        classification_head_name: str | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits of a head, or the last hidden states if none is named; and the `TextInput` under ``inputs``."""

    def max_positions(self) -> int:
        """Most tokens of all texts of a row together, each with its end of sentence."""

    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer that made the pieces; empty if not known."""


@runtime_checkable
class SentenceEncoder(Protocol):
    """Gives a vector for a sentence."""

    def sentence_vectors(self, tokens: Tensor, lengths: Tensor, vector: str | None = None) -> Tensor:
        """``(batch, dim)`` vectors of texts.

        Args:
            tokens: ``(batch, text_len)`` int64 ids of the task's dictionary, right-padded, with end of sentence.
            lengths: ``(batch,)`` tokens of each text, end of sentence included.
            vector: which of the model's vectors, such as ``mean`` or ``cls``; None for the model's own choice.
        """
