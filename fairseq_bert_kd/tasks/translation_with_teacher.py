"""Task ``translation_with_teacher``: fairseq's translation with a teacher's rows beside the targets."""

import logging
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
from fairseq import utils
from fairseq.data import data_utils
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import open_dict

from fairseq_bert_kd.data.complete_batches import CompleteBatchesDataset
from fairseq_bert_kd.data.corpus_parts import corpus_parts, refuse_damaged_parts
from fairseq_bert_kd.data.distilled_pair_dataset import DistilledPairDataset
from fairseq_bert_kd.data.parallel_check import refuse_unequal_sides
from fairseq_bert_kd.storage.alignment import (
    check_dictionaries,
    check_sentences,
    check_settings,
    check_tokenizer,
)
from fairseq_bert_kd.storage.store_info import store_path
from fairseq_bert_kd.storage.topk_store import TopKReader
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)


@dataclass
class TranslationWithTeacherConfig(TranslationConfig):
    """Options of ``translation``, and how the store is checked; the teacher's others are the criterion's."""

    kd_check: ChoiceEnum(["sampled", "all"]) = field(  # type: ignore[valid-type]
        default="sampled",
        metadata={
            "help": "sentences whose token ids are compared with the store's hashes before the first step: 1,000 spread "
            "over the corpus, or all (lengths and dictionaries are always compared)"
        },
    )
    kd_tokenizer: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder or hub name of the tokenizer that made the pieces: refuse a store whose teacher had another"
        },
    )


@register_task("translation_with_teacher", dataclass=TranslationWithTeacherConfig)
class TranslationWithTeacherTask(TranslationTask):
    """Everything of ``translation``, and teacher rows on the training data when the criterion needs them.

    Batches cover every sentence, in training and in decoding.
    """

    teacher_topk = 0  # teacher tokens per position, known once the criterion is built

    def __init__(self, cfg, src_dict, tgt_dict):
        if cfg.upsample_primary == -1:  # the host's default would make a corpus of several parts negative
            with open_dict(cfg):
                cfg.upsample_primary = 1
        super().__init__(cfg, src_dict, tgt_dict)
        self._checked = set()  # stores that were compared with their data

    def build_criterion(self, cfg, *args, **kwargs):
        criterion = super().build_criterion(cfg, *args, **kwargs)
        self.teacher_topk = getattr(criterion, "teacher_topk", 0)
        if self.teacher_topk:
            self._check_options()
        return criterion

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        paths = utils.split_paths(self.cfg.data)
        training = split == self.cfg.train_subset
        data_path = paths[(epoch - 1) % len(paths)] if training else paths[0]  # as the host chooses
        refuse_damaged_parts(self.cfg, data_path, split, combine)
        with refuse_unequal_sides(split):
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        pairs = self.datasets[split]
        if training and self.teacher_topk:
            parts = corpus_parts(self.cfg, data_path, split, combine)
            readers = [self._open_store(data_path, part, prefix) for part, prefix in parts]
            repeats = self.cfg.upsample_primary if len(readers) > 1 else 1
            _refuse_changed_targets(pairs, readers, repeats)
            self.datasets[split] = DistilledPairDataset(pairs, readers, self.teacher_topk, repeats)
        else:
            self.datasets[split] = CompleteBatchesDataset(pairs)

    def _open_store(self, data_path, part, prefix):
        """Open the store of one part of the split (``train``, ``train1``, ...) and prove that it fits."""
        source, target = self.cfg.source_lang, self.cfg.target_lang
        reader = TopKReader(store_path(data_path, part, source, target))
        if reader.header.digest not in self._checked:  # once, though an epoch loads it again
            check_settings(reader, part, source, target, self.teacher_topk)
            check_dictionaries(reader, self.src_dict.symbols, self.tgt_dict.symbols)
            if self.cfg.kd_tokenizer:
                digest = HfTokenizer(self.cfg.kd_tokenizer).digest()
                check_tokenizer(reader, digest, self.cfg.kd_tokenizer)
            # the files themselves: what the task does to a source (--truncate-source) is not the teacher's
            sources, targets = (
                data_utils.load_indexed_dataset(prefix + lang, dictionary, self.cfg.dataset_impl)
                for lang, dictionary in ((source, self.src_dict), (target, self.tgt_dict))
            )
            compared = check_sentences(
                reader,
                np.asarray(targets.sizes),
                lambda i: (sources[i].numpy(), targets[i].numpy()),
                everything=str(self.cfg.kd_check) == "all",
            )
            logger.info("%s belongs to these data: %d sentences compared by hash", reader.path, compared)
            self._checked.add(reader.header.digest)
        missing = reader.missing_sentences
        logger.info(
            "teacher rows for %s: %s, k=%d of %d, %d of %d sentences covered",
            part,
            reader.path,
            self.teacher_topk,
            reader.info.k,
            len(reader) - missing,
            len(reader),
        )
        return reader

    def _check_options(self):
        """Refuse what would shift targets against their teacher rows."""
        refused = {
            "--left-pad-target": self.cfg.left_pad_target,
            "--num-batch-buckets": self.cfg.num_batch_buckets > 0,
        }
        for option, used in refused.items():
            if used:
                raise ValueError(
                    f"{option} moves target tokens against their teacher rows and cannot be used with --kd-weight above "
                    "0; leave it out"
                )
        if self.cfg.upsample_primary < 1:
            raise ValueError(
                f"--upsample-primary must be at least 1, got {self.cfg.upsample_primary}: it repeats the first part of "
                "the corpus"
            )


def _refuse_changed_targets(pairs, readers, repeats):
    """Refuse targets that the task made longer or shorter than in their files, as prepended symbols would."""
    start = 0
    for reader, times in zip(readers, [repeats, *[1] * len(readers)], strict=False):
        for _ in range(times):
            differs = np.asarray(pairs.tgt_sizes[start : start + len(reader)]) != reader.lengths
            if differs.any():
                sentence = int(differs.argmax())
                raise ValueError(
                    f"target {sentence} of {reader.path.name} has {pairs.tgt_sizes[start + sentence]} tokens in training and "
                    f"{reader.lengths[sentence]} in its file: an option prepends or appends symbols (a language id, for "
                    "example), and teacher rows would stand beside the wrong tokens; leave it out"
                )
            start += len(reader)
