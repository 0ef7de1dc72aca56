"""Names that datasets, tasks and criterions share, beside fairseq's own ``net_input``, ``target``, ...

``sample[TEACHER]`` stands outside ``net_input``, which fairseq unpacks into the model. It holds

- ``ids``: ``(batch, tgt_len, k)`` int32 ids of the student's target dictionary, 0 where absent;
- ``logit_bits``: ``(batch, tgt_len, k)`` int16, the bit pattern of float16 logits (see below), descending;
- ``present``: ``(batch, tgt_len)`` bool, False on padding and where the teacher has no row.

The host casts every float32 tensor of a batch to half precision under ``--fp16``; integers pass through
untouched, so logits travel as bits and are decoded by the criterion.
"""

import torch
from torch import Tensor

TEACHER = "teacher"


def encode_logits(logits: Tensor) -> Tensor:
    """float16 logits as int16 bit patterns (no copy)."""
    return logits.view(torch.int16)


def decode_logits(bits: Tensor) -> Tensor:
    """int16 bit patterns back to float32 logits."""
    return bits.view(torch.float16).float()
