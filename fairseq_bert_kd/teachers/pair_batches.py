"""Lays planned items out as the teacher's input, for a dump and for a live teacher."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_bert_kd.functional.entity_fusion import place_entities
from fairseq_bert_kd.functional.entity_noise import seen_entities
from fairseq_bert_kd.functional.masking import strided_masks
from fairseq_bert_kd.functional.text_input import TextInput, TextLayout
from fairseq_bert_kd.storage.entity_mentions import Spans
from fairseq_bert_kd.teachers.plan import Batch


@dataclass(frozen=True, eq=False)
class EncoderBatch:
    """Input of one forward pass; a row is a target position that is predicted in one of its items.

    Attributes:
        inputs: inputs of the encoder by name; ``attention_mask`` is absent if every position may attend to all.
        input_positions: ``(rows,)`` int64 where the rows are predicted, in the flattened ``(items, input_len)``.
        gold: ``(rows,)`` int64 target ids.
        sentences: ``(rows,)`` index of the sentence, as in the plan.
        target_positions: ``(rows,)`` position within its target.
        uniforms: ``(rows, samples)`` float64 in [0, 1) for draws, or None.
    """

    inputs: dict[str, Tensor]
    input_positions: Tensor
    gold: Tensor
    sentences: NDArray[np.int64]
    target_positions: NDArray[np.int64]
    uniforms: Tensor | None = None

    def pinned(self, device: torch.device) -> "EncoderBatch":
        """The same in memory from which a GPU fetches without making the CPU wait; itself if there is no GPU."""
        return self._map(Tensor.pin_memory) if device.type == "cuda" else self

    def to(self, device: torch.device) -> "EncoderBatch":
        """The same with its tensors on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, function: Callable[[Tensor], Tensor]) -> "EncoderBatch":
        return replace(
            self,
            inputs={name: function(tensor) for name, tensor in self.inputs.items()},
            input_positions=function(self.input_positions),
            gold=function(self.gold),
            uniforms=None if self.uniforms is None else function(self.uniforms),
        )


class PairBatcher:
    """Lays out batches that predict position t of a target in pass ``t % passes``.

    A bidirectional teacher sees its mask token at the positions of the pass, a left-to-right one sees no mask. All work is
    on the CPU, where it takes no synchronisation with the device.

    Args:
        layout: layout of the teacher.
        passes: number of passes, see `plan.plan_chunk`.
        pad: padding index of the dictionaries.
        samples: numbers to draw per row, see `_uniforms`.
        hides: whether a bidirectional teacher sees its mask token at the positions that it predicts.
        every_piece: whether every piece of a mention carries its entity, or the first one alone.
    """

    def __init__(
        self,
        layout: TextLayout,
        passes: int,
        pad: int,
        samples: int = 0,
        hides: bool = True,
        every_piece: bool = False,
    ):
        self.every_piece = every_piece
        self.passes, self.pad, self.samples, self.hides = passes, pad, samples, hides
        self._layout = layout.cpu()

    def lay_out(
        self,
        batch: Batch,
        sources: Sequence[Tensor],
        targets: Sequence[Tensor],
        seeds: Sequence[list[int]],
        mentions: Sequence[Sequence[Spans]] | None = None,
    ) -> EncoderBatch:
        """The teacher's input for one batch of a plan, on the CPU.

        Args:
            batch: sentences and passes.
            sources: ``(src_len,)`` int64 ids of each sentence, without end of sentence; empty for a teacher of single texts.
            targets: ``(tgt_len,)`` int64 ids of each sentence, with end of sentence.
            seeds: seed of each sentence's draws.
            mentions: of each sentence those of its texts, for a teacher that reads entities. A mention of the target is shown
                only in passes that predict none of its pieces.
        """
        others = [self._padded([sources[i] for i in batch.sentences])] if sources else []
        target, tgt_lengths = self._padded([targets[i] for i in batch.sentences])
        # (items, tgt_len)
        in_pass = torch.from_numpy(strided_masks(target.size(1), self.passes, batch.passes))
        predicted = in_pass & (torch.arange(target.size(1)) < tgt_lengths[:, None])
        ids, lengths = zip(*others, (target, tgt_lengths), strict=True)
        hidden = predicted if self.hides else torch.zeros_like(predicted)
        texts, predicted_at = self._layout.lay_out(ids, lengths, hidden)
        inputs = {"input_ids": texts.input_ids, "token_type_ids": texts.token_type_ids}
        if not bool(texts.attention_mask.all()):
            inputs["attention_mask"] = texts.attention_mask
        if mentions is not None:
            inputs["entities"] = self._entities(
                [mentions[i] for i in batch.sentences], lengths, predicted, texts
            )
        items, positions = predicted.nonzero(as_tuple=True)  # (rows,) each
        sentences, target_positions = batch.sentences[items.numpy()], positions.numpy()
        return EncoderBatch(
            inputs=inputs,
            input_positions=items * texts.input_ids.size(1) + predicted_at[predicted],
            gold=target[predicted],
            sentences=sentences,
            target_positions=target_positions,
            uniforms=self._uniforms(sentences, target_positions, targets, seeds) if self.samples else None,
        )

    def _entities(
        self,
        mentions: Sequence[Sequence[Spans]],
        lengths: Sequence[Tensor],
        predicted: Tensor,
        texts: TextInput,
    ) -> Tensor:
        """``(items, input_len)`` entities that the items show."""
        items = [
            seen_entities(spans, sizes, mask[: sizes[-1]].numpy(), self.every_piece)
            for spans, sizes, mask in zip(
                mentions, torch.stack(list(lengths), dim=1).tolist(), predicted, strict=True
            )
        ]
        columns = (
            pad_sequence([torch.from_numpy(text) for text in column], batch_first=True)
            for column in zip(*items, strict=True)
        )
        return place_entities(list(columns), texts)

    def _padded(self, sentences: list[Tensor]) -> tuple[Tensor, Tensor]:
        """``(items, longest)`` ids, padded on the right, and ``(items,)`` lengths."""
        ids = pad_sequence(sentences, batch_first=True, padding_value=float(self.pad))
        return ids, torch.tensor([len(tokens) for tokens in sentences])

    def _uniforms(
        self,
        sentences: NDArray[np.int64],
        target_positions: NDArray[np.int64],
        targets: Sequence[Tensor],
        seeds: Sequence[list[int]],
    ) -> Tensor:
        """``(rows, samples)`` float64 that depend on a sentence's seed and the position alone, not on the batch.

        Position t of a sentence takes row t of ``numpy.random.default_rng(seed).random((target length, samples))``.
        """
        drawn = {
            i: np.random.default_rng(seeds[i]).random((len(targets[i]), self.samples))
            for i in np.unique(sentences)
        }
        rows = [drawn[i][t] for i, t in zip(sentences, target_positions, strict=True)]
        return torch.from_numpy(np.array(rows))
