"""Names that datasets, tasks and criterions share, beside fairseq's own ``net_input``, ``target``, ...

``sample[TEACHER]`` stands outside ``net_input``, which fairseq unpacks into the model. It is a list with one dict per
teacher (store or live teacher). Its fields have the names of a store's record (docs/store_format.md); logits are relative
to the row's best, which is 0:

- ``topk_ids``: ``(batch, tgt_len, k)`` int32 ids of the student's target dictionary, best first, 0 where absent;
- ``topk_logits``: ``(batch, tgt_len, k)`` float16, descending;
- ``present``: ``(batch, tgt_len)`` bool, False on padding and where the teacher has no row;
- ``log_normalisers``: ``(batch, tgt_len, temperatures)`` float32, ``log Z = logsumexp(logits / T)`` over the whole
  dictionary;
- ``temperatures``: tuple of floats, one per column of ``log_normalisers``;
- ``weight``: float, weight of this teacher among several.

Only if the teacher has them:

- ``gold_logit``: ``(batch, tgt_len)`` float16, logit of the gold token;
- ``gold_stored``: bool, drawn tokens were drawn outside the gold token too;
- ``sample_ids``, ``sample_logits``: ``(batch, tgt_len, r)`` int32 and float16, tokens drawn outside the stored ones;
- ``full_logits``: ``(batch, tgt_len, dictionary)`` float, of a live teacher only.

``sample[POLICY]`` is attached in the task's training step, after fairseq's casts, and holds sequences that the model itself
sampled:

- ``tokens``: ``(sequences, length)`` int64, right-padded; a sequence that was cut has no end of sentence;
- ``sampled``: ``(sequences, length)`` bool, True where a token was drawn;
- ``advantages``: ``(sequences, length)`` float32, or ``(sequences, 1)`` for one value per sequence;
- ``sources``: ``(sequences,)`` int64 row of the batch from which a sequence was sampled;
- ``reference``: ``(sequences, length, dictionary)`` log-probabilities of the policy at its start; only if they are needed.

A batch of a sentence task (`data.sentence_dataset`) has other inputs. Texts stay apart; the model joins them and adds its
special tokens. ``net_input`` holds

- ``texts``: tuple of one or two ``(batch, text_len)`` int64, ids of the task's dictionary, right-padded, each text closed by
  end of sentence;
- ``lengths``: tuple of as many ``(batch,)`` int64, tokens of each text, end of sentence included;

and ``target``, absent from unlabelled text, is ``(batch,)`` int64 class numbers or float64 numbers, which ``--fp16`` leaves as
they are.

Of a task with stored sentence vectors, ``sample[VECTORS]`` is ``(batch, width)``, the bits of the teacher's float16 or
float32 vectors: `as_bits` and `from_bits`.

In training a model may read smoothed words: ``net_input["smoothed"]`` then has for each text what stands in the place of its
tokens (`functional.text_smoothing.SmoothedText`). It is for the model that trains alone: `plain_input`.

Of a text that is smoothed, ``sample[SMOOTHING]`` is one dict with the fields of a teacher's, ``(batch, text_len, ...)`` in the
places of the text's tokens.

fairseq casts every float32 tensor of a batch to half precision under ``--fp16``; integers pass through untouched. So the
floats of a record travel as the integers that have the same bits: `pack` and `unpack`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

TEACHER = "teacher"
POLICY = "policy"
VECTORS = "vectors"
SMOOTHING = "smoothing"
REPEATS = (
    "repeats"  # how often each row of the data stands in a batch, one after another; 1 where it is absent
)
# field -> its own type, and the integer type in which it travels
_BITS = {
    "topk_logits": (torch.float16, torch.int16),
    "log_normalisers": (torch.float32, torch.int32),
    "gold_logit": (torch.float16, torch.int16),
    "sample_logits": (torch.float16, torch.int16),
}
_IDS = ("topk_ids", "sample_ids")


class TeacherRequirements(NamedTuple):
    """Requirements of a criterion on every teacher.

    Attributes:
        topk: tokens per position.
        temperatures: option and temperature at which the mass outside the stored tokens must be known.
        temperature: temperature of the loss when training begins.
        samples: whether tokens drawn from the rest, and all stored tokens, are needed.
        full: whether logits of the whole dictionary are needed, which only a live teacher has.
    """

    topk: int
    temperatures: tuple[tuple[str, float], ...] = ()
    temperature: float = 1.0
    samples: bool = False
    full: bool = False


def pack(fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fields of a record as a batch carries them: ids as int32, floats as integers of the same bits (no copy)."""
    packed = {}
    for name, values in fields.items():
        if name in _BITS:
            own, bits = _BITS[name]
            assert values.dtype == own, (name, values.dtype)
            values = values.view(bits)
        packed[name] = values.int() if name in _IDS else values
    return packed


def unpack(fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The fields of `pack` ready for arithmetic: ids as int64, floats as float32."""
    unpacked = {}
    for name, values in fields.items():
        if name in _BITS:
            values = values.view(_BITS[name][0]).float()
        unpacked[name] = values.long() if name in _IDS else values
    return unpacked


def plain_input(net_input: Mapping[str, Any]) -> dict[str, Any]:
    """The input of a batch as the data have it, without smoothed words."""
    return {name: value for name, value in net_input.items() if name != "smoothed"}


def twice(sample: dict[str, Any]) -> dict[str, Any]:
    """A batch with every sentence twice, see `each_twice`; ``REPEATS`` counts how often a row of the data stands in it."""
    sentences = sample["id"].size(0)

    def doubled(value: Any) -> Any:
        if isinstance(value, Tensor):
            whole = value.dim() > 0 and value.size(0) == sentences
            return each_twice(value) if whole else value
        if isinstance(value, dict):
            return {name: doubled(item) for name, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(map(doubled, value))
        return value

    counts = {name: 2 * sample[name] for name in ("nsentences", "ntokens") if name in sample}
    return {**doubled(sample), **counts, REPEATS: 2 * sample.get(REPEATS, 1)}


def single_rows(net_input: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """The input of a batch in which each row stands ``repeats`` times, one after another, with each once."""

    def single(value: Any) -> Any:
        return value[::repeats] if isinstance(value, Tensor) else type(value)(map(single, value))

    return {name: single(value) for name, value in net_input.items()}


def each_twice(rows: Tensor) -> Tensor:
    """``(rows, ...)`` to ``(2 rows, ...)``: each row and at once the same again, so that sorted rows stay sorted."""
    return rows.repeat_interleave(2, dim=0)


def as_bits(floats: Tensor) -> Tensor:
    """Float16 or float32 as integers of the same bits (no copy)."""
    return floats.view(torch.int16 if floats.dtype == torch.float16 else torch.int32)


def from_bits(bits: Tensor) -> Tensor:
    """The inverse of `as_bits`, as float32."""
    return bits.view(torch.float16 if bits.dtype == torch.int16 else torch.float32).float()
