"""Task ``entity_sentence_prediction``: classes or numbers for sentences whose tokens name entities."""

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task

from fairseq_bert_kd import compat
from fairseq_bert_kd.data.entity_dataset import EntitySentenceDataset
from fairseq_bert_kd.data.marked_texts import mark_arguments, rows_without
from fairseq_bert_kd.modules.encoder_start import head_names
from fairseq_bert_kd.modules.sentence_checkpoints import continued_checkpoint
from fairseq_bert_kd.storage.entity_mentions import (
    Mentions,
    check_folders,
    read_mentions,
    read_types,
    span_of,
    type_names,
)
from fairseq_bert_kd.storage.sentence_data import SETS, UNLABELLED
from fairseq_bert_kd.tasks.sentence_prediction_with_teacher import (
    SentencePredictionWithTeacherConfig,
    SentencePredictionWithTeacherTask,
)

logger = logging.getLogger(__name__)

NO_MARKERS = "none"
TYPING = "entity_typing"  # criterion
ARGUMENTS = {NO_MARKERS: 0, "typing": 1, "relation": 2}  # that are marked


@dataclass
class EntitySentencePredictionConfig(SentencePredictionWithTeacherConfig):
    """Options of `sentence_prediction_with_teacher`, and the markers; the mentions stand in the data folder."""

    entity_markers: ChoiceEnum(tuple(ARGUMENTS)) = field(  # type: ignore[valid-type]
        default=NO_MARKERS,
        metadata={
            "help": "put marker tokens on both sides of the arguments that the mentions name: relation, the head and the tail; "
            "typing, one mention; none"
        },
    )
    entity_marker_pieces: str = field(
        default="[unused1],[unused2]",
        metadata={
            "help": "pieces of the markers, that of the head or the mention to type first (default: unused entries of BERT's "
            "vocabularies, ours; released: #,$)"
        },
    )


@register_task("entity_sentence_prediction", dataclass=EntitySentencePredictionConfig)
class EntitySentencePredictionTask(SentencePredictionWithTeacherTask):
    """`sentence_prediction_with_teacher` with the mentions that ``fairseq-bert-kd entities`` wrote, for ``entity_encoder``."""

    reads_mentions = True

    def build_model(self, cfg, from_checkpoint=False):
        model = super().build_model(cfg, from_checkpoint)
        if not hasattr(model, "entities_digest"):
            raise ValueError(
                "--task entity_sentence_prediction is for --arch entity_encoder; without entities give --task "
                "sentence_prediction_with_teacher"
            )
        return model

    @property
    def entity_span(self) -> str:
        """Which pieces the mentions of the first data folder mark, for a new model; empty where it has none."""
        return span_of(next(iter(self._folders)))

    @property
    def marked_arguments(self) -> int:
        """Number of arguments between markers."""
        return ARGUMENTS[str(self.cfg.entity_markers)]

    @functools.cached_property
    def types(self) -> tuple[str, ...]:
        """Names of the types that mentions of unlabelled sentences have, any number each; empty for other data.

        Raises:
            ValueError: folders whose types differ, since each numbers its own.
        """
        if self.spec.kind != UNLABELLED:
            return ()
        (first, names), *others = ((folder, type_names(folder)) for folder in self._folders)
        for folder, found in others:
            if found != names:
                raise ValueError(
                    f"the mentions of data folder `{first}` have the types {', '.join(names) or '(none)'}, those of `{folder}` "
                    f"{', '.join(found) or '(none)'}; put the rows of both into one folder, or train on one of them"
                )
        return names

    @property
    def predicted_kind(self):
        return SETS if self.types else super().predicted_kind

    def predictions(self, logits):
        """Types whose logit is above 0 in tuples, where there are types."""
        if not self.types:
            return super().predictions(logits)
        return [_chosen(self.types, row) for row in (logits > 0).tolist()]

    def references(self, folder, split, rows):
        if not self.types:
            return super().references(folder, split, rows)
        return [_chosen(type_names(folder), row) for row in read_types(folder, split, rows).tolist()]

    @property
    def label_names(self):
        return self.types or super().label_names

    @property
    def num_classes(self):
        return len(self.types) or super().num_classes

    def _targets(self, folder, split, rows):
        return read_types(folder, split, rows) if self.types else super()._targets(folder, split, rows)

    def _check_continued_checkpoint(self):
        """Compare the types too, whose numbers follow from the names of all splits, and the markers of a run that goes on."""
        super()._check_continued_checkpoint()
        path, head = continued_checkpoint(self.cfg), self.cfg.classification_head_name
        if path and path != self.cfg.finetune_from_model:
            self._check_same_markers(path)
        trained = head_names(path, head) if path and self.types else ()
        if trained and trained != self.types:
            raise ValueError(
                f"head `{head}` of checkpoint `{path}` is for the types {', '.join(trained)}, the mentions of `{self.cfg.data}` name "
                f"{', '.join(self.types)}; write the mentions with the former, or give another --classification-head-name"
            )

    def _check_same_markers(self, path: str) -> None:
        """ValueError for a checkpoint that was trained on texts with other markers."""
        theirs, ours = _markers_of(path), _said_markers(self.cfg)
        if theirs not in (None, ours):
            raise ValueError(
                f"checkpoint `{path}`, from which training goes on, was trained on texts with {theirs}, and the options say {ours}; give "
                "the same --entity-markers and --entity-marker-pieces as there, or another --save-dir and --finetune-from-model"
            )

    def _check_criterion(self, cfg):
        super()._check_criterion(cfg)
        if (cfg._name == TYPING) != bool(self.types):
            said = "have" if self.types else "do not have"
            raise ValueError(
                f"the mentions of `{self.cfg.data}` {said} types, or the sentences have labels; choose --criterion "
                f"{TYPING if self.types else 'sentence_prediction'}, or write the mentions again with or without `types`"
            )

    def _load_teacher(self, predicts):
        """Load ``--kd-teacher``; ValueError for one that was trained on texts with other markers than the student's."""
        super()._load_teacher(predicts)
        path = self.cfg.kd_teacher
        theirs, ours = _markers_of(path) if os.path.isfile(path) else None, _said_markers(self.cfg)
        if theirs not in (None, ours):
            raise ValueError(
                f"--kd-teacher `{path}` was trained on texts with {theirs}, and the student reads them with {ours}; give the same "
                "--entity-markers and --entity-marker-pieces as there"
            )

    def make_dataset(self, folder, split, texts, targets=None, shuffle_seed=None):
        """Rows with their entities.

        Raises:
            FileNotFoundError: the split has no mentions.
            ValueError: they name rows of other vectors than the model's or mark other pieces than those of its training, the rows
                are of no data folder, or markers are asked for and there is nothing to mark, or nothing to mark it with.
        """
        if folder is None:
            raise ValueError(
                "a table of texts has no mentions of entities; make a data folder of it (prepare-sentences, entities) and give "
                "its split"
            )
        model, _ = self._built
        if split == self.cfg.train_subset and folder in self._folders:
            check_folders(list(self._folders), split, model.entities_digest())
        mentions = read_mentions(folder, split, texts, model.entities_digest(), model.entity_span())
        texts, mentions = self._marked(texts, mentions, split)
        return EntitySentenceDataset(texts, targets, self.dictionary.pad(), shuffle_seed, mentions)

    def trial_input(self):
        """As of the texts alone, with no entities and no arguments."""
        inputs = super().trial_input()
        nothing = tuple(map(torch.zeros_like, inputs["texts"]))
        return inputs | {"entities": nothing, "arguments": nothing}

    def _marked(self, texts, mentions: Mentions, split: str):
        """Texts with markers, and the mentions in them."""
        kind = str(self.cfg.entity_markers)
        arguments = self.marked_arguments
        if not arguments:
            return texts, mentions
        if rows_without(mentions, arguments, len(texts[0])) == len(texts[0]):
            raise ValueError(
                f"--entity-markers {kind} marks {arguments} arguments, no row of split `{split}` names them; give the mentions "
                "`arguments` (see `fairseq-bert-kd entities --help`), or leave the option out"
            )
        return mark_arguments(texts, mentions, self._markers(arguments))

    def truncate(self, dataset, name):
        """Cut rows, and count those of which no argument is left, or was there, at a place that is to be marked."""
        super().truncate(dataset, name)
        if without := dataset.rows_without(self.marked_arguments):
            logger.warning(
                "%s: %d of %d rows lack an argument to mark (not named, or behind the cut)",
                name,
                without,
                len(dataset),
            )

    def _markers(self, arguments: int) -> list[int]:
        """Ids of the markers of the arguments."""
        pieces = self.cfg.entity_marker_pieces.split(",")
        if len(pieces) < arguments or len(set(pieces)) < len(pieces):
            raise ValueError(
                f"--entity-marker-pieces must name {arguments} different pieces, got `{self.cfg.entity_marker_pieces}`"
            )
        ids = [self.dictionary.index(piece) for piece in pieces[:arguments]]
        for piece, index in zip(pieces, ids, strict=False):
            if index == self.dictionary.unk():
                raise ValueError(
                    f"the marker `{piece}` is not in the dictionary of `{self.cfg.data}`; prepare the data with "
                    "--full-dictionary, or name other pieces with --entity-marker-pieces"
                )
        return ids


def _markers_of(path: str) -> str | None:
    """`_said_markers` of a checkpoint; None for one of a task without markers."""
    trained = compat.load_checkpoint(path)["cfg"]["task"]
    return _said_markers(trained) if "entity_markers" in trained else None


def _said_markers(cfg: Any) -> str:
    """Which arguments the options of a task mark, and with what."""
    kind = str(cfg["entity_markers"])
    pieces = cfg["entity_marker_pieces"].split(",")[: ARGUMENTS[kind]]
    return f"--entity-markers {kind}" + (f" ({','.join(pieces)})" if pieces else "")


def _chosen(names: Sequence[str], marks: Sequence[int]) -> tuple[str, ...]:
    """Names that are marked."""
    return tuple(name for name, mark in zip(names, marks, strict=True) if mark)
