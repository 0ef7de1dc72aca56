"""The two dumping steps of Chen et al. 2020's released code (commit a3b0b22), re-enacted so that they can be timed.

Step 1, their ``dump_teacher_hiddens.py``: up to 7 copies of a pair, each with other target positions masked
(lines 63-91), in the corpus's order, 8 pairs a batch whatever their lengths, padded to the longest (lines 94-108 and
130-135); the hidden state behind BERT's transform of every masked position is picked out position by position, with
a wait for the device at each (lines 31-39), and stored as ``numpy.save`` of float16 in a shelve, a sentence a time
(lines 23-28 and 137-138). Pairs above 512 tokens, special ones included, are dropped (line 47).
Step 2, their ``dump_teacher_topk.py``: read each, head, ``topk`` (128 by default), ``torch.save`` into a second
shelve (lines 36-43).

Where this differs: the teacher is a callable and the head an argument (they pickle the head into ``linear.pt``);
pairs come as ids instead of strings from their corpus shelve, so that tokenising is not timed; no worker
processes prepare batches (they use 4); masks are bool (theirs bytes, in torch 1.1); bytes are as in `authors_format`.
"""

import io
import shelve
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.authors_format import DUMB, open_shelve, saved

COPIES = 7
MAX_TOKENS = 512  # of BERT, [CLS] and both [SEP] included


class SpecialIds(NamedTuple):
    """BERT's ids of ``[CLS]``, ``[SEP]`` and ``[MASK]``; padding is 0."""

    cls: int
    sep: int
    mask: int


class Batch(NamedTuple):
    """All copies of some pairs.

    Attributes:
        sentences: line number of each pair.
        input_ids: ``(copies, length)`` int64, masked, padded with 0.
        token_types: ``(copies, length)`` int64, 1 on the target's side.
        attention: ``(copies, length)`` int64, 1 where no padding is.
        masks: of each pair ``(its copies, its length)`` bool, True where masked.
    """

    sentences: list[int]
    input_ids: Tensor
    token_types: Tensor
    attention: Tensor
    masks: list[Tensor]


def copies_of(source: list[int], target: list[int], special: SpecialIds) -> tuple[Tensor, Tensor]:
    """Masked input ids and masks of one pair, each ``(copies, length)``; every target position once."""
    rows = len(target) + 1  # the last [SEP] stands for the end of sentence
    copies = min(rows, COPIES)
    first = len(source) + 2
    ids = torch.tensor([special.cls, *source, special.sep, *target, special.sep])
    positions = torch.arange(len(ids)) - first
    masks = (positions >= 0) & (positions % COPIES == torch.arange(copies)[:, None])
    return ids.repeat(copies, 1).masked_fill_(masks, special.mask), masks


def batches(
    pairs: Iterable[tuple[list[int], list[int]]], special: SpecialIds, batch_size: int = 8
) -> Iterator[Batch]:
    """Pairs in the corpus's order, ``batch_size`` at a time, without those that BERT cannot read."""
    kept = (
        (sentence, pair)
        for sentence, pair in enumerate(pairs)
        if len(pair[0]) + len(pair[1]) + 3 <= MAX_TOKENS
    )
    while group := list(islice(kept, batch_size)):
        inputs, masks = zip(*(copies_of(*pair, special) for _, pair in group), strict=True)
        length = max(ids.size(1) for ids in inputs)
        shape = (sum(ids.size(0) for ids in inputs), length)
        batch = Batch([sentence for sentence, _ in group], *torch.zeros(3, *shape).long(), list(masks))
        start = 0
        for ids, (_, (source, _)) in zip(inputs, group, strict=True):
            block = slice(start, start + ids.size(0))
            batch.input_ids[block, : ids.size(1)] = ids
            batch.token_types[block, len(source) + 2 : ids.size(1)] = 1
            batch.attention[block, : ids.size(1)] = 1
            start += ids.size(0)
        yield batch


def picked(hidden: Tensor, masks: Tensor) -> Tensor:
    """``(rows, hidden)`` states of the masked positions in target order, one position at a time as theirs.

    Args:
        hidden: ``(copies, length, hidden)``.
        masks: ``(copies, length)``.
    """
    rows = []
    for position in range(masks.size(1)):
        column = masks[:, position]
        if column.sum().item() > 0:  # waits for the device, as theirs
            rows.append(hidden[:, position].masked_select(column[:, None]))
    return torch.stack(rows)


@torch.no_grad()
def dump_hiddens(
    folder: str | Path,
    pairs: Iterable[tuple[list[int], list[int]]],
    special: SpecialIds,
    hidden_states: Callable[[Batch], Tensor],
    batch_size: int = 8,
    kind: str = DUMB,
) -> int:
    """Step 1; writes the shelve ``folder/db`` and returns the rows in it.

    Args:
        folder: exists.
        pairs: BERT ids of source and target, without special ones.
        special: BERT's ids.
        hidden_states: ``(copies, length, hidden)`` behind the transform, on any device.
        batch_size: pairs in a batch.
        kind: see `authors_format.open_shelve`.
    """
    total = 0
    with open_shelve(Path(folder) / "db", kind) as shelf:
        for batch in batches(pairs, special, batch_size):
            hidden, start = hidden_states(batch), 0
            outputs = []
            for masks in batch.masks:
                copies, length = masks.shape
                outputs.append(picked(hidden[start : start + copies, :length], masks.to(hidden.device)))
                start += copies
            for sentence, output in zip(batch.sentences, outputs, strict=True):
                with io.BytesIO() as file:
                    np.save(file, output.cpu().numpy().astype(np.float16), allow_pickle=False)
                    shelf[str(sentence)] = file.getvalue()
                total += len(output)
    return total


@torch.no_grad()
def dump_topk(
    folder: str | Path,
    head: Callable[[Tensor], Tensor],
    device: str | torch.device,
    topk: int = 128,
    kind: str = DUMB,
) -> int:
    """Step 2; reads ``folder/db``, writes the shelve ``folder/topk`` and returns the rows in it.

    Args:
        folder: that of `dump_hiddens`.
        head: ``(rows, hidden)`` float16 to ``(rows, vocabulary)``.
        device: of the head.
        topk: tokens of each row.
        kind: see `authors_format.open_shelve`; also of the shelve that step 1 wrote.
    """
    total = 0
    with (
        shelve.open(str(Path(folder) / "db"), "r") as states,
        open_shelve(Path(folder) / "topk", kind) as shelf,
    ):
        for key, value in states.items():
            with io.BytesIO(value) as file:
                hidden = torch.tensor(np.load(file, allow_pickle=False)).to(device)
            logits, ids = head(hidden).topk(topk, dim=-1)
            shelf[key] = saved(logits.cpu(), ids.cpu())
            total += len(hidden)
    return total
