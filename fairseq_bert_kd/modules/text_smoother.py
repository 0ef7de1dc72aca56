"""Turns a batch and its stored rows into smoothed texts, by the options of text smoothing."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
from fairseq.logging import metrics
from torch import Tensor

from fairseq_bert_kd.batch import SMOOTHING, TeacherRequirements, each_twice, twice, unpack
from fairseq_bert_kd.functional.text_smoothing import (
    SmoothedText,
    check_settings,
    common_text,
    moved_mass,
    original_mass,
    replaced_text,
    sparse_text,
)
from fairseq_bert_kd.modules.smoothing_options import (
    BOTH,
    DEFAULT_RATE,
    DROPOUT,
    MIXED,
    STORED,
    UNIFORM,
    SmoothingOptions,
)

STORE_OPTIONS = {
    "smoothing_temperature",
    "smoothing_topk",
    "smoothing_view",
    "smoothing_store",
    "smoothing_store_dir",
}
COUNT = "smoothed_positions"
SUMS = ("smoothing_moved", "smoothing_original")  # of the log, over the positions


class SpecialIds(NamedTuple):
    """Ids of the text's dictionary.

    Attributes:
        pad: padding, never smoothed.
        eos: end of sentence, smoothed on request.
        unk: unknown symbol, which stands in the place of a word that is dropped.
    """

    pad: int
    eos: int
    unk: int

    @classmethod
    def of(cls, dictionary: Any) -> "SpecialIds":
        """Those of a fairseq dictionary."""
        return cls(dictionary.pad(), dictionary.eos(), dictionary.unk())


class TextSmoother:
    """Smooths the texts of training batches.

    Args:
        cfg: options, see `SmoothingOptions`.
        seed: seed of the draws of ``--smoothing-schedule mixed`` and ``--smoothing-source dropout``.

    Raises:
        ValueError: options out of range.
    """

    def __init__(self, cfg: Any, seed: int):
        check_settings(cfg.smoothing_weight, cfg.smoothing_temperature, cfg.smoothing_topk)
        self.cfg, self.seed = cfg, seed
        self.weight: float = cfg.smoothing_weight
        self.temperature: float = cfg.smoothing_temperature
        self.schedule, self.origin = str(cfg.smoothing_schedule), str(cfg.smoothing_source)
        check_rate(cfg.smoothing_rate, self.schedule)
        check_origin(cfg)
        self.common: Optional[Tensor] = None
        self.updates = 0

    @property
    def active(self) -> bool:
        """Whether anything is smoothed at all."""
        return self.weight > 0

    @property
    def needs_store(self) -> bool:
        """Whether rows of a masked language model are needed."""
        return self.active and self.origin in STORED

    def has_rows(self, sample: Mapping[str, Any]) -> bool:
        """Whether a batch can be smoothed: it has rows, or needs none since the words of a control are known."""
        return SMOOTHING in sample if self.needs_store else self.common is not None

    def requirements(self, stored: int) -> TeacherRequirements:
        """Requirements on a store that holds ``stored`` tokens per position."""
        at = (("--smoothing-temperature", self.temperature),)
        return TeacherRequirements(topk=self.cfg.smoothing_topk or stored, temperatures=at)

    def take_counts(self, counts: Tensor) -> None:
        """Make the distribution of a control.

        Args:
            counts: ``(dictionary,)`` occurrences of each symbol in the training text, 0 for those that are no words.
        """
        kept = (counts > 0).float() if self.origin == UNIFORM else counts.float()
        self.common = kept / kept.sum().clamp(min=1.0)

    def smoothed_batch(
        self, sample: dict[str, Any], tokens: Tensor, special: SpecialIds
    ) -> tuple[dict[str, Any], SmoothedText]:
        """The batch to train on, and what stands in the place of its text.

        Args:
            sample: a training batch.
            tokens: ``(batch, text_len)`` its text.
            special: ids of the text's dictionary.
        """
        chosen = tokens != special.pad
        if not self.cfg.smoothing_special:
            chosen &= tokens != special.eos
        if self.schedule == MIXED:
            chosen &= self._drawn(sample["id"]).to(tokens.device)[:, None]
        text = self._text(chosen, sample.get(SMOOTHING))
        if self.origin == DROPOUT:
            places = (tokens != special.pad).cumsum(dim=1) - 1
            text = self._dropped(text, tokens, self._draws(sample["id"], places), special.unk)
        if self.schedule != BOTH:
            return sample, text
        # without its rows, which have been read
        plain = {name: value for name, value in sample.items() if name != SMOOTHING}
        return twice(plain), SmoothedText(
            smoothed=torch.stack([torch.zeros_like(text.smoothed), text.smoothed], dim=1).flatten(0, 1),
            ids=each_twice(text.ids),
            weights=each_twice(text.weights),
            common=text.common,
            common_weight=text.common_weight,
        )

    def log(self, text: SmoothedText, tokens: Tensor) -> dict[str, Any]:
        """For the log: smoothed positions, the weight of other tokens than the original ones, and the probability of these,
        summed; that is left out where words are dropped."""
        found = {COUNT: text.smoothed.sum(), "smoothing_moved": moved_mass(text, tokens).sum()}
        if self.origin == DROPOUT:
            return found
        return found | {"smoothing_original": original_mass(text, tokens, self.weight).sum()}

    def log_of_none(self, like: Tensor) -> dict[str, Any]:
        """The same names for a batch without a smoothed position; ``like`` is a tensor of its device."""
        names = SUMS[:1] if self.origin == DROPOUT else SUMS
        none = like.new_zeros((), dtype=torch.int64)
        return {COUNT: none} | {name: none.float() for name in names}

    def _text(self, chosen: Tensor, rows: Optional[Mapping[str, Any]]) -> SmoothedText:
        if not self.needs_store:
            assert self.common is not None
            self.common = self.common.to(chosen.device)
            return common_text(self.common, chosen, self.weight)
        assert rows is not None
        fields = unpack(rows)
        column = next(
            i for i, t in enumerate(rows["temperatures"]) if math.isclose(t, self.temperature, rel_tol=1e-6)
        )
        return sparse_text(
            fields["topk_ids"],
            fields["topk_logits"],
            fields["log_normalisers"][..., column],
            chosen & fields["present"],
            self.weight,
            self.temperature,
        )

    def _dropped(self, text: SmoothedText, tokens: Tensor, draws: Tensor, unk: int) -> SmoothedText:
        """The text with whole words dropped, each as probably as its mixture would move its weight to other words."""
        return replaced_text(draws < moved_mass(text, tokens), unk, text.smoothed)

    def _draws(self, sentences: Tensor, places: Tensor) -> Tensor:
        """``(batch, text_len)`` numbers from 0 to 1 that depend on the seed, the update, the sentence and the token's place in
        it (``places``, padding below 0 or any), not on the batch."""
        length = places.size(1)
        streams = (np.random.default_rng([self.seed, self.updates, i, 1]) for i in sentences.tolist())
        draws = torch.from_numpy(np.stack([stream.random(length, np.float32) for stream in streams]))
        return draws.to(places.device).gather(1, places.clamp(min=0))

    def _drawn(self, sentences: Tensor) -> Tensor:
        """``(batch,)`` bool that depend on the seed, the update and the sentence, not on the batch."""
        draws = [np.random.default_rng([self.seed, self.updates, i]).random() for i in sentences.tolist()]
        return torch.tensor(draws) < self.cfg.smoothing_rate


def check_rate(rate: float, schedule: str) -> None:
    """Raise ValueError for an out-of-range ``--smoothing-rate``, or one that the schedule ignores."""
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"--smoothing-rate must be from 0 to 1, got {rate}; {DEFAULT_RATE:g} is the default")
    if rate != DEFAULT_RATE and schedule != MIXED:
        raise ValueError(
            f"--smoothing-rate {rate:g} is for --smoothing-schedule {MIXED}, not {schedule}; leave it out, or choose {MIXED}"
        )


def check_origin(cfg: Any) -> None:
    """Raise ValueError for an option of a store where ``--smoothing-source`` reads none."""
    origin = str(cfg.smoothing_source)
    if origin in STORED:
        return
    for name in sorted(given_options(cfg) & STORE_OPTIONS):
        raise ValueError(
            f"--{name.replace('_', '-')} is for --smoothing-source {' or '.join(STORED)}, which reads a store, not {origin}; "
            "leave it out"
        )


def given_options(cfg: Any) -> set[str]:
    """Options of smoothing, but the weight, that are not at their defaults."""
    return {
        option.name
        for option in dataclasses.fields(SmoothingOptions)
        if option.name.startswith("smoothing_")
        and option.name != "smoothing_weight"
        # choices are strings from the command line and members of an Enum elsewhere
        and str(getattr(cfg, option.name)) != str(getattr(option.default, "value", option.default))
    }


def log_means(logging_outputs: Sequence[Mapping[str, Any]]) -> None:
    """Log the means over all smoothed positions, if there are any."""
    positions = int(sum(log.get(COUNT, 0) for log in logging_outputs))
    for name in SUMS if positions else ():
        if any(name in log for log in logging_outputs):
            mean = sum(log.get(name, 0) for log in logging_outputs) / positions
            metrics.log_scalar(name, mean, positions, round=4)
