"""A teacher inside the student's training loop, for those who have no store or need the full distribution."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_bert_kd.batch import encode_logits
from fairseq_bert_kd.functional.teacher_rows import TeacherRows, teacher_rows
from fairseq_bert_kd.teachers.load import Teacher, load_teacher, never_a_target
from fairseq_bert_kd.teachers.pair_batches import BatchLayout, LaidOut, draw_uniforms, pinned, slices
from fairseq_bert_kd.teachers.plan import Batch, number_of_passes, plan_chunk


@dataclass(frozen=True)
class _Pairs:
    """A mini-batch on the CPU, without padding.

    Attributes:
        ids: of the sentences in the corpus.
        sources: ``(src_len,)`` ids of each, without end of sentence.
        targets: ``(tgt_len,)`` ids of each, with end of sentence.
    """

    ids: list[int]
    sources: list[Tensor]
    targets: list[Tensor]


@dataclass(frozen=True)
class _Found:
    """Rows of all positions of ``(batch, tgt_len)``, flattened; not ``finite`` where none was scored.

    Attributes:
        rows: see `TeacherRows`.
        full: ``(positions, dictionary)`` logits relative to the row's best, or None.
    """

    rows: TeacherRows
    full: Tensor | None

    def put(self, places: Tensor, rows: TeacherRows, logits: Tensor) -> None:
        """Enter the rows of some positions, ``places`` ``(rows,)``."""
        for into, values in zip(self.rows, rows, strict=True):
            into.index_copy_(0, places, values)
        if self.full is not None:
            self.full.index_copy_(0, places, logits)


class LiveTeacher:
    """Scores a student's mini-batch while it trains, with the masks of a dump: the rows are those of a store.

    It is no module: a student, criterion or task that holds it neither trains nor saves it, and `train()` does not
    reach it. Its parameters are frozen; it draws no random numbers of torch's. It goes to the device of the first
    batch. Each process of a distributed run has its own.

    Args:
        teacher: that it takes over: model in evaluation mode, frozen, cast to ``precision``.
        passes: position t of a target is masked, and scored, in pass ``t % passes``; None for the paper's 7, or the one
            of a left-to-right teacher, which masks nothing.
        max_tokens: source and target tokens that go through the teacher together, padding included; a pair that is
            longer raises it for its mini-batch.
        topk: tokens of a row.
        temperatures: with a log-normaliser in each row.
        samples: tokens of a row that are drawn outside the top k; see `rows`.
        seed: of these draws.
        full: also give each row's logits over the whole dictionary, 4 bytes a symbol.
        precision: of the teacher's encoder and head, whatever the caller casts automatically; None leaves both the
            model's own type and the caller's ``torch.autocast`` alone.

    Raises:
        ValueError: a number that cannot be meant, or more tokens a row than can be targets.
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
    ):
        dictionary = teacher.task.target_dictionary
        self.symbols = len(dictionary)
        self.passes = number_of_passes(teacher.model, passes, "passes of a live teacher (--kd-live-passes)")
        self.max_tokens, self.topk = max_tokens, topk
        self.temperatures = tuple(sorted({float(temperature) for temperature in temperatures}))
        self.samples, self.seed, self.full = samples, seed, full
        barred = never_a_target(dictionary)
        self._refuse_impossible(self.symbols - len(barred))
        self._pad, self._eos = dictionary.pad(), dictionary.eos()
        self.model = teacher.model.eval().requires_grad_(False)
        self.set_precision(precision)
        self._barred = barred.to(self.model.target_ids.device)
        self._layout = BatchLayout(self.model, self.passes, self._pad)
        self._limit = self.model.max_positions()

    def set_precision(self, precision: torch.dtype | None) -> None:
        """Cast encoder and head, see ``precision`` of the class; None leaves them."""
        self.precision = precision
        if precision is not None:
            self.model.to(dtype=precision)

    def rows(self, sample: dict[str, Any], update_num: int = 0) -> dict[str, Any]:
        """The teacher's rows for a mini-batch.

        A position is not present on padding, in a pair that is longer than the teacher's positions, and in a
        sentence with a row that is not finite; it then holds zeros. A source that the task cut off
        (``--truncate-source``) is scored as the student sees it, which a dump does not.

        Draws are a function of (``seed``, sentence id, ``update_num``) and the position, whatever else is in the
        batch: a later epoch draws anew, and update 0 draws what a dump of this seed without ``--gold`` stores.

        Args:
            sample: batch of a `LanguagePairDataset` with right-padded targets, on the student's device; sources may
                be padded on either side.
            update_num: of the student.

        Returns:
            A teacher's entry of the batch, see `fairseq_bert_kd.batch`, on the device of the targets:

            - ``temperatures``: tuple of floats, ascending;
            - ``ids``: ``(batch, tgt_len, k)`` int32, best first;
            - ``logit_bits``: ``(batch, tgt_len, k)`` int16, float16 logits relative to the row's best;
            - ``normaliser_bits``: ``(batch, tgt_len, temperatures)`` int32, float32 log-normalisers L(T) of
              docs/store_format.md;
            - ``present``: ``(batch, tgt_len)`` bool;
            - ``gold_logit_bits``: ``(batch, tgt_len)`` int16, float16 logit of the target's token;
            - ``sample_ids`` int32 and ``sample_logit_bits`` int16, ``(batch, tgt_len, samples)``, with samples;
            - ``full_logits``: ``(batch, tgt_len, dictionary)`` float32 relative to the row's best, not rounded, minus
              infinity for symbols that no target holds; with ``full``.

            They need no gradient and may be saved for a backward pass.

        Raises:
            ValueError: sentences without end of sentence, or targets that are padded on the left.
        """
        target = sample["target"]
        device = target.device
        self._follow(device)
        pairs = self._on_cpu(sample)
        found = self._empty(target.numel(), device)
        with torch.no_grad():  # inference mode's tensors may not be saved for a backward pass
            for batch in self._plan(pairs):
                laid_out = self._layout.lay_out(batch, pairs.sources, pairs.targets)
                places = torch.from_numpy(laid_out.sentences * target.size(1) + laid_out.places)
                self._score(
                    laid_out, _send(places, device), self._uniforms(laid_out, pairs, update_num), found
                )
            return self._entry(found, target)

    # ------------------------------------------------------------ before the teacher

    def _follow(self, device: torch.device) -> None:
        """Go where the student is."""
        if self._barred.device != device:
            self.model.to(device)
            self._barred = self._barred.to(device)

    def _on_cpu(self, sample: dict[str, Any]) -> _Pairs:
        """The mini-batch without padding; the only wait for the device."""
        source, target = sample["net_input"]["src_tokens"], sample["target"]
        together = torch.cat([source, target, sample["id"].to(target)[:, None]], dim=1).cpu()
        ids = together[:, -1].tolist()
        sources = self._sentences(together[:, : source.size(1)], "source", ids)
        targets = self._sentences(together[:, source.size(1) : -1], "target", ids)
        return _Pairs(ids, [tokens[:-1] for tokens in sources], targets)

    def _sentences(self, tokens: Tensor, side: str, ids: list[int]) -> list[Tensor]:
        """Rows of ``(batch, len)`` without the padding at their ends; what cannot be scored is refused."""
        kept = tokens.ne(self._pad).numpy()
        starts = kept.argmax(axis=1)
        ends = kept.shape[1] - kept[:, ::-1].argmax(axis=1)
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

    def _uniforms(self, laid_out: LaidOut, pairs: _Pairs, update_num: int) -> Tensor | None:
        """``(rows, samples)`` numbers in [0, 1), or None without samples."""
        if not self.samples:
            return None
        return draw_uniforms(
            laid_out, pairs.targets, self.samples, lambda i: [self.seed, pairs.ids[i], update_num]
        )

    # ------------------------------------------------------------ teacher and after

    def _score(self, laid_out: LaidOut, places: Tensor, uniforms: Tensor | None, found: _Found) -> None:
        """Run the teacher on one batch and enter its rows at ``places`` ``(rows,)``; nothing is waited for."""
        device = places.device
        inputs = {name: _send(tensor, device) for name, tensor in laid_out.inputs.items()}
        slots, gold = _send(laid_out.slots, device), _send(laid_out.gold, device)
        drawn = None if uniforms is None else _send(uniforms, device)
        with self._own_precision(device):
            features = self.model.slot_features(**inputs, slots=slots)
        for part in slices(len(gold), self.symbols):
            with self._own_precision(device):
                logits = self.model.head(features[part]).float()
            rows = teacher_rows(
                logits,
                gold[part],
                self._barred,
                self.topk,
                self.temperatures,
                None if drawn is None else drawn[part],
            )
            # by now `logits` are relative to the row's best, and minus infinity for symbols that no target holds
            found.put(places[part], rows, logits)

    def _own_precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """Without the caller's automatic casts, where a precision was asked for."""
        if self.precision is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, enabled=False)

    def _empty(self, positions: int, device: torch.device) -> _Found:
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
        return _Found(rows, zeros(self.symbols, dtype=torch.float32) if self.full else None)

    def _entry(self, found: _Found, target: Tensor) -> dict[str, Any]:
        """The rows as `rows` gives them, zeros where not present."""
        inside = target.ne(self._pad)
        finite = found.rows.finite.view_as(target)
        present = inside & (finite | ~inside).all(dim=1, keepdim=True)

        def kept(values: Tensor) -> Tensor:
            values = values.view(*present.shape, *values.shape[1:])
            return values.masked_fill_(~present.view(*present.shape, *[1] * (values.dim() - 2)), 0)

        rows = found.rows
        entry: dict[str, Any] = {
            "temperatures": self.temperatures,
            "ids": kept(rows.topk_ids).int(),
            "logit_bits": encode_logits(kept(rows.topk_logits)),
            "normaliser_bits": kept(rows.log_normalisers).view(torch.int32),
            "present": present,
            "gold_logit_bits": encode_logits(kept(rows.gold_logit)),
        }
        if self.samples:
            entry["sample_ids"] = kept(rows.sample_ids).int()
            entry["sample_logit_bits"] = encode_logits(kept(rows.sample_logits))
        if found.full is not None:
            entry["full_logits"] = kept(found.full)
        return entry

    def _refuse_impossible(self, candidates: int) -> None:
        for name, value in (("passes", self.passes), ("max_tokens", self.max_tokens), ("topk", self.topk)):
            if value < 1:
                raise ValueError(
                    f"{name} of a live teacher must be at least 1, got {value}; the paper uses 7 passes and topk 8"
                )
        for name, value in (("samples", self.samples), ("seed", self.seed)):
            if value < 0:
                raise ValueError(
                    f"{name} of a live teacher must not be negative, got {value}; 0 is the least"
                )
        bad = next((t for t in self.temperatures if not 0 < t < math.inf), None)
        if bad is not None:
            raise ValueError(
                f"temperatures of a live teacher must be positive, got {bad:g}; the paper uses 5 and 10"
            )
        if self.topk + (self.samples > 0) > candidates:
            drawn = " with one to draw" if self.samples else ""
            raise ValueError(
                f"topk {self.topk}{drawn} is above the {candidates} symbols of the target dictionary that can be "
                "targets; ask for fewer"
            )


def load_live_teacher(
    path: str,
    data: str,
    languages: tuple[str, str],
    source_symbols: Sequence[str],
    target_symbols: Sequence[str],
    **settings: Any,
) -> LiveTeacher:
    """Load a C-MLM teacher for a student's training; torch's random numbers go on as if it had not been there.

    Args:
        path: checkpoint of the teacher.
        data: folder of the student's binarised data, whose dictionaries must be the teacher's.
        languages: source and target of the student.
        source_symbols: the student's source dictionary in id order.
        target_symbols: its target dictionary in id order.
        settings: of `LiveTeacher`.

    Raises:
        ValueError: the checkpoint is no teacher, is unsafe, or was trained with other dictionaries or for another
            direction.
        FileNotFoundError: checkpoint or data folder missing.
    """
    with torch.random.fork_rng(devices=[]):  # weights are drawn before those of the checkpoint replace them
        teacher = load_teacher(path, data)
    cfg = teacher.task.cfg
    if (cfg.source_lang, cfg.target_lang) != tuple(languages):
        raise ValueError(
            f"teacher `{path}` was trained for {cfg.source_lang}-{cfg.target_lang}, the student learns "
            f"{'-'.join(languages)}; give a teacher of the same direction"
        )
    sides = (
        ("source", teacher.task.source_dictionary.symbols, source_symbols),
        ("target", teacher.task.target_dictionary.symbols, target_symbols),
    )
    for side, theirs, ours in sides:
        if list(theirs) != list(ours):
            raise ValueError(
                f"teacher `{path}` has another {side} dictionary than the student ({len(theirs)} and {len(ours)} "
                "symbols); binarise with the teacher's (fairseq-preprocess --srcdict/--tgtdict), or train a teacher "
                "on the student's data"
            )
    return LiveTeacher(teacher, **settings)


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    return pinned(tensor, device).to(device, non_blocking=True)
