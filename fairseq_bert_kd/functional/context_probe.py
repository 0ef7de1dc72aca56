"""A probe of what a text model's outputs depend on, by four small forward passes.

Soft labels and sentence vectors are computed in batches, stored, and used beside other batches. That is right only if a
model's output for a text depends on that text alone. Which tokens of it a model sees has to be known too. Both are
properties of an architecture and of its settings that nothing else shows. The probe and its bound are our own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

ROUNDING = 1e-4  # of an output's norm: other shapes sum in another order, which moves float32 by a tenth of this at most
READS_BATCH = "gives a text other outputs when another text of the same length shares its batch"
READS_PADDING = "reads padding: a text gets other outputs when a longer one shares its batch"
IGNORES_RIGHT = "does not look to the right: its first output is the same whatever the tokens after it are"
SEES_RIGHT = "looks to the right: its first output changes with the tokens after it"

# texts of whatever kind the model takes -> for each its outputs in reading order, ``(outputs, width)``
Outputs = Callable[[Sequence[Any]], Sequence[Tensor]]


class ProbeTexts(NamedTuple):
    """Texts for the probe, of whatever kind the model takes.

    Attributes:
        short: the text whose outputs are compared.
        neighbour: text as long as ``short``, of other tokens.
        longer: longer than both, so that ``short`` is padded beside it.
        changed: ``short`` with other tokens behind its first output; not read if that is not asked.
    """

    short: Any
    neighbour: Any
    longer: Any
    changed: Any = None


def context_fault(outputs: Outputs, texts: ProbeTexts, sees_right: bool | None = None) -> str | None:
    """The first fault that the probe finds, as a predicate ("reads padding ..."); None for a model without one.

    Args:
        outputs: runs the model in evaluation mode.
        texts: texts to compare, see `ProbeTexts`.
        sees_right: whether the first output must depend on the tokens behind it, or must not; None if either is right, as
            for one vector per text.
    """
    with torch.no_grad():
        [alone] = outputs([texts.short])
        if not torch.isfinite(alone).all():
            return None  # nothing can be compared; whoever uses the outputs reports them
        if _differs(outputs([texts.short, texts.neighbour])[0], alone):
            return READS_BATCH
        if _differs(outputs([texts.short, texts.longer])[0], alone):
            return READS_PADDING
        if sees_right is None:
            return None
        [changed] = outputs([texts.changed])  # alone: in a batch, equal rows may differ in their last bits
        if sees_right == (not torch.equal(changed[0], alone[0])):
            return None
        return IGNORES_RIGHT if sees_right else SEES_RIGHT


def _differs(found: Tensor, expected: Tensor) -> bool:
    """Whether any output is further from the expected one than rounding, or not finite."""
    distance = (found - expected).norm(dim=-1)
    return not bool((distance <= ROUNDING * expected.norm(dim=-1)).all())
