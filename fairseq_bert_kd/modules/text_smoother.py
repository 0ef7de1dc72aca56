"""Turns a batch and its stored rows into smoothed texts, by the options of text smoothing."""

import math
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from fairseq_bert_kd.batch import SMOOTHING, TeacherRequirements, each_twice, twice, unpack
from fairseq_bert_kd.functional.text_smoothing import (
    SmoothedText,
    check_settings,
    common_text,
    original_mass,
    sparse_text,
)
from fairseq_bert_kd.modules.smoothing_options import BOTH, MIXED, MLM, UNIFORM


class TextSmoother:
    """Smooths the texts of training batches.

    Args:
        cfg: options, see `SmoothingOptions`.
        seed: seed of the draws of ``--smoothing-schedule mixed``.

    Raises:
        ValueError: options out of range.
    """

    def __init__(self, cfg: Any, seed: int):
        check_settings(cfg.smoothing_weight, cfg.smoothing_temperature, cfg.smoothing_topk)
        if not 0.0 <= cfg.smoothing_rate <= 1.0:
            raise ValueError(f"--smoothing-rate must be from 0 to 1, got {cfg.smoothing_rate}")
        self.cfg, self.seed = cfg, seed
        self.weight: float = cfg.smoothing_weight
        self.temperature: float = cfg.smoothing_temperature
        self.schedule, self.origin = str(cfg.smoothing_schedule), str(cfg.smoothing_source)
        self.common: Optional[Tensor] = None
        self.updates = 0

    @property
    def active(self) -> bool:
        """Whether anything is smoothed at all."""
        return self.weight > 0

    @property
    def needs_store(self) -> bool:
        """Whether rows of a masked language model are needed."""
        return self.active and self.origin == MLM

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
        self, sample: dict[str, Any], tokens: Tensor, special: tuple[int, int]
    ) -> tuple[dict[str, Any], SmoothedText]:
        """The batch to train on, and what stands in the place of its text.

        Args:
            sample: a training batch.
            tokens: ``(batch, text_len)`` its text.
            special: ids of padding and end of sentence.
        """
        pad, eos = special
        chosen = tokens != pad
        if not self.cfg.smoothing_special:
            chosen &= tokens != eos
        if self.schedule == MIXED:
            chosen &= self._drawn(sample["id"]).to(tokens.device)[:, None]
        text = self._text(chosen, sample.get(SMOOTHING))
        if self.schedule != BOTH:
            return sample, text
        return twice(sample), SmoothedText(
            smoothed=torch.stack([torch.zeros_like(text.smoothed), text.smoothed], dim=1).flatten(0, 1),
            ids=each_twice(text.ids),
            weights=each_twice(text.weights),
            common=text.common,
            common_weight=text.common_weight,
        )

    def original(self, text: SmoothedText, tokens: Tensor) -> dict[str, Any]:
        """For the log: smoothed positions, and the probability of the original tokens, summed."""
        mass = original_mass(text, tokens, self.weight)
        return {"smoothed_positions": mass.numel(), "smoothing_original": mass.detach().sum()}

    def _text(self, chosen: Tensor, rows: Optional[Mapping[str, Any]]) -> SmoothedText:
        if self.common is not None:
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

    def _drawn(self, sentences: Tensor) -> Tensor:
        """``(batch,)`` bool that depend on the seed, the update and the sentence, not on the batch."""
        draws = [np.random.default_rng([self.seed, self.updates, int(i)]).random() for i in sentences]
        return torch.tensor(draws) < self.cfg.smoothing_rate
