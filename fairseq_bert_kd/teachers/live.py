"""A teacher inside the student's training loop, for students without a store or with the full distribution."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_bert_kd.batch import pack
from fairseq_bert_kd.functional.teacher_rows import TeacherRows
from fairseq_bert_kd.teachers.load import Teacher
from fairseq_bert_kd.teachers.pair_batches import EncoderBatch, PairBatcher
from fairseq_bert_kd.teachers.plan import Batch, number_of_passes, plan_chunk
from fairseq_bert_kd.teachers.token_rows import TokenScorer
from fairseq_bert_kd.tokenization.dictionary import excluded_ids


@dataclass(frozen=True)
class _Pairs:
    """A mini-batch on the CPU, without padding.

    Attributes:
        ids: ids of the sentences in the corpus.
        sources: ``(src_len,)`` ids of each source, without end of sentence.
        targets: ``(tgt_len,)`` ids of each target, with end of sentence.
    """

    ids: list[int]
    sources: list[Tensor]
    targets: list[Tensor]


@dataclass(frozen=True)
class _FlatRows:
    """Rows of all positions of ``(batch, tgt_len)``, flattened; not ``finite`` where none was scored.

    Attributes:
        rows: see `TeacherRows`.
        full: ``(positions, dictionary)`` logits relative to the row's best, or None.
    """

    rows: TeacherRows
    full: Tensor | None

    def put(self, positions: Tensor, rows: TeacherRows, logits: Tensor) -> None:
        """Enter the rows of some positions, ``(rows,)`` int64."""
        for into, values in zip(self.rows, rows, strict=True):
            into.index_copy_(0, positions, values)
        if self.full is not None:
            self.full.index_copy_(0, positions, logits)


class LiveTeacher:
    """Scores a student's mini-batch while it trains, with the masks of a dump: the rows are those of a store.

    It is deliberately not an nn.Module, so a student, criterion or task that holds it neither trains nor saves it, and
    `train()` does not reach it. Its parameters are frozen. It draws no random numbers of torch's. It goes to the device
    of the first batch. Each process of a distributed run has its own.

    Args:
        teacher: taken over: its model is put into evaluation mode, frozen and cast to ``precision``.
        passes: position t of a target is masked, and scored, in pass ``t % passes``; None for the paper's 7, or the one
            of a left-to-right teacher, which masks nothing.
        max_tokens: source and target tokens that go through the teacher together, padding included; a longer pair raises
            it for its mini-batch.
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
        layout = self.model.pair_layout()
        self.attention = layout.attention
        self.passes = number_of_passes(self.attention, passes, "passes of a live teacher (--kd-live-passes)")
        self.max_tokens, self.topk = max_tokens, topk
        self.temperatures = tuple(sorted({float(temperature) for temperature in temperatures}))
        self.samples, self.seed, self.full, self.weight = samples, seed, full, weight
        excluded = torch.from_numpy(excluded_ids(dictionary))
        self._check_settings(len(dictionary) - len(excluded))
        self._pad, self._eos = dictionary.pad(), dictionary.eos()
        self._batcher = PairBatcher(layout, self.passes, self._pad, samples)
        self._scorer = TokenScorer(
            self.model, excluded, len(dictionary), k=topk, temperatures=self.temperatures
        )
        self._limit = self.model.max_positions()
        self._device: torch.device | None = None  # not known before the first batch
        self.set_precision(precision)

    def set_precision(self, precision: torch.dtype | None) -> None:
        """Cast encoder and head, see ``precision`` of the class; None leaves them."""
        self.precision = precision
        if precision is not None:
            self.model.to(dtype=precision)

    def training_batch(
        self, sample: dict[str, Any], student: torch.nn.Module, optimizer: Any, update_num: int
    ) -> dict[str, Any]:
        """`teacher_batch` in the student's precision.

        Args:
            sample: see `teacher_batch`.
            student: model in training; the teacher takes its type if that is half precision.
            optimizer: fairseq's; that of ``--amp`` runs the teacher under ``torch.autocast`` too.
            update_num: see `teacher_batch`.
        """
        weights = next(student.parameters())
        half = weights.dtype if weights.dtype in (torch.float16, torch.bfloat16) else None
        if self.precision != half:
            self.set_precision(half)
        mixed: Any = contextlib.nullcontext()
        if type(optimizer).__name__ == "AMPOptimizer":  # fairseq turns it on later, for the student alone
            mixed = torch.autocast("cuda", enabled=weights.is_cuda)
        with mixed:
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
        device = target.device
        self._follow(device)
        pairs = self._on_cpu(sample)
        flat = self._empty(target.numel(), device)
        with torch.no_grad():  # inference mode's tensors may not be saved for a backward pass
            for planned in self._plan(pairs):
                batch = self._batcher.lay_out(
                    planned, pairs.sources, pairs.targets, lambda i: [self.seed, pairs.ids[i], update_num]
                )
                self._score(batch, target.size(1), device, flat)
            return self._packed(flat, target)

    # ------------------------------------------------------------ before the teacher

    def _follow(self, device: torch.device) -> None:
        """Go to the student's device."""
        if self._device != device:
            self.model.to(device)
            self._scorer.excluded_ids = self._scorer.excluded_ids.to(device)
            self._device = device

    def _on_cpu(self, sample: dict[str, Any]) -> _Pairs:
        """The mini-batch without padding; the only wait for the device."""
        source, target = sample["net_input"]["src_tokens"], sample["target"]
        # (batch, src_len + tgt_len + 1), so that one copy brings all
        together = torch.cat([source, target, sample["id"].to(target)[:, None]], dim=1).cpu()
        ids = together[:, -1].tolist()
        sources = self._without_padding(together[:, : source.size(1)], "source", ids)
        targets = self._without_padding(together[:, source.size(1) : -1], "target", ids)
        return _Pairs(ids, [tokens[:-1] for tokens in sources], targets)

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

    def _plan(self, pairs: _Pairs) -> list[Batch]:
        """Batches over all passes of the pairs that the teacher has positions for."""
        src_lengths, tgt_lengths = (
            np.array([len(tokens) for tokens in side]) for side in (pairs.sources, pairs.targets)
        )
        scored = src_lengths + tgt_lengths <= self._limit
        longest = int((src_lengths + tgt_lengths)[scored].max(initial=0))
        return plan_chunk(src_lengths, tgt_lengths, scored, self.passes, max(self.max_tokens, longest))

    # ------------------------------------------------------------ teacher and after

    def _score(self, batch: EncoderBatch, tgt_len: int, device: torch.device, flat: _FlatRows) -> None:
        """Run the teacher on one batch and enter its rows; nothing is waited for."""
        # (rows,) in the flattened (batch, tgt_len)
        positions = torch.from_numpy(batch.sentences * tgt_len + batch.target_positions)
        if device.type == "cuda":
            positions = positions.pin_memory()
        positions = positions.to(device, non_blocking=True)
        own_precision: Any = contextlib.nullcontext()
        if self.precision is not None:  # without the caller's automatic casts
            own_precision = torch.autocast(device.type, enabled=False)
        with own_precision:
            for part, rows, logits in self._scorer.score(batch.pinned(device).to(device)):
                flat.put(positions[part], rows, logits)

    def _empty(self, positions: int, device: torch.device) -> _FlatRows:
        """No position scored yet."""

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(positions, *shape, dtype=dtype, device=device)

        rows = TeacherRows(
            topk_ids=zeros(self.topk, dtype=torch.int64),
            topk_logits=zeros(self.topk, dtype=torch.float16),
            log_normalisers=zeros(len(self.temperatures), dtype=torch.float32),
            gold_logit=zeros(dtype=torch.float16),
            gold_nll=zeros(dtype=torch.float32),
            finite=zeros(dtype=torch.bool),
            sample_ids=zeros(self.samples, dtype=torch.int64),
            sample_logits=zeros(self.samples, dtype=torch.float16),
        )
        symbols = self._scorer.dictionary_size
        return _FlatRows(rows, zeros(symbols, dtype=torch.float32) if self.full else None)

    def _packed(self, flat: _FlatRows, target: Tensor) -> dict[str, Any]:
        """The result of `teacher_batch`, zeros where not present."""
        inside = target.ne(self._pad)  # (batch, tgt_len)
        finite = flat.rows.finite.view_as(target)
        present = inside & (finite | ~inside).all(dim=1, keepdim=True)  # a bad row takes its sentence away
        fields = flat.rows._asdict()
        del fields["gold_nll"], fields["finite"]
        if not self.samples:
            del fields["sample_ids"], fields["sample_logits"]
        if flat.full is not None:
            fields["full_logits"] = flat.full
        for name, values in fields.items():
            values = values.view(
                *target.shape, *values.shape[1:]
            )  # (positions, ...) to (batch, tgt_len, ...)
            fields[name] = values.masked_fill_(~present.view(*target.shape, *[1] * (values.dim() - 2)), 0)
        settings = {"temperatures": self.temperatures, "weight": self.weight, "present": present}
        return pack(fields) | settings

    def _check_settings(self, candidates: int) -> None:
        """ValueError for out-of-range numbers; ``candidates`` are the symbols that can be targets."""
        for name, value in (("passes", self.passes), ("max_tokens", self.max_tokens), ("topk", self.topk)):
            if value < 1:
                raise ValueError(
                    f"{name} of a live teacher must be at least 1, got {value}; the paper uses 7 passes and topk 8"
                )
        for name, value in (("samples", self.samples), ("seed", self.seed)):
            if value < 0:
                raise ValueError(f"{name} of a live teacher must not be negative, got {value}")
        bad = next((t for t in self.temperatures if not 0 < t < math.inf), None)
        if bad is not None:
            raise ValueError(
                f"temperatures of a live teacher must be positive, got {bad:g}; the paper uses 5 and 10"
            )
        if self.topk + (self.samples > 0) > candidates:
            drawn = " with one to draw" if self.samples else ""
            raise ValueError(
                f"topk {self.topk}{drawn} is above the {candidates} symbols of the target dictionary that can be "
                "targets; request fewer"
            )
