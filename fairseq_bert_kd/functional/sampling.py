"""Draws sequences from a policy, exactly as it is: no length normalisation, no forced end, no blocked repeats.

fairseq's generator is not used for this. It forbids an end of sentence at the first position, forces one at the limit,
penalises unknown words and normalises scores by length, so its samples are not the policy's, and its log-probabilities are
not those of the gradient.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fairseq_bert_kd.functional.best_token import best_token

BLOCK = 128  # tokens whose probabilities are added first; a draw finds its block, then its token
SHRINK = 0.75  # rows are taken out of the batch when at most this share is unfinished


class Policy(Protocol):
    """Predicts the next token of each row, one position after the other."""

    def next_logits(self, prefix: Tensor) -> Tensor:
        """``(rows, vocab)`` logits or log-probabilities after ``(rows, length)`` tokens, the start symbol first.

        The caller overwrites them.
        """

    def keep(self, rows: Tensor) -> None:
        """Go on with ``(n,)`` of the present rows only, in this order."""


class Samples(NamedTuple):
    """Sequences drawn from a policy.

    Attributes:
        tokens: ``(rows, length)`` int64, without start symbol, padded on the right.
        sampled: ``(rows, length)`` bool, True where a token was drawn: neither padding nor a given prefix.
        log_probs: ``(rows, length)`` float32 log-probabilities of the drawn tokens; 0 elsewhere.
        entropies: ``(rows, length)`` float32 entropies of the distributions that were drawn from, in nats; 0 elsewhere.
        cut: ``(rows,)`` bool, True where the limit came before the end of sentence, which is then not among the tokens.
    """

    tokens: Tensor
    sampled: Tensor
    log_probs: Tensor
    entropies: Tensor
    cut: Tensor

    def first(self, length: int) -> "Samples":
        """The first positions."""
        by_position = ("tokens", "sampled", "log_probs", "entropies")
        return self._replace(**{name: getattr(self, name)[:, :length] for name in by_position})


class Symbols(NamedTuple):
    """Special tokens of the policy's dictionary.

    Attributes:
        pad: fills rows that are finished; never drawn.
        bos: never drawn.
        eos: ends a sequence, and is the start symbol before the first token.
    """

    pad: int
    bos: int
    eos: int

    @property
    def forbidden(self) -> tuple[int, int]:
        """Tokens outside the policy: it is the model's distribution over all others."""
        return self.pad, self.bos


def allowed_log_probs(logits: Tensor, symbols: Symbols) -> Tensor:
    """Log-probabilities of the policy, ``(..., vocab)``: minus infinity for forbidden tokens.

    Args:
        logits: ``(..., vocab)`` of the model.
        symbols: special tokens.
    """
    forbidden = torch.tensor(symbols.forbidden, device=logits.device)
    return logits.float().index_fill(-1, forbidden, -math.inf).log_softmax(dim=-1)


def allowed_entropies(logits: Tensor, symbols: Symbols) -> Tensor:
    """Entropies of the policy in nats, ``(...)``.

    Args:
        logits: ``(..., vocab)`` of the model.
        symbols: special tokens.
    """
    return torch.special.entr(allowed_log_probs(logits, symbols).exp()).sum(dim=-1)


def allowed_token_log_probs(token_logits: Tensor, log_normaliser: Tensor) -> Tensor:
    """Log-probabilities of the policy from few numbers of each position: `allowed_log_probs` of one token.

    Args:
        token_logits: ``(positions, 3)`` logits of the token and of the two forbidden ones.
        log_normaliser: ``(positions,)`` over the whole vocabulary.
    """
    log_probs = token_logits - log_normaliser[:, None]
    return log_probs[:, 0] - torch.log1p(-log_probs[:, 1:].exp().sum(dim=1))


def uniform_draws(
    seed: int, update: int, ids: Sequence[int], rows: Sequence[int], length: int, stream: int = 0
) -> Tensor:
    """Uniform numbers in [0, 1) for the samples of each source: a function of its arguments, whatever is in the batch.

    So one process draws what several draw, and a resumed run what an unbroken one does.

    Args:
        seed: seed of the run.
        update: update of training.
        ids: numbers of the sources in their corpus.
        rows: numbers of samples, one per source.
        length: positions.
        stream: number of the purpose; different purposes draw differently.

    Returns:
        ``(all samples, length)`` float32, the samples of a source together.
    """
    drawn = [  # position by position, so that a longer limit adds numbers and changes none
        np.random.default_rng([seed, update, i, stream]).random((length, count), dtype=np.float32).T
        for i, count in zip(ids, rows, strict=True)
    ]
    return torch.from_numpy(np.concatenate(drawn)) if drawn else torch.zeros(0, length)


def length_limits(source_lengths: Tensor, ratio: float, added: int, longest: int) -> Tensor:
    """Most tokens of each sequence, end of sentence included: ``ratio * length + added``, at most ``longest``.

    Args:
        source_lengths: ``(rows,)`` tokens of each source.
        ratio: tokens per source token.
        added: tokens more.
        longest: positions of the decoder.
    """
    return (source_lengths * ratio + added).long().clamp(min=1, max=longest)


@torch.no_grad()
def sample_sequences(
    policy: Policy,
    limits: Tensor,
    symbols: Symbols,
    draws: Tensor | None,
    prefixes: Tensor | None = None,
) -> Samples:
    """Draw a sequence for each row of a policy.

    Rows that are finished leave the batch when enough of them are, so a batch costs about the sum of its lengths. The
    device is waited for once per position, and when rows leave.

    Args:
        policy: prepared for ``rows`` rows; its rows change.
        limits: ``(rows,)`` most tokens of each sequence, end of sentence included.
        symbols: special tokens.
        draws: ``(rows, longest limit)`` uniform numbers, see `uniform_draws`; None for the best token at each position.
        prefixes: ``(rows, length)`` first tokens that are given, padded on the right; not drawn again, and without the end
            of sentence.

    Returns:
        The sequences, as long as the longest of them.
    """
    found = _nothing_sampled(limits, symbols.pad)
    present = torch.arange(len(limits), device=limits.device)  # [row of the policy -> row of the batch]
    running = torch.ones_like(present, dtype=torch.bool)  # by row of the policy
    history = torch.full_like(present, symbols.eos)[:, None]  # (rows of the policy, tokens so far)
    scratch = _Scratch()
    position, remaining = 0, len(limits)
    while remaining:
        drawn = None if draws is None else draws[present, position]
        chosen, log_prob, entropy = scratch.choose(policy.next_logits(history), symbols, drawn)
        free = running
        if prefixes is not None and position < prefixes.size(1):
            given = prefixes[present, position]
            free = running & given.eq(symbols.pad)
            chosen = torch.where(free, chosen, given)
        chosen = chosen.masked_fill(~running, symbols.pad)
        found.tokens[present, position] = chosen
        found.sampled[present, position] = free
        found.log_probs[present, position] = log_prob.masked_fill(~free, 0.0)
        found.entropies[present, position] = entropy.masked_fill(~free, 0.0)
        position += 1
        ended, at_limit = chosen.eq(symbols.eos), limits[present] <= position
        found.cut[present] |= running & at_limit & ~ended
        running = running & ~ended & ~at_limit
        history = torch.cat([history, chosen[:, None]], dim=1)
        remaining = int(running.sum())
        if 0 < remaining <= SHRINK * len(running):
            kept = running.nonzero().squeeze(1)
            policy.keep(kept)
            present, history, running = present[kept], history[kept], running[kept]
    return found.first(position)


def _nothing_sampled(limits: Tensor, pad: int) -> Samples:
    """Samples without a token, with room for the longest."""
    shape, device = (len(limits), int(limits.max()) if len(limits) else 0), limits.device
    return Samples(
        tokens=torch.full(shape, pad, dtype=torch.int64, device=device),
        sampled=torch.zeros(shape, dtype=torch.bool, device=device),
        log_probs=torch.zeros(shape, device=device),
        entropies=torch.zeros(shape, device=device),
        cut=torch.zeros_like(limits, dtype=torch.bool),
    )


class _Scratch:
    """Chooses tokens; keeps its largest buffer from one position to the next."""

    def __init__(self) -> None:
        self._weights = torch.empty(0, 0)

    def choose(self, logits: Tensor, symbols: Symbols, draws: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Token, its log-probability and the entropy, ``(rows,)`` each, of rows of logits; these are overwritten.

        Args:
            logits: ``(rows, vocab)``.
            symbols: special tokens.
            draws: ``(rows,)`` uniform numbers; None for the best tokens.
        """
        logits = logits.float()
        for token in symbols.forbidden:
            logits[:, token] = -math.inf
        best = logits.amax(dim=1, keepdim=True)
        weights = self._buffer(logits)
        torch.sub(logits, best, out=weights[:, : logits.size(1)]).exp_()
        blocks = weights.view(len(logits), -1, BLOCK).sum(dim=2)  # (rows, blocks)
        sums = blocks.cumsum(dim=1)
        total = sums[:, -1]
        chosen = best_token(logits) if draws is None else _find(weights, blocks, sums, draws * total)
        log_total = total.log() + best.squeeze(1)
        log_probs = logits.gather(1, chosen[:, None]).squeeze(1) - log_total
        logits.clamp_(min=torch.finfo(logits.dtype).min)  # 0 times infinity is no number
        with torch.autocast(logits.device.type, enabled=False):  # whose type has no room for the least logit
            mean_logit = torch.einsum("rv,rv->r", weights[:, : logits.size(1)], logits) / total
        return chosen, log_probs, log_total - mean_logit

    def _buffer(self, logits: Tensor) -> Tensor:
        """``(rows, whole blocks)`` in which the columns beyond the vocabulary are 0."""
        rows, width = len(logits), math.ceil(logits.size(1) / BLOCK) * BLOCK
        if self._weights.size(1) != width or len(self._weights) < rows:
            self._weights = logits.new_zeros(rows, width)
        return self._weights[:rows]


def _find(weights: Tensor, blocks: Tensor, sums: Tensor, wanted: Tensor) -> Tensor:
    """First token of each row at which the running sum of weights exceeds a value.

    The sums of whole blocks are looked at first. That costs one sum over the vocabulary, and rounds less than a running sum
    of all. Where rounding leads to a token that is impossible, a likely one is taken.

    Args:
        weights: ``(rows, blocks * BLOCK)``.
        blocks: ``(rows, blocks)`` sums of blocks.
        sums: ``(rows, blocks)`` their running sums.
        wanted: ``(rows,)`` from 0 to the last of the running sums.
    """
    block = sums.le(wanted[:, None]).sum(dim=1).clamp_(max=sums.size(1) - 1)
    before = torch.cat([torch.zeros_like(sums[:, :1]), sums], dim=1).gather(1, block[:, None])
    places = _places(block)
    within = weights.gather(1, places).cumsum(dim=1)  # (rows, BLOCK)
    token = within.le(wanted[:, None] - before).sum(dim=1).clamp_(max=BLOCK - 1)
    chosen = places.gather(1, token[:, None])
    places = _places(blocks.argmax(dim=1))
    likely = places.gather(1, weights.gather(1, places).argmax(dim=1, keepdim=True))
    return torch.where(weights.gather(1, chosen).eq(0), likely, chosen).squeeze(1)


def _places(block: Tensor) -> Tensor:
    """``(rows, BLOCK)`` tokens of one block of each row."""
    return block[:, None] * BLOCK + torch.arange(BLOCK, device=block.device)
