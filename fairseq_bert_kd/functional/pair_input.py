"""From a batch of student token ids to the teacher's input: ``prefix source middle target``."""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class PairFormat:
    """Teacher ids around and inside a (source, target) pair.

    BERT: prefix ``[CLS]``, middle ``[SEP]``; RoBERTa: prefix ``<s>``, middle ``</s></s>``. The closing
    token is not listed: it is the teacher id of the student's end-of-sentence symbol, so that the last
    slot can be masked like any other target position.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    mask: int
    pad: int
    source_segment: int = 0
    target_segment: int = 1

    @property
    def overhead(self) -> int:
        """Number of teacher tokens beyond source (without its end of sentence) and target (with it)."""
        return len(self.prefix) + len(self.middle)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> "PairFormat":
        return cls(**{**fields, "prefix": tuple(fields["prefix"]), "middle": tuple(fields["middle"])})


class PairInput(NamedTuple):
    """What a transformers encoder takes, and where the target went.

    Attributes:
        input_ids: ``(batch, pair_len)`` int64 teacher ids, padded on the right.
        attention_mask: ``(batch, pair_len)`` int64, 1 on tokens.
        token_type_ids: ``(batch, pair_len)`` int64 segment ids.
        target_positions: ``(batch, tgt_len)`` int64 column of each target token in ``input_ids``.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    target_positions: Tensor


def assemble_pairs(
    src_tokens: Tensor,
    src_lengths: Tensor,
    tgt_tokens: Tensor,
    tgt_lengths: Tensor,
    masked: Tensor,
    source_ids: Tensor,
    target_ids: Tensor,
    pair_format: PairFormat,
) -> PairInput:
    """Translate student ids to teacher ids and lay out each pair without gaps.

    Args:
        src_tokens: ``(batch, src_len)`` student source ids without end of sentence, right-padded.
        src_lengths: ``(batch,)`` tokens of each source.
        tgt_tokens: ``(batch, tgt_len)`` student target ids with end of sentence, right-padded.
        tgt_lengths: ``(batch,)`` tokens of each target, end of sentence included.
        masked: ``(batch, tgt_len)`` bool, True where the teacher sees its mask token.
        source_ids: ``(source dictionary,)`` teacher id of each source symbol.
        target_ids: ``(target dictionary,)`` teacher id of each target symbol.
        pair_format: special ids of the teacher.
    """
    batch, src_len = src_tokens.shape
    tgt_len = tgt_tokens.size(1)
    device = tgt_tokens.device
    n_prefix, n_middle = len(pair_format.prefix), len(pair_format.middle)

    src_offsets = torch.arange(src_len, device=device)
    tgt_offsets = torch.arange(tgt_len, device=device)
    src_present = src_offsets < src_lengths[:, None]  # (batch, src_len)
    tgt_present = tgt_offsets < tgt_lengths[:, None]  # (batch, tgt_len)

    pair_len = n_prefix + src_len + n_middle + tgt_len
    # one column more than needed: padding is written there and cut off
    input_ids = torch.full((batch, pair_len + 1), pair_format.pad, dtype=torch.int64, device=device)
    for column, token in enumerate(pair_format.prefix):  # numbers: a list would wait for its way to a GPU
        input_ids[:, column] = token
    src_columns = (n_prefix + src_offsets).expand(batch, src_len).masked_fill(~src_present, pair_len)
    input_ids.scatter_(1, src_columns, source_ids[src_tokens])

    target_start = n_prefix + src_lengths[:, None] + n_middle  # (batch, 1)
    for place, token in enumerate(pair_format.middle):
        input_ids.scatter_(1, target_start - n_middle + place, token)

    target_positions = target_start + tgt_offsets  # (batch, tgt_len)
    shown = target_ids[tgt_tokens].masked_fill(masked, pair_format.mask)
    input_ids.scatter_(1, target_positions.masked_fill(~tgt_present, pair_len), shown)

    width = int((target_start[:, 0] + tgt_lengths).max())
    columns = torch.arange(width, device=device)
    attention_mask = (columns < target_start + tgt_lengths[:, None]).long()
    segments = torch.where(columns >= target_start, pair_format.target_segment, pair_format.source_segment)
    return PairInput(input_ids[:, :width], attention_mask, segments * attention_mask, target_positions)
