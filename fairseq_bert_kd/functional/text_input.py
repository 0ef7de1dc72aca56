"""A batch of one or two texts as an encoder's input, and the input of a masked language model over student ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_bert_kd.functional.text_format import TextFormat

BIDIRECTIONAL = "bidirectional"
LEFT_TO_RIGHT = "left-to-right"
ATTENTIONS = (BIDIRECTIONAL, LEFT_TO_RIGHT)


class TextInput(NamedTuple):
    """Input of a transformers encoder, and where each text went.

    Attributes:
        input_ids: ``(batch, input_len)`` int64 encoder ids, padded on the right.
        attention_mask: ``(batch, input_len)`` int64, 1 on tokens; or `prefix_attention`.
        token_type_ids: ``(batch, input_len)`` int64 segment ids.
        positions: one ``(batch, text_len)`` int64 per text, the input position of each token; any value on padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    positions: tuple[Tensor, ...]


def assemble_texts(texts: Sequence[Tensor], lengths: Sequence[Tensor], text_format: TextFormat) -> TextInput:
    """Put one text, or two, between the special ids, without gaps.

    Args:
        texts: one or two ``(batch, text_len)`` int64 encoder ids, right-padded; the last one ends with the closing token.
        lengths: ``(batch,)`` tokens of each text.
        text_format: special ids and segments.
    """
    assert 1 <= len(texts) == len(lengths) <= 2, (len(texts), len(lengths))
    batch, device = texts[0].size(0), texts[0].device
    n_prefix, n_middle = len(text_format.prefix), len(text_format.middle)
    longest = n_prefix + sum(text.size(1) for text in texts) + n_middle * (len(texts) - 1)

    # one column more than needed: padding is written there and cut off
    input_ids = torch.full((batch, longest + 1), text_format.pad, dtype=torch.int64, device=device)
    # the special ids are written one by one: a list would make the CPU wait for its way to a GPU
    for column, token in enumerate(text_format.prefix):
        input_ids[:, column] = token
    start = torch.full((batch, 1), n_prefix, device=device)  # first column of the text
    positions, starts = [], []
    for number, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        if number:
            for column, token in enumerate(text_format.middle):
                input_ids.scatter_(1, start + column, token)
            start = start + n_middle
        offsets = torch.arange(text.size(1), device=device)
        columns = start + offsets  # (batch, text_len)
        present = offsets < length[:, None]
        input_ids.scatter_(1, columns.masked_fill(~present, longest), text)
        positions.append(columns)
        starts.append(start)
        start = start + length[:, None]

    width = int(start.max())  # `start` is now the length of each row, (batch, 1)
    columns = torch.arange(width, device=device)
    attention_mask = (columns < start).long()  # (batch, width)
    first, second = text_format.segments
    segments = torch.full_like(attention_mask, first)
    if len(texts) == 2:
        segments = torch.where(columns >= starts[1], second, segments)
    return TextInput(input_ids[:, :width], attention_mask, segments * attention_mask, tuple(positions))


@dataclass(frozen=True, eq=False)
class TextLayout:
    """Layout of texts in student ids for a masked language model, which predicts tokens of the last text (the target).

    ``prefix source middle target`` for a C-MLM teacher, ``prefix target`` for a masked language model of sentences.

    A bidirectional teacher sees its mask token in the place of a predicted token, and predicts it there. A
    left-to-right teacher sees all tokens and predicts each one a position earlier: y_1 at the end of the source's side,
    the end of sentence at the last word. It is a prefix language model over the same input. The paper has one in its
    ablation (Chen et al. 2020, Table 6) and does not say how that masks attention; the mask here is ours.

    Attributes:
        attention: one of `ATTENTIONS`.
        to_teacher: ``(dictionary,)`` teacher id of each symbol, for each text's dictionary.
        text_format: special ids of the teacher.
    """

    attention: str
    to_teacher: tuple[Tensor, ...]
    text_format: TextFormat

    def cpu(self) -> "TextLayout":
        """The same with its maps on the CPU."""
        return TextLayout(self.attention, tuple(ids.cpu() for ids in self.to_teacher), self.text_format)

    def lay_out(
        self, texts: Sequence[Tensor], lengths: Sequence[Tensor], hidden: Tensor
    ) -> tuple[TextInput, Tensor]:
        """The teacher's input, and ``(batch, tgt_len)`` int64 input positions at which it predicts the target's tokens.

        Args:
            texts: ``(batch, text_len)`` student ids of each text, right-padded; the last one, the target, ends with end
                of sentence, the one before it does not.
            lengths: ``(batch,)`` tokens of each text.
            hidden: ``(batch, tgt_len)`` bool, target positions at which a bidirectional teacher sees its mask token; values
                on padding have no effect.
        """
        *others, target = (ids[text] for ids, text in zip(self.to_teacher, texts, strict=True))
        causal = self.attention == LEFT_TO_RIGHT
        if not causal:
            target = target.masked_fill(hidden, self.text_format.mask)
        inputs = assemble_texts((*others, target), lengths, self.text_format)
        target_positions = inputs.positions[-1]
        if not causal:
            return inputs, target_positions
        attention = prefix_attention(target_positions[:, 0], inputs.attention_mask)
        return inputs._replace(attention_mask=attention), target_positions - 1


def prefix_attention(target_starts: Tensor, tokens: Tensor) -> Tensor:
    """Which position attends to which: all to the source, target positions also to those up to themselves.

    With s the first position of the target and n the tokens of a pair, position i attends to position j if j < n and
    (j < s or j <= i). Source positions (i < s) therefore never attend to the target, and nothing attends to padding.

    Args:
        target_starts: ``(batch,)`` s of each pair, at least 1.
        tokens: ``(batch, input_len)``, 1 on tokens, 0 on the padding after them.

    Returns:
        ``(batch, input_len, input_len)`` bool, indexed by pair, i and j.
    """
    columns = torch.arange(tokens.size(1), device=tokens.device)
    in_source = columns < target_starts[:, None]  # (batch, j)
    up_to_itself = columns <= columns[:, None]  # (i, j)
    return (in_source[:, None, :] | up_to_itself) & tokens.bool()[:, None, :]  # (batch, i, j)
