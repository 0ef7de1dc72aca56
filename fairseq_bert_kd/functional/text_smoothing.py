"""Smoothed input words: mixtures of embeddings in the place of an embedding.

Text smoothing (Wu et al., 2020) mixes a word's embedding with those that a masked language model expects in its place,

    e_i = lambda * sum_v p_i(v) E[v] + (1 - lambda) E[x_i],    p_i = softmax(z_i / T),

with the student's embeddings E, which learn through both terms; p is constant. The paper's weights are not known to us:
lambda = 0.5 and T = 1 are those of its authors' later code (ACL 2022). The sparse form is ours: the mass outside
the k stored tokens stays on the original one.
"""

import math
from typing import NamedTuple, Optional

import torch
from torch import Tensor
from torch.nn import functional as F


class SmoothedText(NamedTuple):
    """What stands in the place of a text's tokens.

    Attributes:
        smoothed: ``(batch, text_len)`` bool, positions with a mixture; all others keep their embedding exactly.
        ids: ``(batch, text_len, n)`` int64 ids of the dictionary.
        weights: ``(batch, text_len, n)`` float32, at least 0.
        common: ``(dictionary,)`` float32, a distribution that all positions share, or None.
        common_weight: its weight. What ``weights`` and it leave of 1 is the original token's.
    """

    smoothed: Tensor
    ids: Tensor
    weights: Tensor
    common: Optional[Tensor] = None
    common_weight: float = 0.0


def check_settings(weight: float, temperature: float, topk: int) -> None:
    """Raise ValueError for out-of-range settings of smoothing."""
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"--smoothing-weight must be from 0 to 1, got {weight}; 0.5 is the default")
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"--smoothing-temperature must be positive, got {temperature}; 1 is the default")
    if topk < 0:
        raise ValueError(f"--smoothing-topk must be at least 1, or 0 for all stored tokens, got {topk}")


def repeated(text: SmoothedText, rows: int) -> SmoothedText:
    """The text of a batch whose rows stand in it several times, each with its repetitions behind it, as R-Drop has them.

    Args:
        text: what stands in the place of the single rows.
        rows: rows of the batch, a multiple of those.
    """
    times = rows // len(text.smoothed)
    assert times * len(text.smoothed) == rows, (rows, len(text.smoothed))
    return text._replace(
        smoothed=text.smoothed.repeat_interleave(times, dim=0),
        ids=text.ids.repeat_interleave(times, dim=0),
        weights=text.weights.repeat_interleave(times, dim=0),
    )


def sparse_text(
    ids: Tensor,
    logits: Tensor,
    log_normaliser: Tensor,
    smoothed: Tensor,
    weight: float,
    temperature: float = 1.0,
) -> SmoothedText:
    """Mixtures of a store's tokens; the mass of all others stays on the original token.

    Args:
        ids: ``(batch, text_len, k)`` int64.
        logits: ``(batch, text_len, k)`` float32.
        log_normaliser: ``(batch, text_len)`` at the temperature, over the whole dictionary.
        smoothed: ``(batch, text_len)`` bool.
        weight: lambda.
        temperature: T.
    """
    probs = (logits / temperature - log_normaliser[..., None]).exp()
    return SmoothedText(smoothed, ids, weight * probs)


def common_text(common: Tensor, smoothed: Tensor, weight: float) -> SmoothedText:
    """The same distribution at every position, a control.

    Args:
        common: ``(dictionary,)`` float32.
        smoothed: ``(batch, text_len)`` bool.
        weight: lambda.
    """
    nothing = smoothed.new_zeros(*smoothed.shape, 0)
    return SmoothedText(smoothed, nothing.long(), nothing.float(), common, weight)


def replaced_text(replaced: Tensor, symbol: int, smoothed: Tensor) -> SmoothedText:
    """One symbol in the place of whole tokens, a control.

    Args:
        replaced: ``(batch, text_len)`` bool, within ``smoothed``.
        symbol: id of the dictionary.
        smoothed: ``(batch, text_len)`` bool, positions that could be replaced; the others of them keep their token.
    """
    ids = torch.full((*smoothed.shape, 1), symbol, dtype=torch.int64, device=smoothed.device)
    return SmoothedText(smoothed, ids, replaced.float()[..., None])


def smooth_embeddings(
    embedding: Tensor,
    rows: Tensor,
    text: SmoothedText,
    tokens: Tensor,
    columns: Optional[Tensor] = None,
    to_rows: Optional[Tensor] = None,
) -> Tensor:
    """Embeddings of an input with the mixtures in their places.

    All positions are read by one lookup: two would each make a gradient of the whole embedding, and add them.

    Args:
        embedding: ``(vocabulary, d)``, the student's; all terms of a mixture give it a gradient.
        rows: ``(batch, input_len)`` int64 row of ``embedding`` for each position of the input.
        text: what stands in the place of the text.
        tokens: ``(batch, text_len)`` int64 original ids of the dictionary.
        columns: ``(batch, text_len)`` int64 input position of each token; None where the input is the text.
        to_rows: ``(dictionary,)`` int64 row of ``embedding`` for each id; None where they are the same.

    Returns:
        ``(batch, input_len, d)``; positions that are not smoothed have their row exactly.
    """
    positions = text.smoothed.nonzero(as_tuple=True)  # once: a GPU is waited for here
    sentences, places = positions
    if not len(sentences):
        return F.embedding(rows, embedding)
    if columns is not None:
        places = columns[sentences, places]
    mixed_rows, mixed_weights = _bags(text, tokens, positions, to_rows)
    at, size = sentences * rows.size(1) + places, mixed_rows.size(1)
    smoothed = torch.zeros(rows.numel(), dtype=torch.bool, device=rows.device)
    smoothed[at] = True
    sizes = torch.where(smoothed, size, 1)
    starts = sizes.cumsum(0) - sizes  # of each position's rows in the list of all
    listed = rows.new_empty(rows.numel() + len(at) * (size - 1))
    weights = embedding.new_ones(listed.shape)
    listed[starts] = rows.flatten()
    slots = starts[at][:, None] + torch.arange(size, device=rows.device)
    listed[slots], weights[slots] = mixed_rows, mixed_weights.to(embedding.dtype)
    embedded = F.embedding_bag(listed, embedding, starts, per_sample_weights=weights, mode="sum")
    common = _common_part(embedding, text, to_rows)
    if common is not None:
        embedded = embedded + smoothed[:, None] * common
    return embedded.view(*rows.shape, -1)


def _bags(
    text: SmoothedText, tokens: Tensor, at: tuple[Tensor, ...], to_rows: Optional[Tensor]
) -> tuple[Tensor, Tensor]:
    """``(smoothed positions, n + 1)`` rows of the embedding and their weights; the original token's comes last.

    Args:
        text: what stands there.
        tokens: ``(batch, text_len)`` int64.
        at: sentence and place of each smoothed position.
        to_rows: see `smooth_embeddings`.
    """
    weights = text.weights[at]
    rest = (1.0 - text.common_weight - weights.sum(dim=1, keepdim=True)).clamp(min=0.0)
    ids = torch.cat([text.ids[at], tokens[at][:, None]], dim=1)
    return ids if to_rows is None else to_rows[ids], torch.cat([weights, rest], dim=1)


def _common_part(embedding: Tensor, text: SmoothedText, to_rows: Optional[Tensor]) -> Optional[Tensor]:
    """``(d,)`` what the common distribution adds to every mixture; None without one."""
    if text.common is None:
        return None
    common = text.common
    if to_rows is not None:  # numbers move, not the embedding
        common = common.new_zeros(len(embedding)).index_add(0, to_rows, common)
    return text.common_weight * (common.to(embedding.dtype) @ embedding)


def moved_mass(text: SmoothedText, tokens: Tensor) -> Tensor:
    """``(batch, text_len)`` weight of all other tokens than the original one, the strength of smoothing; 0 where nothing is
    smoothed.

    Args:
        text: what stands there.
        tokens: ``(batch, text_len)`` int64.
    """
    moved = text.weights.where(text.ids != tokens[..., None], 0.0).sum(dim=2)
    if text.common is not None:
        moved = moved + text.common_weight * (1.0 - text.common[tokens])
    return moved.where(text.smoothed, 0.0)


def original_mass(text: SmoothedText, tokens: Tensor, weight: float) -> Tensor:
    """``(batch, text_len)`` probability of the original token among those with a weight; 0 where nothing is smoothed.

    Args:
        text: what stands there.
        tokens: ``(batch, text_len)`` int64.
        weight: lambda, above 0.
    """
    found = text.weights.where(text.ids == tokens[..., None], 0.0).sum(dim=2)
    if text.common is not None:
        found = found + text.common_weight * text.common[tokens]
    return found.where(text.smoothed, 0.0) / weight
