"""Lays planned items out as the teacher's input: what a dump and a live teacher have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_bert_kd.functional.left_to_right import teacher_input
from fairseq_bert_kd.functional.masking import strided_masks
from fairseq_bert_kd.teachers.plan import Batch

SLICE_LOGITS = 1 << 26  # logits in memory together, 256 MiB in float32


@dataclass(frozen=True)
class LaidOut:
    """A batch on the CPU; a row is a target position that is predicted in an item.

    Attributes:
        inputs: of the encoder; ``attention_mask`` is absent when every slot may see all.
        slots: ``(rows,)`` where they are predicted in the flattened ``(items, pair_len)``.
        gold: ``(rows,)`` target ids.
        sentences: ``(rows,)`` index of the sentence, as in the plan.
        places: ``(rows,)`` position within its target.
    """

    inputs: dict[str, Tensor]
    slots: Tensor
    gold: Tensor
    sentences: NDArray[np.int64]
    places: NDArray[np.int64]


class BatchLayout:
    """Predicts position t of a target in pass ``t % passes`` and translates both sides to the teacher's ids.

    A bidirectional teacher sees its mask token at the positions of the pass, a left-to-right one sees no mask. Works on the CPU, where it takes no synchronisation with the device.

    Args:
        model: an `HfMaskedLM`.
        passes: see `plan.plan_chunk`.
        pad: padding index of the dictionaries.
    """

    def __init__(self, model: Any, passes: int, pad: int):
        self.passes, self.pad = passes, pad
        self._attention = model.attention
        self._source_ids, self._target_ids = model.source_ids.cpu(), model.target_ids.cpu()
        self._pair_format = model.pair_format

    def lay_out(self, batch: Batch, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> LaidOut:
        """The teacher's input for one batch of a plan.

        Args:
            batch: of sentences and passes.
            sources: ``(src_len,)`` int64 ids of each sentence, without end of sentence.
            targets: ``(tgt_len,)`` int64 ids of each sentence, with end of sentence.
        """
        batch_sources, batch_targets = ([side[i] for i in batch.sentences] for side in (sources, targets))
        source, target = self._padded(batch_sources), self._padded(batch_targets)
        src_lengths, tgt_lengths = _lengths(batch_sources), _lengths(batch_targets)
        in_pass = torch.from_numpy(strided_masks(target.size(1), self.passes, batch.passes))
        predicted = in_pass & (torch.arange(target.size(1)) < tgt_lengths[:, None])
        pairs = teacher_input(
            self._attention, source, src_lengths, target, tgt_lengths, predicted,
            self._source_ids, self._target_ids, self._pair_format,
        )  # fmt: skip
        items, places = predicted.nonzero(as_tuple=True)
        inputs = {"input_ids": pairs.input_ids, "token_type_ids": pairs.token_type_ids}
        if not bool(pairs.attention_mask.all()):
            inputs["attention_mask"] = pairs.attention_mask
        slots = items * pairs.input_ids.size(1) + pairs.prediction_columns[predicted]
        return LaidOut(inputs, slots, target[predicted], batch.sentences[items.numpy()], places.numpy())

    def _padded(self, sentences: list[Tensor]) -> Tensor:
        """``(batch, longest)``, padded on the right."""
        return torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=float(self.pad))


def draw_uniforms(
    laid_out: LaidOut, targets: Sequence[Tensor], samples: int, seed_of: Callable[[int], list[int]]
) -> Tensor:
    """Numbers that depend on a sentence's seed and the position alone, not on the batch.

    Args:
        laid_out: whose rows get numbers.
        targets: as in `BatchLayout.lay_out`.
        samples: numbers a row.
        seed_of: of a sentence, by its index in the plan.

    Returns:
        ``(rows, samples)`` float64 in [0, 1): position t of a sentence takes row t of
        ``numpy.random.default_rng(seed).random((target length, samples))``.
    """
    drawn = {
        i: np.random.default_rng(seed_of(i)).random((len(targets[i]), samples))
        for i in map(int, np.unique(laid_out.sentences))
    }
    rows = [drawn[int(i)][place] for i, place in zip(laid_out.sentences, laid_out.places, strict=True)]
    return torch.from_numpy(np.array(rows))


def slices(rows: int, dictionary_size: int) -> Iterator[slice]:
    """Parts of a batch's rows whose logits fit into memory together."""
    step = max(SLICE_LOGITS // dictionary_size, 1)
    return (slice(start, start + step) for start in range(0, rows, step))


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """Where a GPU fetches it without making the CPU wait."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def _lengths(sentences: list[Tensor]) -> Tensor:
    return torch.tensor([len(tokens) for tokens in sentences])
