"""A live teacher as the student's task runs it: as precise as the student is."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import torch

from fairseq_bert_kd.batch import TeacherNeeds
from fairseq_bert_kd.teachers.live_teacher import load_live_teacher

logger = logging.getLogger(__name__)


class LiveTeaching:
    """The teacher of ``--kd-live-teacher`` and its rows for each mini-batch.

    Args:
        cfg: of the task, with the options ``kd_live_*``.
        source_symbols: the student's source dictionary in id order.
        target_symbols: its target dictionary in id order.
        needs: of the criterion.
        weight: among several teachers.

    Raises:
        ValueError: the checkpoint is no teacher, or not one of these dictionaries and languages.
        FileNotFoundError: no such checkpoint.
    """

    def __init__(
        self,
        cfg: Any,
        source_symbols: Sequence[str],
        target_symbols: Sequence[str],
        needs: TeacherNeeds,
        weight: float,
    ):
        self.weight = weight
        self.teacher = load_live_teacher(
            cfg.kd_live_teacher,
            cfg.data.split(":")[0],
            (cfg.source_lang, cfg.target_lang),
            source_symbols,
            target_symbols,
            passes=cfg.kd_live_passes,
            max_tokens=cfg.kd_live_max_tokens,
            topk=needs.topk,
            temperatures={
                1.0,
                needs.temperature,
                needs.lowest or 1.0,
                *(value for _, value in needs.temperatures),
            },
            samples=cfg.kd_live_samples if needs.samples else 0,
            full=needs.full,
        )
        passes = self.teacher.passes
        logger.info(
            "live teacher %s (%s): %d pass%s over every batch",
            cfg.kd_live_teacher,
            self.teacher.model.attention,
            passes,
            "es" * (passes > 1),
        )

    def rows(self, sample: dict[str, Any], model: Any, optimizer: Any, update: int) -> dict[str, Any]:
        """The teacher's entry of the mini-batch, see `fairseq_bert_kd.batch`."""
        student = next(model.parameters())
        half = student.dtype if student.dtype in (torch.float16, torch.bfloat16) else None
        if self.teacher.precision != half:
            self.teacher.set_precision(half)
        mixed: Any = contextlib.nullcontext()
        if type(optimizer).__name__ == "AMPOptimizer":  # the host turns it on later, for the student alone
            mixed = torch.autocast("cuda", enabled=student.is_cuda)
        with mixed:
            return self.teacher.rows(sample, update) | {"weight": self.weight}
