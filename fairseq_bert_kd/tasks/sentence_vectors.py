"""Task ``sentence_vectors``: learn a teacher's vectors of unlabelled sentences from a store."""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq import utils
from fairseq.tasks import register_task

from fairseq_bert_kd import compat
from fairseq_bert_kd.data.sentence_vector_dataset import SentenceVectorDataset, open_vectors
from fairseq_bert_kd.modules.data_options import StoreOptions
from fairseq_bert_kd.modules.sentence_checkpoints import continued_checkpoint
from fairseq_bert_kd.storage.fairseq_data import open_sides, sentence_files
from fairseq_bert_kd.storage.store_folders import store_folders
from fairseq_bert_kd.storage.vector_store import SIDE, VectorInfo, VectorReader, vector_store_path
from fairseq_bert_kd.tasks.sentence_prediction_with_teacher import (
    SentencePredictionWithTeacherConfig,
    SentencePredictionWithTeacherTask,
)

CRITERION = "sentence_representation"
LEARNED = "learned_vectors"  # in the task's state, and so in checkpoints
SIMILARITY = "vector_similarity"  # as well


@dataclass
class SentenceVectorsConfig(StoreOptions, SentencePredictionWithTeacherConfig):
    """Options of sentences, and of the store of their vectors."""

    vector_store: str = field(
        default="",
        metadata={"help": "name of the store, SPLIT.sentences.NAME.vec (default: SPLIT.sentences.vec)"},
    )


@register_task("sentence_vectors", dataclass=SentenceVectorsConfig)
class SentenceVectorsTask(SentencePredictionWithTeacherTask):
    """Single sentences with the vectors that ``fairseq-bert-kd vectors`` stored beside them; labels are not used.

    The idea is Wu et al.'s (AACL 2020): an encoder learns to represent sentences as BERT does, before it knows any task.
    """

    _learned: dict[str, Any] | None = None
    _similarity: str | None = None
    _stores_checked = False

    @functools.cached_property
    def _store(self) -> VectorReader:
        """The training split's store in the first folder."""
        return VectorReader(self._store_path(utils.split_paths(self.cfg.data)[0], self.cfg.train_subset))

    def _store_path(self, folder: str, split: str) -> Path:
        """Path of the store of a split of a data folder."""
        folders = utils.split_paths(self.cfg.data)
        elsewhere = store_folders(folders, self.cfg.kd_store_dir, "--kd-store-dir")
        return vector_store_path(elsewhere[folders.index(folder)], split, self.cfg.vector_store)

    @property
    def num_classes(self) -> int:
        """0: there is no classification head."""
        return 0

    @property
    def vector_width(self) -> int:
        """Numbers of a stored vector."""
        return self._store.info.width

    @property
    def similarity(self) -> str:
        """What the teacher's vectors are compared by, "cosine" or "" where not known; a checkpoint remembers it."""
        if self._similarity is None:
            self._similarity = self._store.info.similarity
            self.state.merge_state_dict({SIMILARITY: self._similarity})
        return self._similarity

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self._take_learned(state_dict.get(LEARNED))
        self._similarity = state_dict.get(SIMILARITY)

    def _take_learned(self, described: str | None) -> None:
        """Remember whose vectors are learned, as JSON; None if not known."""
        self._learned = json.loads(described) if described else None
        if described:
            self.state.merge_state_dict({LEARNED: described})

    def build_model(self, cfg, from_checkpoint=False):
        """Build the model; a checkpoint will say whose vectors it learned.

        Raises:
            ValueError: the vectors' widths differ, or a run would go on with another teacher's vectors.
        """
        if self._learned is None:
            described = json.dumps(described_vectors(self._store.info), sort_keys=True)
            self._check_continued_teacher(described)
            self._take_learned(described)
        model = super().build_model(cfg, from_checkpoint)
        assert self._learned is not None
        width = self._learned["width"]
        if getattr(model, "vector_dim", width) != width:
            raise ValueError(
                f"the student's vectors have {model.vector_dim} numbers, the teacher's {width}; leave --vector-dim out, or "
                "start from a student of that width"
            )
        return model

    def _check_continued_teacher(self, described: str) -> None:
        path = continued_checkpoint(self.cfg)
        if path is None or path == self.cfg.finetune_from_model:
            return
        stated = (compat.load_checkpoint(path).get("task_state") or {}).get(LEARNED)
        if stated not in (None, described):
            raise ValueError(
                f"checkpoint `{path}` learns other vectors ({stated}) than those of {self._store.path} ({described}); give "
                "another --save-dir, or start from it with --finetune-from-model"
            )

    def build_criterion(self, cfg, from_checkpoint=False):
        name = getattr(cfg, "_name", None)
        if name != CRITERION:
            raise ValueError(f"task sentence_vectors needs --criterion {CRITERION}, not `{name}`")
        return super().build_criterion(cfg, from_checkpoint=from_checkpoint)

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """Load a split and its store.

        Raises:
            FileNotFoundError: no such split or store.
            ValueError: rows of two texts, or a store of other data.
        """
        folder = self.folder_of(split, epoch)
        spec = self._folders[folder]
        if spec.texts != 1:
            raise ValueError(
                f"task sentence_vectors learns vectors of single sentences, rows of `{folder}` have {spec.texts}; prepare "
                "its sentences with --task plain"
            )
        super().load_dataset(split, epoch, combine, **kwargs)
        reader = self._opened(folder, split)
        if split == self.cfg.train_subset and not self._stores_checked:
            for other in self._folders.keys() - {folder}:  # would end the run in a later epoch
                self._opened(other, split)
            self._stores_checked = True
        self.datasets[split] = SentenceVectorDataset(self.datasets[split], reader)

    def _opened(self, folder: str, split: str):
        """The store of a split.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is of other data, or holds other vectors than those that are learned.
        """
        spec = self._folders[folder]
        sides = open_sides(sentence_files(folder, split, [SIDE]), split)
        digests = {"tokenizer": spec.tokenizer, "dictionary": spec.dictionary}
        path = self._store_path(folder, split)
        reader = open_vectors(path, split, digests, sides, str(self.cfg.kd_check) == "all")
        if self._learned is not None and described_vectors(reader.info) != self._learned:
            raise ValueError(
                f"store {path} holds other vectors ({described_vectors(reader.info)}) than those that are learned "
                f"({self._learned}); {reader.info.rebuild_command(reader.path)}"
            )
        return reader


def described_vectors(info: VectorInfo) -> dict[str, Any]:
    """Whose vectors a store holds."""
    return {"teacher": info.teacher_digest, "vector": info.vector, "width": info.width}
