"""Task ``translation_with_teacher``: fairseq's translation with teachers' rows beside the targets."""

import functools
import inspect
from dataclasses import dataclass, field
from functools import cached_property
from typing import Optional

import numpy as np
from fairseq import utils
from fairseq.logging import metrics
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II, open_dict

from fairseq_bert_kd.batch import SMOOTHING, TEACHER
from fairseq_bert_kd.data.corpus_parts import open_side
from fairseq_bert_kd.data.distilled_pair_dataset import DistilledPairDataset
from fairseq_bert_kd.data.guarded_loading import GuardedTranslation
from fairseq_bert_kd.data.store_rows import StoreRows
from fairseq_bert_kd.data.teacher_stores import (
    TeacherStores,
    check_names,
    check_unchanged_lengths,
    parse_weights,
)
from fairseq_bert_kd.modules.autocast import AutocastOptions, AutocastTraining
from fairseq_bert_kd.modules.data_options import StoreOptions, TokenizerOptions
from fairseq_bert_kd.modules.smoothing_options import SmoothingOptions
from fairseq_bert_kd.modules.source_smoothing import SourceSmoothing
from fairseq_bert_kd.modules.text_smoother import (
    SpecialIds,
    TextSmoother,
    given_options,
    log_means,
)
from fairseq_bert_kd.storage.alignment import check_tokenizer
from fairseq_bert_kd.storage.topk_store import DEFAULT_NAME
from fairseq_bert_kd.teachers.gold_comparison import GoldComparison
from fairseq_bert_kd.teachers.load import is_token_teacher
from fairseq_bert_kd.teachers.load_live import load_live_teacher
from fairseq_bert_kd.teachers.smoothed_inputs import smoothed_sources, source_readers
from fairseq_bert_kd.tokenization.bpe import HfTokenizerBPE
from fairseq_bert_kd.tokenization.guarded_text import GuardedText
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

STUDENT_INPUTS = {"src_tokens", "src_lengths", "prev_output_tokens"}  # what a batch brings
REMOVED_OPTION = "kd_approximate_tail"
DISTILLATION = "label_smoothed_cross_entropy_with_distillation"  # the criterion that learns from teachers
# which teachers there are; without effect where a criterion learns from none
TEACHER_OPTIONS = ("kd_live_teacher", "kd_stores", "kd_store_weights", "kd_store_dir", "kd_label_only")


@dataclass
class TranslationWithTeacherConfig(
    TokenizerOptions, StoreOptions, SmoothingOptions, AutocastOptions, TranslationConfig
):
    """Options of ``translation``, of where the teachers' rows come from, and of smoothed sources; the loss is the criterion's."""

    smoothing_weight: float = field(
        default=0.0,
        metadata={
            "help": "lambda, weight of the words that a masked language model expects in the place of source words, in training; "
            "above 0 needs a student with a Transformer encoder (default 0: no smoothing; 0.5 in the authors' later code)"
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
            "store and are learned from labels alone (default: none; a part without its store is then an error)"
        },
    )
    kd_live_teacher: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of a teacher to run in the training loop, where no store exists or for --kd-objective full; "
            "costs --kd-live-passes forward passes of it per batch"
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
        default=8,
        metadata={"help": "tokens per position that a live teacher draws for --kd-objective sampled"},
    )
    kd_live_max_tokens: int = field(
        default=8192, metadata={"help": "source and target tokens per forward pass of the live teacher"}
    )
    seed: int = II("common.seed")
    log_interval: int = II("common.log_interval")


@register_task("translation_with_teacher", dataclass=TranslationWithTeacherConfig)
class TranslationWithTeacherTask(AutocastTraining, GuardedTranslation, GuardedText, TranslationTask):
    """fairseq's ``translation``, with teachers' rows beside the training targets if the criterion requires them.

    Validation data get rows too where their store exists, for the log alone. Batches cover every sentence, in training and
    in decoding.
    """

    stores: TeacherStores | None = None  # set when a criterion is built that requires teachers

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        names = cfg.kd_stores if cfg.kd_stores or cfg.kd_live_teacher else DEFAULT_NAME
        self.store_names = listed(names)
        check_names(self.store_names)
        self.label_only = set(listed(cfg.kd_label_only))
        self.teacher_weights = parse_weights(
            cfg.kd_store_weights, len(self.store_names) + bool(cfg.kd_live_teacher)
        )
        self.live_teacher = None
        self.smoother = TextSmoother(cfg, cfg.seed)
        if not cfg.smoothing_weight and (given := given_options(cfg)):
            option = min(given).replace("_", "-")
            raise ValueError(
                f"--{option} is given, and --smoothing-weight is 0: nothing would be smoothed; add --smoothing-weight 0.5, or "
                "leave it out"
            )
        self._source_smoothing: SourceSmoothing | None = None
        self._gold_comparison = GoldComparison()
        self._iterated: str | None = None  # split of the latest batches
        self._all_folders_checked = self._smoothing_checked = False
        self._teachers_tokenizers: set[str] = set()  # digests

    def build_model(self, cfg, from_checkpoint=False):
        arch = getattr(cfg, "_name", None) or getattr(cfg, "arch", None)
        if is_token_teacher(arch):
            raise ValueError(
                f"`{arch}` is a teacher: it fills in hidden tokens and does not translate. Give --path (or --arch) of a student; "
                "--task conditional_masked_lm trains and validates teachers"
            )
        model = super().build_model(cfg, from_checkpoint)
        check_autoregressive(model, arch)
        if self.cfg.smoothing_weight and not from_checkpoint:
            self._source_smoothing = SourceSmoothing(model)
        return model

    def build_criterion(self, cfg, *args, **kwargs):
        if REMOVED_OPTION in cfg:  # in the checkpoints of students that were trained when it existed
            with open_dict(cfg):
                del cfg[REMOVED_OPTION]
        criterion = super().build_criterion(cfg, *args, **kwargs)
        if not hasattr(criterion, "teacher_requirements"):
            self._check_no_teacher_is_named(getattr(cfg, "_name", None))
        requirements = getattr(criterion, "teacher_requirements", None)
        if requirements:
            self._check_options(requirements)
            dictionaries = {"source": self.src_dict, "target": self.tgt_dict}
            self.stores = TeacherStores(
                self.cfg, dictionaries, requirements, self.label_only, self._check_tokenizer
            )
        return criterion

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        parts = self.parts_of(self.folder_of(split, epoch), split, combine)
        if split == self.cfg.train_subset and self.cfg.kd_tokenizer:
            assert self._own_tokenizer  # checked here, even where no teacher is compared with it
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        src_sizes = self.datasets[split].src_sizes
        self._attach_teachers(split, parts, combine)
        if split == self.cfg.train_subset and self._source_smoothing is not None:
            self._check_smoothing(parts, split, combine)
            sources = self._sources(parts)
            pairs = self.datasets[split]
            self.datasets[split] = smoothed_sources(self.smoother, pairs, src_sizes, self, parts, sources)

    def _sources(self, parts):
        """Indexed sources of parts of the corpus."""
        return [open_side(part.prefixes["source"], self.src_dict, self.cfg.dataset_impl) for part in parts]

    def _check_smoothing(self, parts, split, combine):
        """Before the first epoch, check the stores of the other data folders, which would end the run in a later one."""
        if self._smoothing_checked or not self.smoother.needs_store:
            return
        for folder in utils.split_paths(self.cfg.data):
            if folder != parts[0].folder:
                others = self.parts_of(folder, split, combine)
                source_readers(self.smoother, self, others, self._sources(others))
        self._smoothing_checked = True

    def _attach_teachers(self, split, parts, combine):
        """Put teachers' rows beside the targets, if the criterion requires them."""
        stores, names = self.stores, self.store_names
        if stores is None:
            return
        if split == self.cfg.train_subset:
            self._prepare_teachers(stores, parts, split, combine)
        elif not stores.exist(parts, names):
            names = []  # validation without a store is not compared with the teacher
        if names:
            pairs = self.datasets[split]
            rows = self._rows_of(stores, pairs, parts, names)
            self._gold_comparison.note_stores(split, rows[0].readers)
            self.datasets[split] = DistilledPairDataset(pairs, rows)

    def get_batch_iterator(self, dataset, *args, **kwargs):
        self._iterated = next((split for split, known in self.datasets.items() if known is dataset), None)
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def post_validate(self, model, stats, agg):
        """Compare teacher and student on the validated split, or on the training set; fairseq logs ``stats`` next."""
        teacher = self._gold_comparison.compare(self._iterated, stats)
        if teacher is not None:
            stats.setdefault("kd_teacher_ppl", utils.get_perplexity(teacher))
        elif self.stores is not None:
            seen = metrics.get_smoothed_values("train")
            self._gold_comparison.compare(self.cfg.train_subset, seen, training=True)

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(update_num)
        if self._needs_stand_in(sample, ignore_grad):
            sample = self._stand_in(sample)
        if self.live_teacher is not None and criterion.learns_from_teachers:
            with self.precision(optimizer, sample["target"].device):
                rows = self.live_teacher.training_batch(sample, model, update_num)
            sample = {**sample, TEACHER: [*sample.get(TEACHER, []), rows]}  # a batch may come again
        step = functools.partial(super().train_step, model=model, criterion=criterion, optimizer=optimizer)
        settings = {"update_num": update_num, "ignore_grad": ignore_grad}
        if self._source_smoothing is None:
            return step(sample, **settings)
        self.smoother.updates = update_num
        special = SpecialIds.of(self.src_dict)
        sample, text = self.smoother.smoothed_batch(sample, sample["net_input"]["src_tokens"], special)
        with self._source_smoothing.reading(text):
            loss, sample_size, logs = step(sample, **settings)
        return loss, sample_size, logs | self.smoother.log(text, sample["net_input"]["src_tokens"])

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        log_means(logging_outputs)

    def _needs_stand_in(self, sample, ignore_grad):
        """Whether a batch lacks rows that training reads, or is one whose gradient is ignored, beside stores."""
        reads_teachers = bool(self.stores and self.store_names)
        reads_smoothing = self._source_smoothing is not None and self.smoother.needs_store
        lacks_rows = reads_teachers and TEACHER not in sample
        lacks_smoothing = reads_smoothing and SMOOTHING not in sample
        return lacks_rows or lacks_smoothing or (reads_teachers and ignore_grad)

    def _stand_in(self, sample):
        """A training batch for a worker that has none left while others have.

        fairseq then takes a batch that it saw before and ignores its gradient. In the first epoch it is one of
        validation, which has no teacher rows, and all workers must log the same sums. It is the pair of the
        shortest sentences: another may be longer than the student's positions.
        """
        pairs = self.datasets[self.cfg.train_subset]
        longer_sides = np.asarray(pairs.sizes).max(axis=1)  # (pairs, 2) -> (pairs,) tokens
        shortest = int(longer_sides.argmin())
        batch = pairs.collater([pairs[shortest]])
        return utils.move_to_cuda(batch) if sample["target"].is_cuda else batch

    def _rows_of(self, stores: TeacherStores, pairs, parts, names):
        """Rows of each store for every pair."""
        repeats = self.cfg.upsample_primary if len(parts) > 1 else 1  # of validation too, as in fairseq
        teachers = []
        # a live teacher's weight is the last
        for name, weight in zip(names, self.teacher_weights, strict=False):
            readers = stores.open(parts, name)
            check_unchanged_lengths(pairs.tgt_sizes, readers, repeats)
            teachers.append(StoreRows(readers, stores.requirements, weight, repeats))
        return teachers

    def _prepare_teachers(self, stores: TeacherStores, parts, split, combine):
        """Before the first epoch: load the live teacher, and check the stores of all data folders.

        A folder whose store does not fit would otherwise end the run in a later epoch.
        """
        if self.cfg.kd_live_teacher and self.live_teacher is None:
            self._load_live_teacher(stores.requirements)
        if self.store_names and not self._all_folders_checked:
            now = parts[0].folder if parts else None
            folders = {
                folder: parts if folder == now else self.parts_of(folder, split, combine)
                for folder in utils.split_paths(self.cfg.data)
            }
            stores.check_label_only(folders)
            for folder, others in folders.items():
                for name in self.store_names if folder != now else []:
                    stores.check(others, name)
            self._all_folders_checked = True

    def _load_live_teacher(self, requirements):
        self.live_teacher = load_live_teacher(self.cfg, requirements, self.teacher_weights[-1])
        digest = self.live_teacher.model.tokenizer_digest()
        self._check_tokenizer(f"--kd-live-teacher {self.cfg.kd_live_teacher}", digest)

    def _check_tokenizer(self, what, digest):
        """Check that a teacher or its store (``what``) had the student's tokenizer, or note which one it had."""
        if self._own_tokenizer:
            check_tokenizer(what, digest, self._own_tokenizer.digest(), self._own_tokenizer.name)
        elif digest:
            self._teachers_tokenizers.add(digest)
            # where teachers have different ones we do not know which made the pieces
            self.tokenizer_digest = digest if len(self._teachers_tokenizers) == 1 else ""

    @cached_property
    def _own_tokenizer(self):
        """The student's tokenizer, checked, if an option names it."""
        if self.cfg.kd_tokenizer:
            tokenizer = HfTokenizer(self.cfg.kd_tokenizer)
            self.check_own_tokenizer(tokenizer, "--kd-tokenizer")
            self.tokenizer_digest = tokenizer.digest()
            return tokenizer
        decoder = self.tokenizer if self.cfg.eval_bleu else None
        return decoder.tokenizer if isinstance(decoder, HfTokenizerBPE) else None

    def _check_no_teacher_is_named(self, criterion):
        """Check for options that name a teacher beside a criterion that learns from none."""
        given = [option for option in TEACHER_OPTIONS if self.cfg[option]]
        if given:
            raise ValueError(
                f"--{given[0].replace('_', '-')} is given, and --criterion {criterion} learns from no teacher; give --criterion "
                f"{DISTILLATION}, with --kd-weight 0 for plain training, or leave it out"
            )

    def _check_options(self, requirements):
        """Check for options that would shift targets against their teacher rows, or contradict each other."""
        shifting = {
            "--left-pad-target": self.cfg.left_pad_target,
            "--num-batch-buckets": self.cfg.num_batch_buckets > 0,
        }
        for option, used in shifting.items():
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
        self._check_live_options(requirements)
        if requirements.full and (self.store_names or not self.cfg.kd_live_teacher):
            raise ValueError(
                "--kd-objective full needs the teacher's whole distribution, which no store holds: give --kd-live-teacher "
                "CHECKPOINT and no --kd-stores"
            )

    def _check_live_options(self, requirements):
        """Check for options of a live teacher without one, and options of stores without a store."""
        cfg = self.cfg
        if not cfg.kd_live_teacher and cfg.kd_live_passes is not None:
            raise ValueError("--kd-live-passes is for --kd-live-teacher, which is not given; leave it out")
        if cfg.kd_live_teacher and requirements.samples and cfg.kd_live_samples < 1:
            raise ValueError(
                f"--kd-objective sampled with a live teacher needs --kd-live-samples of at least 1, got {cfg.kd_live_samples}"
            )
        if not self.store_names and self.label_only:
            raise ValueError(
                "--kd-label-only is for stores, and a live teacher scores every sentence; leave it out, or give --kd-stores"
            )


def listed(names: str | None) -> list[str]:
    """Names that commas separate, and perhaps spaces, as in a file of settings; none for None."""
    return [name.strip() for name in names.split(",")] if names else []


def check_autoregressive(model, arch: str | None) -> None:
    """Check that a student reads a source and the target so far, by the parameters of its ``forward``.

    Raises:
        ValueError: it needs other inputs (non-autoregressive models take the whole target), or reads no target.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    flexible = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {parameter.name for parameter in parameters if parameter.kind not in flexible}
    needed = {
        parameter.name
        for parameter in parameters
        if parameter.kind not in flexible and parameter.default is inspect.Parameter.empty
    }
    missing, foreign = "prev_output_tokens" not in named and bool(named), sorted(needed - STUDENT_INPUTS)
    if missing or foreign:
        why = f"needs {', '.join(foreign)}" if foreign else "reads no target"
        raise ValueError(
            f"a student must be an autoregressive encoder-decoder, whose input is {', '.join(sorted(STUDENT_INPUTS))}, but "
            f"--arch {arch} {why}. Use transformer, lstm, fconv or another of that kind"
        )
