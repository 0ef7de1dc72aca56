"""What our tasks add to fairseq's loading of data: checks beforehand, and batches that cover every sentence."""

from typing import Any

from fairseq import utils

from fairseq_bert_kd.data.corpus_parts import (
    CorpusPart,
    check_parts,
    check_same_dictionaries,
    translation_parts,
)


class GuardedLoading:
    """Mixin for tasks over binarised data; name it before fairseq's own class."""

    cfg: Any

    def folder_of(self, split: str, epoch: int) -> str:
        """The data folder (of ``a:b``) of a split in an epoch; training takes them in turn, as in fairseq's tasks."""
        folders = utils.split_paths(self.cfg.data)
        return folders[(epoch - 1) % len(folders)] if split == self.cfg.train_subset else folders[0]

    def get_batch_iterator(self, dataset, *args, **kwargs):
        """fairseq's iterator over batches of any number of sentences.

        fairseq drops the last batch, without a message, if its size is not a multiple of
        ``--required-batch-size-multiple`` (8 by default): in training the longest sentences, in decoding up to seven
        sentences. The option has therefore no effect on our tasks.
        """
        kwargs["required_batch_size_multiple"] = 1
        return super().get_batch_iterator(dataset, *args, **kwargs)  # type: ignore[misc]


class GuardedTranslation(GuardedLoading):
    """`GuardedLoading` for tasks that extend fairseq's ``translation``."""

    def __init__(self, cfg, src_dict, tgt_dict):
        if cfg.upsample_primary == -1:  # fairseq's default would make a corpus of several parts negative
            cfg.upsample_primary = 1
        super().__init__(cfg, src_dict, tgt_dict)  # type: ignore[call-arg]
        dictionaries = {f"dict.{cfg.source_lang}.txt": src_dict, f"dict.{cfg.target_lang}.txt": tgt_dict}
        check_same_dictionaries(utils.split_paths(cfg.data), dictionaries)

    def parts_of(self, folder: str, split: str, combine: bool) -> list[CorpusPart]:
        """The parts of a split in a data folder, checked.

        Raises:
            ValueError: an index that fairseq damaged, or sides of unequal length.
        """
        parts = translation_parts(self.cfg, folder, split, combine)
        check_parts(parts)
        return parts
