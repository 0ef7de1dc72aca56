"""A teacher inside the student's training loop that shows its layers and predictions."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_bert_kd.functional.encoder_states import EncoderStates, record
from fairseq_bert_kd.modules.encoder_layers import inside
from fairseq_bert_kd.teachers.interface import LayerTeacher
from fairseq_bert_kd.teachers.known_predictions import KnownPredictions

HALF = (torch.float16, torch.bfloat16)


class TeacherOutput(NamedTuple):
    """What a student learns from a batch.

    Attributes:
        states: states of the layers that were asked for.
        tokens: ``(batch, length)`` bool, False on padding; None where no layers were asked for.
        logits: ``(batch, classes)`` in the order of the student's classes; None if they were not asked for.
    """

    states: EncoderStates
    tokens: Tensor | None
    logits: Tensor | None

    def repeated(self, times: int) -> "TeacherOutput":
        """That of a batch in which each row stands ``times`` times, one after another; takes the states over."""
        if times == 1:
            return self
        self.states.repeat_rows(times)
        tokens, logits = (
            None if rows is None else rows.repeat_interleave(times, dim=0)
            for rows in (self.tokens, self.logits)
        )
        return TeacherOutput(self.states, tokens, logits)


class LiveLayerTeacher:
    """Runs a frozen encoder beside the student, on the same texts.

    It is deliberately not an nn.Module, so a student, criterion or task that holds it neither trains nor saves it, and
    `train()` does not reach it: its dropout stays off. So the predictions of a text are always the same, and are asked for once
    where nothing else is wanted. It goes to the student's device and takes its type in half
    precision. Each process of a distributed run has its own.

    Args:
        model: taken over: it is put into evaluation mode and frozen.
        head: name of the head whose predictions are learned; None if it has none.
        columns: the teacher's class of each of the student's classes; None if they are the same.
    """

    def __init__(self, model: LayerTeacher, head: str | None = None, columns: list[int] | None = None):
        frozen: Any = model
        self.model = frozen.eval().requires_grad_(False)
        self.head = head
        self._columns = None if columns is None else torch.tensor(columns)
        self._known = KnownPredictions(self._predictions)
        config = self.model.encoder.config
        self.layers: int = config.num_hidden_layers
        self.width: int = config.hidden_size
        self.heads: int = config.num_attention_heads

    def run(
        self,
        net_input: dict[str, Any],
        like: Tensor,
        hidden: Iterable[int] = (),
        scores: Iterable[int] = (),
        relations: Iterable[int] = (),
        predict: bool = False,
    ) -> TeacherOutput:
        """Run on a batch, without a gradient.

        Args:
            net_input: texts and lengths of a batch.
            like: a weight of the student, whose device and type are followed.
            hidden: layers of which hidden states are wanted, 0 for the embeddings.
            scores: layers of which attention scores are wanted.
            relations: layers of which queries, keys and values are wanted.
            predict: whether logits are wanted.
        """
        self._follow(like)
        assert self.head or not predict
        hidden, scores, relations = (sorted({*layers}) for layers in (hidden, scores, relations))
        if predict and not (hidden or scores or relations):
            return TeacherOutput(EncoderStates(self.heads), None, self._known(net_input))
        with torch.no_grad(), record(inside(self.model.encoder), hidden, scores, relations) as states:
            output, extra = self.model(**net_input)
            logits = self.model.classify(output, extra["inputs"], self.head) if predict else None
        return TeacherOutput(states, extra["inputs"].attention_mask.bool(), self._ordered(logits))

    @torch.no_grad()
    def _predictions(self, net_input: dict[str, Any]) -> Any:
        """Logits of a batch; alone they need less of the last layer."""
        return self._ordered(self.model(**net_input, classification_head_name=self.head)[0])

    def _ordered(self, logits: Tensor | None) -> Tensor | None:
        """Logits in the order of the student's classes."""
        return logits if logits is None or self._columns is None else logits[:, self._columns]

    def _follow(self, weight: Tensor) -> None:
        """Go to the student's device, and into its precision if that is half."""
        own = next(self.model.parameters())
        dtype = weight.dtype if weight.dtype in HALF else torch.float32
        if (own.device, own.dtype) != (weight.device, dtype):
            self.model.to(device=weight.device, dtype=dtype)
            if self._columns is not None:
                self._columns = self._columns.to(weight.device)
