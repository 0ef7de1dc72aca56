"""Task ``translation_with_teacher``: fairseq's translation with a teacher's rows beside the targets."""

import itertools
import logging
import os
from dataclasses import dataclass

from fairseq import utils
from fairseq.data import indexed_dataset
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_bert_kd.data.complete_batches import CompleteBatchesDataset
from fairseq_bert_kd.data.distilled_pair_dataset import DistilledPairDataset
from fairseq_bert_kd.data.parallel_check import refuse_unequal_sides
from fairseq_bert_kd.storage.topk_store import TopKReader, check_alignment, dictionary_digest, store_path

logger = logging.getLogger(__name__)


@dataclass
class TranslationWithTeacherConfig(TranslationConfig):
    """Options of ``translation``; the teacher's are the criterion's, ``--kd-*``."""


@register_task("translation_with_teacher", dataclass=TranslationWithTeacherConfig)
class TranslationWithTeacherTask(TranslationTask):
    """Everything of ``translation``, and teacher rows on the training data when the criterion needs them.

    Batches cover every sentence, in training and in decoding.
    """

    teacher_topk = 0  # teacher tokens per position, known once the criterion is built

    def build_criterion(self, cfg, *args, **kwargs):
        criterion = super().build_criterion(cfg, *args, **kwargs)
        self.teacher_topk = getattr(criterion, "teacher_topk", 0)
        if self.teacher_topk:
            self._check_options()
        return criterion

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        with refuse_unequal_sides(split):
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        pairs = self.datasets[split]
        if split == self.cfg.train_subset and self.teacher_topk:
            paths = utils.split_paths(self.cfg.data)
            readers = self._open_stores(paths[(epoch - 1) % len(paths)], split, pairs.tgt_sizes, combine)
            self.datasets[split] = DistilledPairDataset(pairs, readers, self.teacher_topk)
        else:
            self.datasets[split] = CompleteBatchesDataset(pairs)

    def _open_stores(self, data_path, split, target_lengths, combine):
        """Open and check the store of every part of the split (``train``, ``train1``, ...)."""
        digest = dictionary_digest(self.tgt_dict.symbols)
        source, target = self.cfg.source_lang, self.cfg.target_lang
        parts = list(self._parts(data_path, split, combine))
        readers, start = [], 0
        for part in parts:
            reader = TopKReader(store_path(data_path, part, source, target))
            stop = len(target_lengths) if part == parts[-1] else start + len(reader)
            check_alignment(
                reader,
                target_lengths[start:stop],
                len(self.tgt_dict),
                digest,
                part,
                source,
                target,
                topk=self.teacher_topk,
            )
            missing = int((reader.lengths == 0).sum())
            logger.info(
                "teacher rows for %s: %s, k=%d of %d, %d of %d sentences covered",
                part,
                reader.path,
                self.teacher_topk,
                reader.info.k,
                len(reader) - missing,
                len(reader),
            )
            readers.append(reader)
            start += len(reader)
        return readers

    def _parts(self, data_path, split, combine):
        """Names of the files that the host concatenates for ``split``."""
        source, target = self.cfg.source_lang, self.cfg.target_lang
        for count in itertools.count():
            part = f"{split}{count or ''}"
            names = [f"{part}.{source}-{target}.{source}", f"{part}.{target}-{source}.{source}"]
            exists = any(
                indexed_dataset.dataset_exists(os.path.join(data_path, name), impl=self.cfg.dataset_impl)
                for name in names
            )
            if not exists:
                return
            yield part
            if not combine:
                return

    def _check_options(self):
        """Refuse what would shift targets against their teacher rows."""
        refused = {
            "--left-pad-target": self.cfg.left_pad_target,
            "--num-batch-buckets": self.cfg.num_batch_buckets > 0,
            "--upsample-primary": self.cfg.upsample_primary not in (-1, 1),
        }
        for option, used in refused.items():
            if used:
                raise ValueError(
                    f"{option} moves target tokens or sentences against their teacher rows and cannot be used "
                    "with --kd-weight above 0; leave it out"
                )
