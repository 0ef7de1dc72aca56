"""What a teacher may look at: both sides of a target position, or only what stands before it.

A left-to-right teacher is a prefix language model over the same input as the bidirectional one. The paper has such a
teacher in its ablation (Chen et al. 2020, Table 6) and does not say how it masks attention; the mask here is ours.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_bert_kd.functional.pair_input import PairFormat, assemble_pairs

BIDIRECTIONAL = "bidirectional"
LEFT_TO_RIGHT = "left-to-right"
ATTENTIONS = (BIDIRECTIONAL, LEFT_TO_RIGHT)


class TeacherInput(NamedTuple):
    """What an encoder takes, and where its predictions are read.

    Attributes:
        input_ids: ``(batch, pair_len)`` int64 teacher ids, padded on the right.
        attention_mask: ``(batch, pair_len)`` int64, 1 on tokens, of a bidirectional teacher; `prefix_attention` of a
            left-to-right one.
        token_type_ids: ``(batch, pair_len)`` int64 segment ids.
        prediction_columns: ``(batch, tgt_len)`` int64 column of ``input_ids`` at which each target token is predicted.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    prediction_columns: Tensor


def teacher_input(
    attention: str,
    src_tokens: Tensor,
    src_lengths: Tensor,
    tgt_tokens: Tensor,
    tgt_lengths: Tensor,
    predicted: Tensor,
    source_ids: Tensor,
    target_ids: Tensor,
    pair_format: PairFormat,
) -> TeacherInput:
    """Lay out pairs for a teacher.

    A bidirectional teacher sees its mask token in the place of every predicted one, and predicts it there. A
    left-to-right teacher sees all tokens and predicts each one slot earlier: y_1 at the end of the source's side, the
    end of sentence at the last word.

    Args:
        attention: one of `ATTENTIONS`.
        src_tokens: see `assemble_pairs`, as all others.
        src_lengths: ``(batch,)``.
        tgt_tokens: ``(batch, tgt_len)``.
        tgt_lengths: ``(batch,)``.
        predicted: ``(batch, tgt_len)`` bool, target positions to predict.
        source_ids: ``(source dictionary,)``.
        target_ids: ``(target dictionary,)``.
        pair_format: special ids of the teacher.
    """
    causal = attention == LEFT_TO_RIGHT
    hidden = torch.zeros_like(predicted) if causal else predicted
    pairs = assemble_pairs(
        src_tokens, src_lengths, tgt_tokens, tgt_lengths, hidden, source_ids, target_ids, pair_format
    )
    if not causal:
        return TeacherInput(*pairs)
    mask = prefix_attention(pairs.target_positions[:, 0], pairs.attention_mask)
    return TeacherInput(pairs.input_ids, mask, pairs.token_type_ids, pairs.target_positions - 1)


def prefix_attention(target_starts: Tensor, tokens: Tensor) -> Tensor:
    """Which slot attends to which: all to the source, target slots also to those up to themselves.

    With s the first target slot and n the tokens of a pair, slot i attends to slot j if j < n and (j < s or j <= i).
    Source slots (i < s) so never attend to the target, and nothing attends to padding.

    Args:
        target_starts: ``(batch,)`` s of each pair, at least 1.
        tokens: ``(batch, pair_len)``, 1 on tokens, 0 on the padding after them.

    Returns:
        ``(batch, pair_len, pair_len)`` bool, indexed by pair, i and j.
    """
    columns = torch.arange(tokens.size(1), device=tokens.device)
    in_source = columns < target_starts[:, None]  # (batch, j)
    up_to_itself = columns <= columns[:, None]  # (i, j)
    return (in_source[:, None, :] | up_to_itself) & tokens.bool()[:, None, :]
