"""Loads the live teacher of a student that learns from layers and predictions."""

import logging
import os
from types import SimpleNamespace
from typing import Any

import torch

from fairseq_bert_kd import compat
from fairseq_bert_kd.modules.pretrained_encoder import encoder_from_pretrained
from fairseq_bert_kd.modules.sentence_classifier import take_apart
from fairseq_bert_kd.teachers.interface import LayerTeacher
from fairseq_bert_kd.teachers.layer_teacher import LiveLayerTeacher
from fairseq_bert_kd.teachers.load import entities_digest, entity_span
from fairseq_bert_kd.teachers.load_masked_lm import names_transformers
from fairseq_bert_kd.teachers.probe import check_layer_teacher
from fairseq_bert_kd.tokenization.dictionary import SentenceVocabulary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)

ARCHITECTURE = "hf_encoder"  # of teachers that are folders
HEAD = "sentence_classification_head"  # fairseq's name for the head of a sentence task


def load_layer_teacher(
    path: str,
    vocabulary: SentenceVocabulary,
    label_names: tuple[str, ...],
    num_classes: int,
    predicts: bool,
    entities: str = "",
    span: str = "",
) -> LiveLayerTeacher:
    """The teacher of ``--kd-teacher``; torch's random numbers go on as without it.

    Args:
        path: checkpoint of a `LayerTeacher`, or folder or hub name of a transformers encoder.
        vocabulary: the student's dictionary in the ids of its tokenizer.
        label_names: names of the student's classes, in their order; empty for numbers and unlabelled text.
        num_classes: number of the student's classes, 1 for numbers.
        predicts: whether the teacher's predictions are learned too.
        entities: digest of the vectors whose rows the student's batches name; empty for batches without entities.
        span: which pieces their mentions mark.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: the checkpoint is not such a teacher, or is unsafe; another tokenizer; its states depend on the batch
            (`probe`); it reads entities that the batches do not name, or at other pieces; predictions are wanted and it has no head, or other
            classes.
    """
    with torch.random.fork_rng(devices=[]):  # weights are drawn before those of the checkpoint replace them
        load = _from_folder if names_transformers(path) else _from_checkpoint
        model = load(path, vocabulary)
        _check_entities(path, entities_digest(model), entities)
        _check_span(path, entity_span(model), span)
        check_layer_teacher(model, vocabulary, f"--kd-teacher `{path}`")
    head, columns = None, None
    if predicts:
        head = _only_head(path, model)
        described = model.classification_heads[head].description()
        columns = class_columns(path, described.names, described.classes, label_names, num_classes)
    teacher = LiveLayerTeacher(model, head, columns)
    logger.info("teacher %s: %d layers, width %d", path, teacher.layers, teacher.width)
    return teacher


def _from_checkpoint(path: str, vocabulary: SentenceVocabulary) -> Any:
    """The model of a checkpoint of ours."""
    from fairseq import checkpoint_utils
    from fairseq.models import ARCH_MODEL_REGISTRY

    compat.load_checkpoint(path)  # refuses what is no checkpoint, or unsafe
    state = checkpoint_utils.load_checkpoint_to_cpu(path)
    settings = state["cfg"]["model"]
    model_class = ARCH_MODEL_REGISTRY.get(settings._name)
    if model_class is None or not issubclass(model_class, LayerTeacher):
        raise ValueError(
            f"--kd-teacher `{path}` is not a teacher of layers: it holds a `{settings._name}` model. Give a checkpoint of --arch "
            f"{ARCHITECTURE}, or the folder or hub name of a transformers encoder"
        )
    tokens = torch.from_numpy(vocabulary.token_to_encoder)
    dictionary = range(len(tokens))  # of which only the length is asked
    model = model_class.build_model(settings, SimpleNamespace(source_dictionary=dictionary, label_names=()))
    _check_tokenizer(path, model.tokenizer_digest(), vocabulary)
    # with one tokenizer this is right even where the dictionaries of the two data folders differ
    model.load_state_dict({**state["model"], "token_to_encoder": tokens}, strict=True, model_cfg=settings)
    return model


def _from_folder(path: str, vocabulary: SentenceVocabulary) -> Any:
    """The model of a transformers folder or hub name, with the head that it brings."""
    from fairseq.models import ARCH_MODEL_REGISTRY

    _check_tokenizer(path, HfTokenizer(path).digest(), vocabulary)
    parts = take_apart(*encoder_from_pretrained(path))
    tokens = torch.from_numpy(vocabulary.token_to_encoder)
    model = ARCH_MODEL_REGISTRY[ARCHITECTURE](
        parts, tokens, vocabulary.text_format, vocabulary.digests, label_names=parts.names
    )
    if parts.output is not None:
        model.register_classification_head(HEAD, parts.output.out_features)
    return model


def _check_tokenizer(path: str, digest: str, vocabulary: SentenceVocabulary) -> None:
    """ValueError unless teacher and student have the same tokenizer."""
    own = vocabulary.digests["tokenizer"]
    if digest != own:
        raise ValueError(
            f"--kd-teacher `{path}` has another tokenizer than the student's data (sha256 {digest[:12]} against {own[:12]}): "
            "layers are compared token by token, and the tokens would differ. Prepare the data with the teacher's tokenizer, "
            "or give another teacher"
        )


def _check_entities(path: str, digest: str, given: str) -> None:
    """ValueError for a teacher that reads entities, unless the student's batches name those of the same vectors."""
    if digest and digest != given:
        said = f"those of others (sha256 {given[:12]})" if given else "none"
        raise ValueError(
            f"--kd-teacher `{path}` reads entities of the vectors with sha256 {digest[:12]}, and the student's batches name {said}; "
            "train the student with --task entity_sentence_prediction and the same --entity-vectors, or give a teacher without "
            "entities"
        )


def _check_span(path: str, trained: str, given: str) -> None:
    """ValueError for a teacher whose mentions marked other pieces than those of the student's batches."""
    if trained and given and trained != given:
        raise ValueError(
            f"--kd-teacher `{path}` was trained on mentions of --entity-span {trained}, those of the student's data are of {given}; write "
            f"them with `fairseq-bert-kd entities --entity-span {trained} --overwrite`, or give another teacher"
        )


def _only_head(path: str, model: Any) -> str:
    """Name of the teacher's head."""
    heads = list(model.classification_heads)
    if len(heads) != 1:
        known = f"{len(heads)} heads ({', '.join(heads)})" if heads else "no classification head"
        raise ValueError(
            f"the prediction loss needs a teacher that was fine-tuned on the task, and --kd-teacher `{path}` has {known}. "
            "Fine-tune it with --criterion sentence_prediction, and give its checkpoint"
        )
    return heads[0]


def class_columns(
    path: str, names: tuple[str, ...], classes: int, label_names: tuple[str, ...], num_classes: int
) -> list[int] | None:
    """The teacher's class of each of the student's classes, found by name; None if their order is the same.

    Args:
        path: path of the teacher, for messages.
        names: names of the teacher's classes in its order; empty if it predicts a number.
        classes: number of them.
        label_names: names of the student's classes in its order; empty for numbers.
        num_classes: number of them; 0 for unlabelled text.

    Raises:
        ValueError: the names are not the same, one side predicts classes and the other a number, or the data have no labels.
    """
    if num_classes == 0:
        raise ValueError(
            f"the predictions of --kd-teacher `{path}` are learned by a head, and the data have no labels, so the student has "
            "none; give data with labels, or learn layers alone: --layer-stage general, without --layer-prediction-weight"
        )
    if set(names) != set(label_names) or classes != num_classes:
        theirs, ours = (", ".join(listed) or "a number" for listed in (names, label_names))
        only_names = len(names) == len(label_names) > 0
        renamed = "; where only the names differ, correct id2label and label2id in the teacher's config.json"
        raise ValueError(
            f"--kd-teacher `{path}` predicts {theirs}, and the data's labels are {ours}. Classes are compared by name: "
            "prepare the data with the teacher's label names, or give a teacher that was fine-tuned on these"
            f"{renamed if only_names and os.path.isdir(path) else ''}"
        )
    if names == label_names:
        return None
    logger.info(
        "teacher %s numbers its classes in another order: %s; ordered by name", path, ", ".join(names)
    )
    return [names.index(name) for name in label_names]
