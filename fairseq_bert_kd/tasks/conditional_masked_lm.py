"""Task ``conditional_masked_lm``: fine-tune a masked language model on the generation task itself, or on sentences."""

import functools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
from fairseq import utils
from fairseq.data import ConcatDataset, Dictionary, data_utils
from fairseq.tasks import FairseqTask, register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from numpy.typing import NDArray
from omegaconf import II

from fairseq_bert_kd.data.corpus_parts import (
    CorpusPart,
    check_parts,
    check_same_dictionaries,
    open_side,
    text_parts,
)
from fairseq_bert_kd.data.guarded_loading import GuardedLoading, GuardedTranslation
from fairseq_bert_kd.data.masked_entities import ShowEntities, noisy, withheld
from fairseq_bert_kd.data.masked_text_dataset import MaskedTextDataset
from fairseq_bert_kd.functional.masking import MaskedTokens, Replacement, mask_tokens, replayable_draws
from fairseq_bert_kd.functional.text_input import LEFT_TO_RIGHT
from fairseq_bert_kd.modules.autocast import AutocastOptions, AutocastTraining
from fairseq_bert_kd.optim.adam_by_part import name_parts
from fairseq_bert_kd.storage.entity_mentions import MentionsByRow, check_folders, read_mentions, span_of
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, text_files
from fairseq_bert_kd.storage.folds import Fold, in_fold, parse_fold
from fairseq_bert_kd.teachers.load import entities_digest, entity_span, held_out_fold, is_token_teacher
from fairseq_bert_kd.teachers.probe import check_token_teacher
from fairseq_bert_kd.tokenization.dictionary import (
    TeacherVocabulary,
    dictionary_digests,
    piece_ids,
    teacher_vocabulary,
)
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)

VALIDATION_EPOCH = 0  # training epochs count from 1, so validation masks are fixed and their own
DEFAULT_MASK_PROB = 0.15  # of the paper
NO_FOLD = (0, 0)  # for the model: all pairs are seen


@dataclass
class ConditionalMaskedLMConfig(AutocastOptions, TranslationConfig):
    """Options of ``translation`` and the masking."""

    cmlm_mask_prob: float = field(
        default=DEFAULT_MASK_PROB,
        metadata={
            "help": "probability of masking each target position, end of sentence included (paper: 0.15); not "
            "applicable to --teacher-attention left-to-right, which learns from every position"
        },
    )
    cmlm_keep: float = field(
        default=0.0,
        metadata={
            "help": "share of the masked positions that show their own token instead of the mask token (BERT: 0.1; the "
            "paper's C-MLM: 0), so that predictions at positions without mask mean something"
        },
    )
    cmlm_random: float = field(
        default=0.0,
        metadata={
            "help": "share of the masked positions that show a random piece of the dictionary instead of the mask token "
            "(BERT: 0.1; the paper's C-MLM: 0)"
        },
    )
    cmlm_one_sided: bool = field(
        default=False,
        metadata={
            "help": "train a masked language model of single sentences, on a folder of fairseq-preprocess --only-source or "
            "of prepare-sentences: for data augmentation, not a teacher of translation"
        },
    )
    teacher_fold: Optional[str] = field(
        default=None,
        metadata={
            "help": "I/N: learn from all training pairs but those of the I-th of N folds, which the teacher then scores (dump "
            "--teacher-fold) without having seen them; a pair's fold follows from its target's token ids (default: learn from all)"
        },
    )
    cmlm_seed: int = II("common.seed")
    log_interval: int = II("common.log_interval")


class MaskedLMTraining(AutocastTraining, GuardedLoading):
    """Mixin for tasks that train a masked language model on texts; name it before fairseq's own class."""

    dictionaries: Mapping[str, Dictionary]  # by side; that of the predicted side, `target`, is the last one
    datasets: dict[str, Any]
    teacher_vocabulary: TeacherVocabulary  # set while a teacher is built from pre-trained weights
    replacement: Replacement
    items: str  # what a dataset holds, for messages
    measured: str  # what of an item is measured
    _left_to_right = False  # known once the model is built
    _entities_digest = ""  # of the model's entity vectors; likewise
    _entity_span = ""  # which pieces the mentions of its training mark; likewise
    _built: tuple[Any, Any]  # model and its settings

    def build_model(self, cfg, from_checkpoint=False):
        """Build the teacher and write its description into ``cfg``, which the checkpoint stores."""
        arch = getattr(cfg, "_name", None)
        if not is_token_teacher(arch):
            raise ValueError(
                f"task conditional_masked_lm trains a masked language model, and `{arch}` is not one; give --arch hf_masked_lm"
            )
        if cfg.teacher_spec:
            self._check_dictionaries(json.loads(cfg.teacher_spec)["digests"])
        else:
            if not cfg.teacher_model:
                raise ValueError(f"--arch {arch} needs --teacher-model: a folder or hub name of a masked LM")
            self._check_masking_is_used(cfg)
            tokenizer = HfTokenizer(cfg.teacher_tokenizer or cfg.teacher_model)
            self.teacher_vocabulary = teacher_vocabulary(tokenizer, self.dictionaries)
        model = super().build_model(cfg, from_checkpoint)
        self._left_to_right = model.text_layout().attention == LEFT_TO_RIGHT
        self._entities_digest, self._entity_span = entities_digest(model), entity_span(model)
        assert not (self._left_to_right and self.datasets), (
            "data that were loaded before the model are masked"
        )
        if not cfg.teacher_spec:
            check_token_teacher(model, f"--teacher-model {cfg.teacher_model}")
            cfg.teacher_spec = model.spec()
        name_parts(model)
        self._built = model, cfg
        return model

    def begin_epoch(self, epoch, model):
        """fairseq's; a teacher that goes on from a checkpoint must have been trained with the same pieces.

        Raises:
            ValueError: another dictionary of the same size, or another tokenizer: its symbols mean other pieces.
        """
        self._check_maps(model)
        super().begin_epoch(epoch, model)

    def _check_maps(self, model):
        vocabulary = getattr(self, "teacher_vocabulary", None)
        if vocabulary is None:
            return
        for (side, here), there in zip(
            vocabulary.to_teacher.items(), model.text_layout().to_teacher, strict=True
        ):
            differs = there.cpu().numpy() != here
            if differs.any():
                raise ValueError(
                    f"the checkpoint from which training goes on was trained with another {side} dictionary or tokenizer: symbol "
                    f"{int(differs.argmax())}, `{self.dictionaries[side][int(differs.argmax())]}` here, was another piece there "
                    f"({int(differs.sum())} of {len(here)} symbols differ). Give another --save-dir, or the folder and "
                    "tokenizer of its training"
                )

    @property
    def criterion_name(self) -> str:
        """The criterion that trains the model."""
        return "conditional_masked_lm"

    def build_criterion(self, cfg, *args, **kwargs):
        name = getattr(cfg, "_name", None)
        if name != self.criterion_name:
            with_entities = " and --entity-vectors" if self.criterion_name != "conditional_masked_lm" else ""
            raise ValueError(
                f"task conditional_masked_lm{with_entities} needs --criterion {self.criterion_name}, not `{name}`"
            )
        criterion = super().build_criterion(cfg, *args, **kwargs)  # type: ignore[misc]
        if hasattr(criterion, "prepare"):
            model, settings = self._built
            criterion.prepare(model)
            settings.teacher_spec = model.spec()  # with what the criterion has added
        return criterion

    def build_generator(self, *args, **kwargs):
        """Refused: a teacher does not translate."""
        raise ValueError(
            "--task conditional_masked_lm is for teachers, which fill in hidden tokens and do not translate. Translate with a "
            "student: --task translation_with_teacher and --path of its checkpoint"
        )

    def _check_masking_is_used(self, cfg):
        if str(cfg.teacher_attention) != LEFT_TO_RIGHT:
            return
        options = {"mask_prob": DEFAULT_MASK_PROB, "keep": 0.0, "random": 0.0}
        for name, default in options.items():
            given = self.cfg[f"cmlm_{name}"]
            if given != default:
                raise ValueError(
                    f"--cmlm-{name.replace('_', '-')} {given} has no effect with --teacher-attention left-to-right, which "
                    "masks nothing and learns from every target position; leave one of them out"
                )

    def _check_dictionaries(self, digests):
        """Check that a checkpoint was trained with the dictionaries of the data folder."""
        for name, digest in dictionary_digests(self.dictionaries).items():
            if digest != digests[name]:
                raise ValueError(
                    f"the {name.replace('_', ' ')} in `{self.cfg.data}` is not the one that this teacher was "
                    f"trained with (sha256 {digest[:12]} against {digests[name][:12]}); binarise with the teacher's "
                    "dictionaries (fairseq-preprocess --srcdict/--tgtdict), or train a teacher on this folder"
                )

    @property
    def entity_span(self) -> str:
        """Which pieces the mentions of the first data folder mark, for a new model; empty where it has none."""
        return span_of(utils.split_paths(self.cfg.data)[0])

    def mentions_of(self, parts: Sequence[CorpusPart]) -> Optional[MentionsByRow]:
        """Mentions of a split, with their entities in the numbers of the model; None for a model without entities.

        Raises:
            FileNotFoundError: there are none.
            ValueError: they are of other vectors or rows, or of other pieces in another data folder; or the split is of
                several files.
        """
        if not self._entities_digest:
            return None
        if len(parts) > 1:
            raise ValueError(
                f"--entity-vectors reads mentions of one file of sentences, split `{parts[0].name}` has {len(parts)}; binarise "
                "them as one"
            )
        [part] = parts
        if part.name == self.cfg.train_subset:
            check_folders(utils.split_paths(self.cfg.data), part.name, self._entities_digest)
        texts = [IndexedTokens(prefix) for prefix in part.prefixes.values()]
        mentions = read_mentions(part.folder, part.name, texts, self._entities_digest, self._entity_span)
        return MentionsByRow(mentions, len(texts[0]), len(texts))

    def masked_dataset(
        self,
        texts: Sequence[Any],
        split: str,
        kept: Optional[NDArray[np.bool_]] = None,
        entities: Optional[ShowEntities] = None,
    ) -> MaskedTextDataset:
        """Indexed texts of a split with the masks of training, or with the fixed ones of validation."""
        training = split == self.cfg.train_subset
        mask = functools.partial(
            _masked,
            training=training,
            mask_prob=self.cfg.cmlm_mask_prob,
            replacement=self.replacement,
            pieces=piece_ids(self.dictionaries["target"]),
            seed=self.cfg.cmlm_seed,
        )
        return MaskedTextDataset(
            texts,
            _every_position if self._left_to_right else mask,
            pad=self.dictionaries["target"].pad(),
            shuffle_seed=self.cfg.cmlm_seed if training else None,
            kept=kept,
            entities=entities,
        )

    def filter_indices_by_size(self, indices, dataset, max_positions=None, ignore_invalid_inputs=False):
        """The items that fit the teacher's positions and the token budget; the others are counted in the log."""
        kept, ignored = dataset.filter_indices_by_size(indices, max_positions)
        if len(ignored):
            logger.warning(
                "left out %d of %d %s (%.2f %%): %s longer than %s tokens "
                "(the teacher's positions or --max-tokens); first ids: %s",
                len(ignored),
                len(indices),
                self.items,
                100.0 * len(ignored) / len(indices),
                self.measured,
                max_positions,
                ignored[:10],
            )
        return kept

    def max_positions(self):
        """No limit of the task's own: the model knows its positions."""
        return None


@register_task("conditional_masked_lm", dataclass=ConditionalMaskedLMConfig)
class ConditionalMaskedLMTask(MaskedLMTraining, GuardedTranslation, TranslationTask):
    """Source and target in one input, only target tokens masked (Chen et al. 2020, Section 3.1).

    A left-to-right teacher is trained on every target position instead, none of them masked.

    Reads the folder that fairseq-preprocess wrote for the student.
    """

    items, measured = "pairs", "source and target together are"

    def __init__(self, cfg, src_dict, tgt_dict):
        self.replacement = check_masking(cfg)
        super().__init__(cfg, src_dict, tgt_dict)
        self.dictionaries = {"source": src_dict, "target": tgt_dict}
        self.fold = parse_fold(cfg.teacher_fold, "--teacher-fold") if cfg.teacher_fold else None
        self.held_out = (self.fold.number, self.fold.count) if self.fold else NO_FOLD

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """The task on pairs, or with ``--cmlm-one-sided`` the one on sentences."""
        if cfg.cmlm_one_sided:
            if cfg.teacher_fold:
                raise ValueError(
                    "--teacher-fold is for teachers of pairs, and --cmlm-one-sided trains on single sentences; leave one out"
                )
            return OneSidedMaskedLMTask.setup_task(cfg, **kwargs)
        return super().setup_task(cfg, **kwargs)

    def build_model(self, cfg, from_checkpoint=False):
        fresh = not cfg.teacher_spec
        model = super().build_model(cfg, from_checkpoint)
        if fresh and self._entities_digest:
            model.entities.check_reach(
                "masked tokens, which name none", "read them in more layers, as mix,full does"
            )
        return model

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        parts = self.parts_of(self.folder_of(split, epoch), split, combine)
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        pairs = self.datasets[split]
        kept = self._outside(self.fold, parts) if self.fold and split == self.cfg.train_subset else None
        mentions = self.mentions_of(parts)
        entities = None if mentions is None else withheld(mentions)
        self.datasets[split] = self.masked_dataset((pairs.src, pairs.tgt), split, kept, entities)

    def begin_epoch(self, epoch, model):
        """fairseq's; a teacher that goes on from a checkpoint must have been trained with the same fold.

        Raises:
            ValueError: the checkpoint has seen other pairs.
        """
        before = held_out_fold(model)
        if before != self.fold:
            raise ValueError(
                f"--teacher-fold is {self.fold or 'not given'}, and the checkpoint from which training goes on was trained with "
                f"{f'--teacher-fold {before}' if before else 'all pairs'}: it would not be known which pairs the teacher has "
                "seen. Give another --save-dir, or the same --teacher-fold"
            )
        super().begin_epoch(epoch, model)

    def _outside(self, fold: Fold, parts: Sequence[CorpusPart]) -> NDArray[np.bool_]:
        """``(pairs,)``, pairs outside the fold, by the files' own ids."""
        repeats, kept = self.cfg.upsample_primary if len(parts) > 1 else 1, []
        for number, part in enumerate(parts):
            prefix, dictionary = part.prefixes["target"], self.dictionaries["target"]
            targets = open_side(prefix, dictionary, self.cfg.dataset_impl)
            outside = ~in_fold({"target": targets}, fold)
            logger.info(
                "--teacher-fold %s: %d of %d pairs of %s are held out",
                *(fold, len(outside) - outside.sum(), len(outside), part.name),
            )
            kept.append(np.tile(outside, 1 if number else repeats))
        return np.concatenate(kept)


class OneSidedMaskedLMTask(MaskedLMTraining, FairseqTask):
    """``--cmlm-one-sided``: single sentences, any of their tokens masked (BERT's masked language modelling).

    Sentences are one by one, not packed, and the end of sentence is masked like any other token: both as in the C-MLM.
    """

    items, measured = "sentences", "they are"
    _table_size = 0  # rows of the model's table of entity vectors

    def __init__(self, cfg, dictionary):
        self.replacement = check_masking(cfg)
        super().__init__(cfg)
        self.dictionaries = {"target": dictionary}

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """The task with the dictionary of the first data folder; all folders must have the same one."""
        first, *others = utils.split_paths(cfg.data)
        path = text_files(first, cfg.train_subset, cfg.source_lang).dictionary
        dictionary = cls.load_dictionary(str(path))
        logger.info("dictionary: %d types", len(dictionary))
        check_same_dictionaries([first, *others], {os.path.relpath(path, first): dictionary})
        return cls(cfg, dictionary)

    def build_model(self, cfg, from_checkpoint=False):
        if str(getattr(cfg, "teacher_attention", "")) == LEFT_TO_RIGHT:
            raise ValueError(
                "--cmlm-one-sided trains a masked language model, and --teacher-attention left-to-right masks nothing; "
                "leave one of them out"
            )
        model = super().build_model(cfg, from_checkpoint)
        if self._entities_digest:
            self._table_size = len(model.entities.vectors)
        return model

    @property
    def criterion_name(self):
        return "entity_masked_lm" if self._entities_digest else super().criterion_name

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        parts = text_parts(self.folder_of(split, epoch), split, combine, self.cfg.source_lang)
        for part, sides in zip(parts, check_parts(parts, self.cfg.dataset_impl), strict=True):
            self.say_unknown(part.folder, part.name, sides, {"target": self.target_dictionary.unk()})
        texts = [
            data_utils.load_indexed_dataset(
                part.prefixes["target"], self.target_dictionary, self.cfg.dataset_impl
            )
            for part in parts
        ]
        mentions, entities = self.mentions_of(parts), None
        if mentions is not None:
            training = split == self.cfg.train_subset
            entities = noisy(mentions, self._table_size, self.cfg.cmlm_seed, training)
        self.datasets[split] = self.masked_dataset((ConcatDataset(texts),), split, entities=entities)

    @property
    def source_dictionary(self):
        return self.dictionaries["target"]

    @property
    def target_dictionary(self):
        return self.dictionaries["target"]


def check_masking(cfg: ConditionalMaskedLMConfig) -> Replacement:
    """What is seen at masked positions.

    Raises:
        ValueError: shares out of range, or options that have no meaning for a masked language model.
    """
    if not 0.0 < cfg.cmlm_mask_prob <= 1.0:
        raise ValueError(f"--cmlm-mask-prob must be in (0, 1], got {cfg.cmlm_mask_prob}; the paper uses 0.15")
    if cfg.eval_bleu:
        raise ValueError(
            "--eval-bleu is for students: a masked language model does not translate; leave it out"
        )
    if cfg.num_batch_buckets > 0:
        raise ValueError(
            f"--num-batch-buckets {cfg.num_batch_buckets} pads every sentence, and the teacher would predict the padding; "
            "leave it out"
        )
    try:
        return Replacement(cfg.cmlm_keep, cfg.cmlm_random)
    except ValueError as error:
        raise ValueError(f"--cmlm-keep and --cmlm-random: {error}") from None


def _masked(tokens, epoch, index, training, mask_prob, replacement, pieces, seed):
    draws = replayable_draws(seed, epoch if training else VALIDATION_EPOCH, index)
    return mask_tokens(tokens, mask_prob, replacement, pieces, draws)


def _every_position(tokens, epoch, index):
    every = np.ones(len(tokens), dtype=np.bool_)
    return MaskedTokens(tokens, every, every)
