"""What our tasks add to fairseq's loading of data: checks beforehand, and batches that cover every sentence."""

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from fairseq import utils

from fairseq_bert_kd.data.corpus_parts import (
    CorpusPart,
    check_parts,
    check_same_dictionaries,
    language_pair,
    translation_parts,
)
from fairseq_bert_kd.data.run_hints import log_unknown, say_autocast, say_first_line, say_threads
from fairseq_bert_kd.storage.fairseq_data import read_dictionary


class GuardedLoading:
    """Mixin for tasks over binarised data; name it before fairseq's own class."""

    cfg: Any
    _started = False

    def begin_epoch(self, epoch, model):
        """Before the first epoch, say when the first line comes, and what could be faster."""
        if not self._started:
            self._started = True
            say_first_line(getattr(self.cfg, "log_interval", None))
            device = next(model.parameters()).device.type
            say_threads(device)
            say_autocast(device, str(self.cfg.autocast))
        super().begin_epoch(epoch, model)  # type: ignore[misc]

    def say_unknown(
        self, folder: str, name: str, sides: Mapping[str, Any], unknown: Mapping[str, int]
    ) -> None:
        """Log how much of a part is unknown, see `log_unknown`; once, though every epoch may load it again."""
        if (folder, name) not in self._reported:
            self._reported.add((folder, name))
            log_unknown(name, sides, unknown)

    @cached_property
    def _reported(self) -> set[tuple[str, str]]:
        return set()

    def folder_of(self, split: str, epoch: int) -> str:
        """The data folder (of ``a:b``) of a split in an epoch; training takes them in turn, as in fairseq's tasks."""
        folders = utils.split_paths(self.cfg.data)
        return folders[(epoch - 1) % len(folders)] if split == self.cfg.train_subset else folders[0]

    def get_batch_iterator(self, dataset, *args, epoch=1, **kwargs):
        """fairseq's iterator over batches of any number of sentences, the same in a run that goes on from a checkpoint.

        fairseq drops the last batch, without a message, if its size is not a multiple of
        ``--required-batch-size-multiple`` (8 by default): in training the longest sentences, in decoding up to seven
        sentences. The option has therefore no effect on our tasks.

        Batches that are kept for all epochs are formed with the seed of the first one. fairseq takes that of the epoch in
        which a run starts: one that goes on within a later epoch would see some of its sentences twice, and others not.
        """
        kwargs["required_batch_size_multiple"] = 1
        for_all_epochs = self.can_reuse_epoch_itr(dataset) and not (  # type: ignore[attr-defined]
            kwargs.get("disable_iterator_cache") or kwargs.get("update_epoch_batch_itr")
        )
        make = super().get_batch_iterator  # type: ignore[misc]
        if not for_all_epochs or dataset in self.dataset_to_epoch_iter:  # type: ignore[attr-defined]
            return make(dataset, *args, epoch=epoch, **kwargs)
        iterator = make(dataset, *args, epoch=1, **kwargs)
        iterator.epoch = max(epoch, 1)
        dataset.set_epoch(epoch)
        return iterator


class GuardedTranslation(GuardedLoading):
    """`GuardedLoading` for tasks that extend fairseq's ``translation``."""

    def __init__(self, cfg, src_dict, tgt_dict):
        if cfg.upsample_primary == -1:  # fairseq's default would make a corpus of several parts negative
            cfg.upsample_primary = 1
        super().__init__(cfg, src_dict, tgt_dict)  # type: ignore[call-arg]
        dictionaries = {f"dict.{cfg.source_lang}.txt": src_dict, f"dict.{cfg.target_lang}.txt": tgt_dict}
        check_same_dictionaries(utils.split_paths(cfg.data), dictionaries)
        self._unknown = {"source": src_dict.unk(), "target": tgt_dict.unk()}

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """fairseq's, after the languages and the dictionaries were looked at.

        Raises:
            ValueError: the file names tell no pair of languages, or several, or a dictionary has a wrong line.
            FileNotFoundError: the folder or a dictionary is not there.
        """
        folder = utils.split_paths(cfg.data)[0]
        if cfg.source_lang is None or cfg.target_lang is None:
            cfg.source_lang, cfg.target_lang = language_pair(folder, cfg.source_lang, cfg.target_lang)
        for language in (cfg.source_lang, cfg.target_lang):
            read_dictionary(os.path.join(folder, f"dict.{language}.txt"))
        return super().setup_task(cfg, **kwargs)  # type: ignore[misc]

    def parts_of(self, folder: str, split: str, combine: bool) -> list[CorpusPart]:
        """The parts of a split in a data folder, checked; how much of each is unknown stands in the log once.

        Raises:
            FileNotFoundError: the folder has no such split.
            ValueError: see `check_parts`.
        """
        parts = translation_parts(self.cfg, folder, split, combine)
        if not parts:
            pair = f"{self.cfg.source_lang}-{self.cfg.target_lang}"
            raise FileNotFoundError(
                f"Dataset not found: {split} of {pair} in {folder}; run fairseq-preprocess with this split, or name one that is "
                "there (of raw text with --dataset-impl raw)"
            )
        for part, sides in zip(parts, check_parts(parts, self.cfg.dataset_impl), strict=True):
            self.say_unknown(folder, part.name, sides, self._unknown)
        return parts
