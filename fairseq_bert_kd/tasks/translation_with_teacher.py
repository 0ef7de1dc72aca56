"""Task ``translation_with_teacher``: fairseq's translation with teachers' rows beside the targets."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np
from fairseq import utils
from fairseq.data import data_utils
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import open_dict

from fairseq_bert_kd.batch import TEACHER, TeacherRequirements
from fairseq_bert_kd.data.absent_rows import AbsentRows
from fairseq_bert_kd.data.complete_batches import CompleteBatchesDataset
from fairseq_bert_kd.data.corpus_parts import corpus_parts, refuse_damaged_parts, refuse_other_dictionaries
from fairseq_bert_kd.data.distilled_pair_dataset import DistilledPairDataset
from fairseq_bert_kd.data.parallel_check import refuse_unequal_sides
from fairseq_bert_kd.data.store_rows import StoreRows
from fairseq_bert_kd.storage.alignment import (
    check_contents,
    check_dictionaries,
    check_sentences,
    check_settings,
    check_tokenizer,
)
from fairseq_bert_kd.storage.topk_store import DEFAULT_NAME, TopKReader, store_path
from fairseq_bert_kd.teachers.load_live import live_teacher_of_task
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)


@dataclass
class TranslationWithTeacherConfig(TranslationConfig):
    """Options of ``translation``, and where the teachers' rows come from; their other options are the criterion's."""

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
    kd_stores: Optional[str] = field(
        default=None,
        metadata={
            "help": "names of the stores to learn from, separated by commas: `default` is SPLIT.SRC-TGT.TGT.topk, NAME is "
            "SPLIT.SRC-TGT.TGT.NAME.topk (dump --name NAME); their losses are mixed (default: `default`, or none with "
            "--kd-live-teacher)"
        },
    )
    kd_store_weights: Optional[str] = field(
        default=None,
        metadata={
            "help": "weights of --kd-stores, separated by commas, and one more at the end for a live teacher; at each position "
            "they are scaled to 1 over the teachers that have a row (default: equal)"
        },
    )
    kd_label_only: Optional[str] = field(
        default=None,
        metadata={
            "help": "parts of the training corpus (train1, ...) that no teacher has scored, separated by commas: they have no "
            "store and are learned from labels alone (default: none, and a part without its store is refused)"
        },
    )
    kd_live_teacher: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of a teacher to run in the training loop, where no store exists or for --kd-objective full; "
            "costs --kd-live-passes forward passes of it for every batch"
        },
    )
    kd_live_passes: Optional[int] = field(
        default=None,
        metadata={
            "help": "passes of the live teacher, as --passes of dump (default: 7, as in the paper; not applicable to a "
            "left-to-right teacher, which needs one)"
        },
    )
    kd_live_samples: int = field(
        default=8, metadata={"help": "tokens a position that a live teacher draws for --kd-objective sampled"}
    )
    kd_live_max_tokens: int = field(
        default=8192, metadata={"help": "source and target tokens of a forward pass of the live teacher"}
    )


@register_task("translation_with_teacher", dataclass=TranslationWithTeacherConfig)
class TranslationWithTeacherTask(TranslationTask):
    """Everything of ``translation``, and teachers' rows on the training data when the criterion needs them.

    Validation data get rows too where their store exists, for the log alone. Batches cover every sentence, in training and
    in decoding.
    """

    teacher_needs: TeacherRequirements | None = None  # known once the criterion is built

    def __init__(self, cfg, src_dict, tgt_dict):
        if cfg.upsample_primary == -1:  # the host's default would make a corpus of several parts negative
            with open_dict(cfg):
                cfg.upsample_primary = 1
        super().__init__(cfg, src_dict, tgt_dict)
        dictionaries = {cfg.source_lang: src_dict, cfg.target_lang: tgt_dict}
        refuse_other_dictionaries(utils.split_paths(cfg.data), dictionaries)
        self._checked = set()  # stores that were compared with their data
        self._all_folders_checked = False
        self.live_teacher = None
        stores = cfg.kd_stores if cfg.kd_stores or cfg.kd_live_teacher else DEFAULT_NAME
        self.store_names = stores.split(",") if stores else []
        self.label_only = set(cfg.kd_label_only.split(",")) if cfg.kd_label_only else set()
        self.teacher_weights = _parse_weights(
            cfg.kd_store_weights, len(self.store_names) + bool(cfg.kd_live_teacher)
        )

    def build_criterion(self, cfg, *args, **kwargs):
        criterion = super().build_criterion(cfg, *args, **kwargs)
        self.teacher_needs = getattr(criterion, "teacher_needs", None)
        if self.teacher_needs:
            self._check_options(self.teacher_needs)
        return criterion

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        paths = utils.split_paths(self.cfg.data)
        training = split == self.cfg.train_subset
        data_path = paths[(epoch - 1) % len(paths)] if training else paths[0]  # as the host chooses
        refuse_damaged_parts(self.cfg, data_path, split, combine)
        with refuse_unequal_sides(split):
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        pairs = self.datasets[split]
        needs = self.teacher_needs
        names = self.store_names if needs else []
        parts = list(corpus_parts(self.cfg, data_path, split, combine)) if names else []
        if training and needs and self.cfg.kd_live_teacher and self.live_teacher is None:
            self._load_live_teacher(needs)
        if training and names and not self._all_folders_checked:
            self._check_label_only({path: corpus_parts(self.cfg, path, split, combine) for path in paths})
            self._check_other_folders(paths, data_path, split, combine)
        if not training and not all(
            self._store_path(data_path, part, name).exists() for part, _ in parts for name in names
        ):
            names = []  # what validation has no store for, it does not compare
        if not names or needs is None:
            self.datasets[split] = CompleteBatchesDataset(pairs)
            return
        repeats = self.cfg.upsample_primary if len(parts) > 1 else 1  # of validation too, as the host does
        teachers = []
        for name, weight in zip(names, self.teacher_weights, strict=False):
            readers = self._open_stores(data_path, parts, name)
            _refuse_changed_targets(pairs, readers, repeats)
            teachers.append(StoreRows(readers, needs, weight, repeats))
        self.datasets[split] = DistilledPairDataset(pairs, teachers)

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(update_num)
        if self.teacher_needs and self.store_names and (ignore_grad or TEACHER not in sample):
            sample = self._stand_in(sample)
        if self.live_teacher is not None:
            rows = self.live_teacher.training_batch(sample, model, optimizer, update_num)
            sample = {**sample, TEACHER: [*sample.get(TEACHER, []), rows]}  # a batch may come again
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def _stand_in(self, sample):
        """A training batch for a worker that has none left while others have.

        The host then takes a batch that it saw before and ignores its gradient; in the first epoch it is one of
        validation, which has no teacher rows, and all workers must log the same sums.
        """
        pairs = self.datasets[self.cfg.train_subset]
        batch = pairs.collater([pairs[0]])
        return utils.move_to_cuda(batch) if sample["target"].is_cuda else batch

    def _store_path(self, data_path, part, name) -> Path:
        return store_path(data_path, part, self.cfg.source_lang, self.cfg.target_lang, name)

    def _check_other_folders(self, paths, data_path, split, combine):
        """Refuse at once what would end the run in a later epoch: a data folder without a store that fits."""
        for path in paths:
            if path != data_path:
                refuse_damaged_parts(self.cfg, path, split, combine)
                for part, prefix in corpus_parts(self.cfg, path, split, combine):
                    for name in self.store_names if part not in self.label_only else []:
                        self._check_store(TopKReader(self._store_path(path, part, name)), part, prefix)
        self._all_folders_checked = True

    def _check_header(self, reader, part):
        """Refuse a store of other data or with too little in it, as far as its header tells."""
        needs = self.teacher_needs
        assert needs is not None
        check_settings(reader, part, self.cfg.source_lang, self.cfg.target_lang, needs.topk)
        check_contents(reader, needs.topk, needs.temperatures, needs.samples)
        check_dictionaries(reader, {"source": self.src_dict.symbols, "target": self.tgt_dict.symbols})
        self._check_tokenizer(f"top-k store {reader.path}", reader.info.tokenizer_digest)

    def _check_tokenizer(self, what, teachers_digest):
        name = self.cfg.kd_tokenizer
        if name:
            check_tokenizer(what, teachers_digest, HfTokenizer(name).digest(), name)

    def _load_live_teacher(self, needs):
        self.live_teacher = live_teacher_of_task(
            self.cfg, self.src_dict.symbols, self.tgt_dict.symbols, needs, self.teacher_weights[-1]
        )
        digest = self.live_teacher.model.tokenizer_digest()
        self._check_tokenizer(f"--kd-live-teacher {self.cfg.kd_live_teacher}", digest)

    def _check_label_only(self, folders):
        """Refuse names of parts that no data folder has, and a folder without any store."""
        parts = {path: [part for part, _ in found] for path, found in folders.items()}
        known = list(dict.fromkeys(part for found in parts.values() for part in found))
        unknown = sorted(self.label_only - set(known))
        if unknown:
            raise ValueError(
                f"--kd-label-only names `{unknown[0]}`, but the training corpus has the parts {', '.join(known)}; "
                "correct the name"
            )
        for path, found in parts.items():
            if found and self.label_only.issuperset(found):
                where = f" in {path}" if len(parts) > 1 else ""
                raise ValueError(
                    f"--kd-label-only names every part of the training corpus{where} ({', '.join(found)}), so no teacher is "
                    "left; use --kd-weight 0 for plain training"
                )

    def _open_stores(self, data_path, parts, name):
        """A store for each part; of --kd-label-only, one without rows."""
        readers = {
            part: self._open_store(data_path, part, prefix, name)
            for part, prefix in parts
            if part not in self.label_only
        }
        info = next(iter(readers.values())).info
        if self.teacher_needs and self.teacher_needs.samples:
            _refuse_unlike_draws(readers)
        for part, prefix in parts:
            if part in self.label_only:
                side = prefix + self.cfg.target_lang
                targets = data_utils.load_indexed_dataset(side, self.tgt_dict, self.cfg.dataset_impl)
                readers[part] = AbsentRows(
                    self._store_path(data_path, part, name), info, np.asarray(targets.sizes)
                )
                logger.info("no teacher rows for %s: %d sentences of --kd-label-only", part, len(targets))
        return [readers[part] for part, _ in parts]

    def _open_store(self, data_path, part, prefix, name):
        """Open the store of one part of the split (``train``, ``train1``, ...) and prove that it fits."""
        reader = TopKReader(self._store_path(data_path, part, name))
        self._check_store(reader, part, prefix)
        missing = reader.missing_sentences
        logger.info(
            "teacher rows for %s: %s, k=%d of %d, %d of %d sentences covered",
            part,
            reader.path,
            self.teacher_needs.topk if self.teacher_needs else 0,
            reader.info.k,
            len(reader) - missing,
            len(reader),
        )
        return reader

    def _check_store(self, reader, part, prefix):
        """Refuse a store that does not belong to these files; once, though an epoch opens it again."""
        source, target = self.cfg.source_lang, self.cfg.target_lang
        if (reader.path, reader.header.digest) not in self._checked:
            self._check_header(reader, part)
            # the files themselves: what the task does to a source (--truncate-source) is not the teacher's
            sources, targets = (
                data_utils.load_indexed_dataset(prefix + lang, dictionary, self.cfg.dataset_impl)
                for lang, dictionary in ((source, self.src_dict), (target, self.tgt_dict))
            )
            compared = check_sentences(
                reader,
                {"source": sources, "target": targets},
                everything=str(self.cfg.kd_check) == "all",
            )
            logger.info("%s belongs to these data: %d sentences compared by hash", reader.path, compared)
            self._checked.add((reader.path, reader.header.digest))

    def _check_options(self, needs):
        """Refuse what would shift targets against their teacher rows, and options that contradict each other."""
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
        self._check_live_options(needs)
        if needs.full and (self.store_names or not self.cfg.kd_live_teacher):
            raise ValueError(
                "--kd-objective full needs the teacher's whole distribution, which no store holds: give --kd-live-teacher "
                "CHECKPOINT and no --kd-stores"
            )

    def _check_live_options(self, needs):
        """Refuse options of a live teacher without one, and those of stores without a store."""
        cfg = self.cfg
        if not cfg.kd_live_teacher and cfg.kd_live_passes is not None:
            raise ValueError("--kd-live-passes is for --kd-live-teacher, which is not given; leave it out")
        if cfg.kd_live_teacher and needs.samples and cfg.kd_live_samples < 1:
            raise ValueError(
                f"--kd-objective sampled with a live teacher needs --kd-live-samples of at least 1, got {cfg.kd_live_samples}"
            )
        if not self.store_names and self.label_only:
            raise ValueError(
                "--kd-label-only is for stores, and a live teacher scores every sentence; leave it out, or give --kd-stores"
            )


def _parse_weights(text, count):
    """Positive numbers, one for each teacher."""
    if text is None:
        return [1.0] * count
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) != count or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(
            f"--kd-store-weights needs {count} positive numbers separated by commas, one for each of --kd-stores and one for "
            f"a live teacher, got `{text}`"
        )
    return weights


def _refuse_unlike_draws(readers):
    """Refuse parts of a corpus of which some drew their tokens outside the gold token and some did not."""
    gold = {part: reader.info.gold for part, reader in readers.items()}
    if len(set(gold.values())) > 1:
        with_gold = ", ".join(part for part, stored in gold.items() if stored)
        without = ", ".join(part for part, stored in gold.items() if not stored)
        raise ValueError(
            f"--kd-objective sampled needs stores that drew alike: {with_gold} was dumped with --gold, {without} without; dump "
            "one of them again"
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
