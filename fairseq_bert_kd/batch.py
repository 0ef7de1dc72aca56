"""Names that datasets, tasks and criterions share, beside fairseq's own ``net_input``, ``target``, ...

``sample[TEACHER]`` stands outside ``net_input``, which fairseq unpacks into the model. It is a list with a dict for each
teacher (store, or live teacher):

- ``ids``: ``(batch, tgt_len, k)`` int32 ids of the student's target dictionary, best first, 0 where absent;
- ``logit_bits``: ``(batch, tgt_len, k)`` int16, the bit pattern of float16 logits relative to the row's best, descending;
- ``present``: ``(batch, tgt_len)`` bool, False on padding and where the teacher has no row;
- ``normaliser_bits``: ``(batch, tgt_len, temperatures)`` int32, the bit pattern of float32 log-normalisers over the whole
  dictionary (docs/store_format.md);
- ``temperatures``: tuple of floats, of these columns;
- ``weight``: float, of this teacher among several.

Where a teacher has them:

- ``gold_logit_bits``: ``(batch, tgt_len)`` int16, of the gold token;
- ``gold_stored``: bool, drawn tokens were drawn outside the gold token too;
- ``sample_ids``, ``sample_logit_bits``: ``(batch, tgt_len, r)`` int32 and int16, tokens drawn outside the stored ones;
- ``full_logits``: ``(batch, tgt_len, dictionary)`` float, of a live teacher only.

The host casts every float32 tensor of a batch to half precision under ``--fp16``; integers pass through
untouched, so numbers travel as bits and are decoded by the criterion.
"""

from typing import NamedTuple

import torch
from torch import Tensor

TEACHER = "teacher"


class TeacherNeeds(NamedTuple):
    """What a criterion needs of every teacher.

    Attributes:
        topk: tokens per position.
        temperatures: option and temperature at which the mass outside the stored tokens must be known.
        temperature: of the loss, when training begins.
        samples: tokens drawn from the rest, and all stored tokens.
        full: logits of the whole dictionary, which only a live teacher has.
        lowest: temperature that the loss comes down to where its normalisers are bounded from the stored ones; else None.
    """

    topk: int
    temperatures: tuple[tuple[str, float], ...] = ()
    temperature: float = 1.0
    samples: bool = False
    full: bool = False
    lowest: float | None = None


def encode_logits(logits: Tensor) -> Tensor:
    """float16 logits as int16 bit patterns (no copy)."""
    return logits.view(torch.int16)


def decode_logits(bits: Tensor) -> Tensor:
    """int16 bit patterns back to float32 logits."""
    return bits.view(torch.float16).float()


def encode_normalisers(log_normalisers: Tensor) -> Tensor:
    """float32 log-normalisers as int32 bit patterns (no copy)."""
    return log_normalisers.view(torch.int32)


def decode_normalisers(bits: Tensor) -> Tensor:
    """int32 bit patterns back to float32 log-normalisers (no copy)."""
    return bits.view(torch.float32)
