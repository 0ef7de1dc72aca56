"""Loads the live teacher of a student's training, and checks that it fits the student."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from fairseq_bert_kd.batch import TeacherRequirements
from fairseq_bert_kd.teachers.live import LiveTeacher
from fairseq_bert_kd.teachers.load import load_teacher

logger = logging.getLogger(__name__)


def live_teacher_of_task(
    cfg: Any,
    source_symbols: Sequence[str],
    target_symbols: Sequence[str],
    requirements: TeacherRequirements,
    weight: float,
) -> LiveTeacher:
    """The teacher of ``--kd-live-teacher``.

    Args:
        cfg: options of the task, ``kd_live_*`` among them.
        source_symbols: the student's source dictionary in id order.
        target_symbols: its target dictionary in id order.
        requirements: requirements of the criterion.
        weight: weight among several teachers.

    Raises:
        ValueError, FileNotFoundError: as in `load_live_teacher`.
    """
    teacher = load_live_teacher(
        cfg.kd_live_teacher,
        cfg.data.split(":")[0],
        (cfg.source_lang, cfg.target_lang),
        source_symbols,
        target_symbols,
        passes=cfg.kd_live_passes,
        max_tokens=cfg.kd_live_max_tokens,
        topk=requirements.topk,
        temperatures={1.0, requirements.temperature, *(value for _, value in requirements.temperatures)},
        samples=cfg.kd_live_samples if requirements.samples else 0,
        full=requirements.full,
        weight=weight,
    )
    passes = f"{teacher.passes} pass{'es' * (teacher.passes > 1)}"
    logger.info("live teacher %s (%s): %s over every batch", cfg.kd_live_teacher, teacher.attention, passes)
    return teacher


def load_live_teacher(
    path: str,
    data: str,
    languages: tuple[str, str],
    source_symbols: Sequence[str],
    target_symbols: Sequence[str],
    **settings: Any,
) -> LiveTeacher:
    """Load a teacher for a student's training; torch's random numbers go on as without it.

    Args:
        path: checkpoint of the teacher.
        data: folder of the student's binarised data, whose dictionaries must be the teacher's.
        languages: source and target language of the student.
        source_symbols: the student's source dictionary in id order.
        target_symbols: its target dictionary in id order.
        settings: arguments of `LiveTeacher`.

    Raises:
        ValueError: the checkpoint is not a teacher, is unsafe, or was trained with other dictionaries or for another
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
                "symbols). Binarise with the teacher's (fairseq-preprocess --srcdict/--tgtdict), or train a teacher "
                "on the student's data."
            )
    return LiveTeacher(teacher, **settings)
