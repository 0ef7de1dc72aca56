"""Loads the live teacher of a student's training."""

import logging
from typing import Any

import torch

from fairseq_bert_kd.batch import TeacherRequirements
from fairseq_bert_kd.teachers.live import LiveTeacher
from fairseq_bert_kd.teachers.load import entities_digest, load_teacher

logger = logging.getLogger(__name__)


def load_live_teacher(cfg: Any, requirements: TeacherRequirements, weight: float = 1.0) -> LiveTeacher:
    """The teacher of ``--kd-live-teacher``; torch's random numbers go on as without it.

    Args:
        cfg: options of the student's task, ``kd_live_*`` among them.
        requirements: requirements of the criterion.
        weight: weight among several teachers.

    Raises:
        ValueError: the checkpoint is not a teacher, is unsafe, or was trained with other dictionaries than those of the
            student's data or for another direction, of all but a fold of them, or reads entities.
        FileNotFoundError: checkpoint or data folder missing.
    """
    with torch.random.fork_rng(devices=[]):  # weights are drawn before those of the checkpoint replace them
        teacher = load_teacher(cfg.kd_live_teacher, cfg.data.split(":")[0])
    if entities_digest(teacher.model):
        raise ValueError(
            f"teacher `{cfg.kd_live_teacher}` reads entities, which a student's batches do not name; store its soft labels with "
            "`fairseq-bert-kd dump` and train the student from them"
        )
    if teacher.fold is not None:
        raise ValueError(
            f"teacher `{cfg.kd_live_teacher}` was trained with --teacher-fold {teacher.fold} and has seen all pairs but those; "
            "store the labels of all folds (`fairseq-bert-kd dump --teacher-fold`, `store merge`) and train the student from "
            "them, or give a teacher of all pairs"
        )
    trained = f"{teacher.task.cfg.source_lang}-{teacher.task.cfg.target_lang}"
    if trained != f"{cfg.source_lang}-{cfg.target_lang}":
        raise ValueError(
            f"teacher `{cfg.kd_live_teacher}` was trained for {trained}, the student learns "
            f"{cfg.source_lang}-{cfg.target_lang}; give a teacher of the same direction"
        )
    live = LiveTeacher(
        teacher,
        passes=cfg.kd_live_passes,
        max_tokens=cfg.kd_live_max_tokens,
        topk=requirements.topk,
        temperatures=[1.0, requirements.temperature, *(value for _, value in requirements.temperatures)],
        samples=cfg.kd_live_samples if requirements.samples else 0,
        full=requirements.full,
        weight=weight,
    )
    logger.info(
        "live teacher %s (%s): passes over every batch: %d", cfg.kd_live_teacher, live.attention, live.passes
    )
    return live
