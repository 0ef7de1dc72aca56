"""A teacher inside the student's training loop, for students without a store or with the full distribution."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_bert_kd.batch import pack
from fairseq_bert_kd.teachers.load import Teacher
from fairseq_bert_kd.teachers.pair_batches import EncoderBatch, PairBatcher
from fairseq_bert_kd.teachers.plan import number_of_passes, plan_chunk
from fairseq_bert_kd.teachers.token_rows import TokenScorer, check_settings
from fairseq_bert_kd.tokenization.dictionary import excluded_ids


class LiveTeacher:
    """Scores a student's mini-batch while it trains, with the masks of a dump: the rows are those of a store.

    It is deliberately not an nn.Module, so a student, criterion or task that holds it neither trains nor saves it, and
    `train()` does not reach it. Its parameters are frozen. It draws no random numbers of torch's. It goes to the device
    of the first batch. Each process of a distributed run has its own.

    Args:
        teacher: taken over: its model is put into evaluation mode, frozen and cast to ``precision``.
        passes: position t of a target is masked, and scored, in pass ``t % passes``; None for the paper's 7, or the one
            of a left-to-right teacher, which masks nothing.
        max_tokens: source and target tokens that go through the teacher together, padding included; a longer pair goes
            alone.
        topk: tokens per row.
        temperatures: temperatures with a log-normaliser in each row.
        samples: tokens per row that are drawn outside the top k; see `teacher_batch`.
        seed: seed of these draws.
        full: also give each row's logits over the whole dictionary, 4 bytes per symbol.
        precision: type of the teacher's encoder and head, whatever the caller casts automatically; None leaves both the
            model's own type and the caller's ``torch.autocast`` alone.
        weight: weight of this teacher among several.

    Raises:
        ValueError: an out-of-range number, or more tokens per row than can be targets.
    """

    def __init__(
        self,
        teacher: Teacher,
        passes: int | None,
        max_tokens: int,
        topk: int,
        temperatures: Sequence[float],
        samples: int = 0,
        seed: int = 1,
        full: bool = False,
        precision: torch.dtype | None = None,
        weight: float = 1.0,
    ):
        dictionary = teacher.task.target_dictionary
        self.model = teacher.model.eval().requires_grad_(False)
        layout = self.model.text_layout()
        self.attention = layout.attention
        self.passes = number_of_passes(self.attention, passes, "passes of a live teacher (--kd-live-passes)")
        self.max_tokens, self.topk = max_tokens, topk
        self.temperatures = tuple(sorted({float(temperature) for temperature in temperatures}))
        self.samples, self.seed, self.full, self.weight = samples, seed, full, weight
        check_settings(topk, self.passes, max_tokens, self.temperatures, samples, seed)
        excluded = torch.from_numpy(excluded_ids(dictionary))
        self._pad, self._eos = dictionary.pad(), dictionary.eos()
        self._batcher = PairBatcher(layout, self.passes, self._pad, samples)
        self._scorer = TokenScorer(self.model, excluded, len(dictionary), topk, self.temperatures, samples)
        self._limit = self.model.max_positions()
        self._device: torch.device | None = None  # not known before the first batch
        self.set_precision(precision)

    def set_precision(self, precision: torch.dtype | None) -> None:
        """Cast encoder and head, see ``precision`` of the class; None leaves them."""
        self.precision = precision
        if precision is not None:
            self.model.to(dtype=precision)

    def training_batch(
        self, sample: dict[str, Any], student: torch.nn.Module, update_num: int
    ) -> dict[str, Any]:
        """`teacher_batch` in the type of the student's weights, or under the caller's ``torch.autocast``.

        Args:
            sample: training batch, see `teacher_batch`.
            student: model in training; the teacher takes its type if that is half precision.
            update_num: number of the update, see `teacher_batch`.
        """
        weights = next(student.parameters())
        half = weights.dtype if weights.dtype in (torch.float16, torch.bfloat16) else None
        if self.precision != half:
            self.set_precision(half)
        return self.teacher_batch(sample, update_num)

    def teacher_batch(self, sample: dict[str, Any], update_num: int = 0) -> dict[str, Any]:
        """One dict of ``sample[TEACHER]``, see `fairseq_bert_kd.batch`, on the device of the targets.

        A position is not present on padding, in a pair that is longer than the teacher's positions, and in a
        sentence with a row that is not finite; its fields are then zeros. A source that the task cut off
        (``--truncate-source``) is scored as the student sees it, which a dump does not.

        Draws are a function of (``seed``, sentence id, ``update_num``) and the position, whatever else is in the
        batch: a later epoch draws anew, and update 0 draws what a dump of this seed without ``--gold`` stores.

        Args:
            sample: batch of a `LanguagePairDataset` with right-padded targets, on the student's device; sources may
                be padded on either side.
            update_num: update of the student.

        Returns:
            Packed fields; ``gold_logit`` always, ``sample_ids`` and ``sample_logits`` with samples, and with ``full``
            ``full_logits``, ``(batch, tgt_len, dictionary)`` float32 relative to the row's best, not rounded, minus
            infinity for symbols that no target holds. They need no gradient and may be saved for a backward pass.

        Raises:
            ValueError: sentences without end of sentence, or targets that are padded on the left.
        """
        target = sample["target"]
        self._follow(target.device)
        ids, sources, targets = self._on_cpu(sample)
        seeds = [[self.seed, i, update_num] for i in ids]
        src_lengths, tgt_lengths = (np.array([len(tokens) for tokens in side]) for side in (sources, targets))
        scored = src_lengths + tgt_lengths <= self._limit
        fields = self._no_rows(target)
        with torch.no_grad():  # inference mode's tensors may not be saved for a backward pass
            for batch in plan_chunk(src_lengths, tgt_lengths, scored, self.passes, self.max_tokens):
                self._score(self._batcher.lay_out(batch, sources, targets, seeds), fields)
            return self._packed(fields, target)

    # ------------------------------------------------------------ before the teacher

    def _follow(self, device: torch.device) -> None:
        """Go to the student's device."""
        if self._device != device:
            self.model.to(device)
            self._scorer.excluded_ids = self._scorer.excluded_ids.to(device)
            self._device = device

    def _on_cpu(self, sample: dict[str, Any]) -> tuple[list[int], list[Tensor], list[Tensor]]:
        """Sentence ids, sources without and targets with end of sentence; the only wait for the device."""
        source, target = sample["net_input"]["src_tokens"], sample["target"]
        # (batch, src_len + tgt_len + 1), so that one copy brings all
        together = torch.cat([source, target, sample["id"].to(target)[:, None]], dim=1).cpu()
        ids = together[:, -1].tolist()
        sources = self._without_padding(together[:, : source.size(1)], "source", ids)
        targets = self._without_padding(together[:, source.size(1) : -1], "target", ids)
        return ids, [tokens[:-1] for tokens in sources], targets

    def _without_padding(self, tokens: Tensor, side: str, ids: list[int]) -> list[Tensor]:
        """Rows of ``(batch, length)`` from their first token to their last; ValueError for rows that cannot be scored."""
        kept = tokens.ne(self._pad).numpy()
        starts = kept.argmax(axis=1)  # (batch,) first token
        ends = kept.shape[1] - kept[:, ::-1].argmax(axis=1)  # (batch,) after the last token
        last = tokens.numpy()[np.arange(len(tokens)), ends - 1]
        if side == "target" and starts.any():
            i = int(starts.argmax())
            raise ValueError(
                f"targets must be padded on the right, that of sentence {ids[i]} begins with {starts[i]} padding "
                "symbols and would move against its teacher rows; leave out --left-pad-target"
            )
        if (last != self._eos).any():
            i = int((last != self._eos).argmax())
            raise ValueError(
                f"the {side} of sentence {ids[i]} must end with end of sentence ({self._eos}), got symbol {last[i]}: "
                "the teacher was trained on such pairs; let the data set append it"
            )
        return [row[start:end] for start, row, end in zip(starts, tokens, ends, strict=True)]

    # ------------------------------------------------------------ teacher and after

    def _score(self, batch: EncoderBatch, fields: dict[str, Tensor]) -> None:
        """Run the teacher on one batch and enter its rows; nothing is waited for."""
        finite = fields["finite"]  # (batch, tgt_len)
        device = finite.device
        # (rows,) in the flattened (batch, tgt_len)
        positions = torch.from_numpy(batch.sentences * finite.size(1) + batch.target_positions)
        if device.type == "cuda":
            positions = positions.pin_memory()
        positions = positions.to(device, non_blocking=True)
        own_precision: Any = contextlib.nullcontext()
        if self.precision is not None:  # without the caller's automatic casts
            own_precision = torch.autocast(device.type, enabled=False)
        with own_precision:
            for part, rows, logits in self._scorer.score(batch.pinned(device).to(device)):
                found = rows._asdict() | {"full_logits": logits}
                for name, values in fields.items():
                    values.flatten(0, 1).index_copy_(0, positions[part], found[name])

    def _no_rows(self, target: Tensor) -> dict[str, Tensor]:
        """Fields of ``(batch, tgt_len)`` positions of which none is scored yet; not ``finite`` where none will be."""

        def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros(*target.shape, *shape, dtype=dtype, device=target.device)

        fields = {
            "topk_ids": zeros(torch.int64, self.topk),
            "topk_logits": zeros(torch.float16, self.topk),
            "log_normalisers": zeros(torch.float32, len(self.temperatures)),
            "gold_logit": zeros(torch.float16),
            "finite": zeros(torch.bool),
        }
        if self.samples:
            fields["sample_ids"] = zeros(torch.int64, self.samples)
            fields["sample_logits"] = zeros(torch.float16, self.samples)
        if self.full:
            fields["full_logits"] = zeros(torch.float32, self._scorer.dictionary_size)
        return fields

    def _packed(self, fields: dict[str, Tensor], target: Tensor) -> dict[str, Any]:
        """The result of `teacher_batch`, zeros where not present."""
        inside = target.ne(self._pad)  # (batch, tgt_len)
        finite = fields.pop("finite")
        present = inside & (finite | ~inside).all(dim=1, keepdim=True)  # a bad row takes its sentence away
        for values in fields.values():  # (batch, tgt_len, ...)
            values.masked_fill_(~present.view(*target.shape, *[1] * (values.dim() - 2)), 0)
        settings = {"temperatures": self.temperatures, "weight": self.weight, "present": present}
        return pack(fields) | settings
