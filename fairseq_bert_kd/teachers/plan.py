"""Which (sentence, pass) items are scored together: a function of the corpus and two options alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.functional.text_input import LEFT_TO_RIGHT

DEFAULT_PASSES = 7  # the paper's


@dataclass(frozen=True)
class Batch:
    """Items of one forward pass, longest first.

    Attributes:
        sentences: ``(items,)`` index within the chunk.
        passes: ``(items,)`` number of the pass, from 0.
        tokens: source and target tokens of the items.
    """

    sentences: NDArray[np.int64]
    passes: NDArray[np.int64]
    tokens: int


def plan_chunk(
    src_lengths: NDArray[np.int64],
    tgt_lengths: NDArray[np.int64],
    scored: NDArray[np.bool_],
    passes: int,
    max_tokens: int,
) -> list[Batch]:
    """Batches of similar length over all passes of a chunk's scored sentences.

    Args:
        src_lengths: ``(sentences,)`` without end of sentence.
        tgt_lengths: ``(sentences,)`` with end of sentence.
        scored: ``(sentences,)`` False for pairs that are longer than the teacher's positions.
        passes: passes over a target that is long enough; a shorter one gets one pass per position.
        max_tokens: source and target tokens of a batch, padding included; a longer pair goes alone.
    """
    pair_lengths = src_lengths + tgt_lengths
    order = np.flatnonzero(scored)
    # stable: the plan is part of a store's bytes
    order = order[np.argsort(-pair_lengths[order], kind="stable")]
    repeats = np.minimum(tgt_lengths[order], passes)
    # one entry per item, (items,): its sentence, its pass counted from 0 within the sentence, its length
    sentences = np.repeat(order, repeats)
    numbers = np.arange(len(sentences)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    lengths = pair_lengths[sentences]
    return [
        Batch(sentences[part], numbers[part], int(lengths[part].sum())) for part in _cut(lengths, max_tokens)
    ]


def plan_texts(
    lengths: NDArray[np.int64], scored: NDArray[np.bool_], max_tokens: int
) -> list[NDArray[np.int64]]:
    """Batches of a chunk's scored sentences of similar length, each ``(batch,)`` places within the chunk.

    Args:
        lengths: ``(sentences,)`` tokens.
        scored: ``(sentences,)`` False for those that are longer than the teacher's positions.
        max_tokens: tokens of a batch, padding included; a longer sentence goes alone.
    """
    order = np.flatnonzero(scored)
    order = order[np.argsort(-lengths[order], kind="stable")]
    return [order[part] for part in _cut(lengths[order], max_tokens)]


def _cut(lengths: NDArray[np.int64], max_tokens: int) -> Iterator[slice]:
    """Parts of items that are sorted by length, longest first, of at most ``max_tokens`` with padding."""
    start = 0
    while start < len(lengths):
        longest = max(int(lengths[start]), 1)
        end = min(start + max(max_tokens // longest, 1), len(lengths))
        yield slice(start, end)
        start = end


def count_tokens(
    src_lengths: NDArray[np.int64], tgt_lengths: NDArray[np.int64], scored: NDArray[np.bool_], passes: int
) -> int:
    """Source and target tokens of all items of `plan_chunk`."""
    return int(((src_lengths + tgt_lengths) * np.minimum(tgt_lengths, passes))[scored].sum())


def number_of_passes(attention: str, requested: int | None, option: str) -> int:
    """Passes over each pair: the requested ones, or what suits the teacher.

    Args:
        attention: attention of the teacher, one of `text_input.ATTENTIONS`.
        requested: None for the default: 7 passes of a bidirectional teacher, the only one of a left-to-right one.
        option: option for the message.

    Raises:
        ValueError: several passes of a left-to-right teacher.
    """
    if attention != LEFT_TO_RIGHT:
        return DEFAULT_PASSES if requested is None else requested
    if requested not in (None, 1):
        raise ValueError(
            f"{option} must be 1 for this teacher, got {requested}: it was trained with --teacher-attention left-to-right, "
            f"hides nothing behind mask tokens and predicts every position in one pass; leave {option} out"
        )
    return 1
