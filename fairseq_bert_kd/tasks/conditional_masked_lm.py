"""Task ``conditional_masked_lm``: fine-tune a masked language model on the generation task itself."""

import functools
import json
import logging
from dataclasses import dataclass, field

import numpy as np
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from fairseq_bert_kd.data.guarded_loading import GuardedTranslation
from fairseq_bert_kd.data.masked_pair_dataset import MaskedPairDataset
from fairseq_bert_kd.functional.masking import replayable_mask
from fairseq_bert_kd.functional.text_input import LEFT_TO_RIGHT
from fairseq_bert_kd.teachers.load import is_token_teacher
from fairseq_bert_kd.teachers.probe import check_token_teacher
from fairseq_bert_kd.tokenization.dictionary import (
    TeacherVocabulary,
    dictionary_digests,
    teacher_vocabulary,
)
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)

VALIDATION_EPOCH = 0  # training epochs count from 1, so validation masks are fixed and their own
DEFAULT_MASK_PROB = 0.15  # of the paper


@dataclass
class ConditionalMaskedLMConfig(TranslationConfig):
    """Options of ``translation`` and the masking."""

    cmlm_mask_prob: float = field(
        default=DEFAULT_MASK_PROB,
        metadata={
            "help": "probability of masking each target position, end of sentence included (paper: 0.15); not "
            "applicable to --teacher-attention left-to-right, which learns from every position"
        },
    )
    cmlm_seed: int = II("common.seed")
    log_interval: int = II("common.log_interval")


@register_task("conditional_masked_lm", dataclass=ConditionalMaskedLMConfig)
class ConditionalMaskedLMTask(GuardedTranslation, TranslationTask):
    """Source and target in one input, only target tokens masked (Chen et al. 2020, Section 3.1).

    A left-to-right teacher is trained on every target position instead, none of them masked.

    Reads the folder that fairseq-preprocess wrote for the student.
    """

    teacher_vocabulary: TeacherVocabulary  # set while a teacher is built from pre-trained weights

    def __init__(self, cfg, src_dict, tgt_dict):
        if not 0.0 < cfg.cmlm_mask_prob <= 1.0:
            raise ValueError(
                f"--cmlm-mask-prob must be in (0, 1], got {cfg.cmlm_mask_prob}; the paper uses 0.15"
            )
        if cfg.eval_bleu:
            raise ValueError(
                "--eval-bleu is for students: a masked language model does not translate; leave it out"
            )
        if cfg.num_batch_buckets > 0:
            raise ValueError(
                f"--num-batch-buckets {cfg.num_batch_buckets} pads every sentence, and the teacher would predict the padding; "
                "leave it out"
            )
        super().__init__(cfg, src_dict, tgt_dict)
        self._left_to_right = False  # known once the model is built

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
            self._check_mask_prob_is_used(cfg)
            tokenizer = HfTokenizer(cfg.teacher_tokenizer or cfg.teacher_model)
            self.teacher_vocabulary = teacher_vocabulary(tokenizer, self.src_dict, self.tgt_dict)
        model = super().build_model(cfg, from_checkpoint)
        self._left_to_right = model.pair_layout().attention == LEFT_TO_RIGHT
        assert not (self._left_to_right and self.datasets), (
            "data that were loaded before the model are masked"
        )
        if not cfg.teacher_spec:
            check_token_teacher(model, f"--teacher-model {cfg.teacher_model}")
            cfg.teacher_spec = model.spec()
        return model

    def build_criterion(self, cfg, *args, **kwargs):
        name = getattr(cfg, "_name", None)
        if name != "conditional_masked_lm":
            raise ValueError(
                f"task conditional_masked_lm needs --criterion conditional_masked_lm, not `{name}`"
            )
        return super().build_criterion(cfg, *args, **kwargs)

    def build_generator(self, *args, **kwargs):
        """Refused: a teacher does not translate."""
        raise ValueError(
            "--task conditional_masked_lm is for teachers, which fill in hidden tokens and do not translate. Translate with a "
            "student: --task translation_with_teacher and --path of its checkpoint"
        )

    def _check_mask_prob_is_used(self, cfg):
        if str(cfg.teacher_attention) == LEFT_TO_RIGHT and self.cfg.cmlm_mask_prob != DEFAULT_MASK_PROB:
            raise ValueError(
                f"--cmlm-mask-prob {self.cfg.cmlm_mask_prob} has no effect with --teacher-attention left-to-right, which "
                "masks nothing and learns from every target position; leave one of them out"
            )

    def _check_dictionaries(self, digests):
        """Check that a checkpoint was trained with the dictionaries of the data folder."""
        for name, digest in dictionary_digests(self.src_dict, self.tgt_dict).items():
            if digest != digests[name]:
                raise ValueError(
                    f"the {name.replace('_', ' ')} in `{self.cfg.data}` is not the one that this teacher was "
                    f"trained with (sha256 {digest[:12]} against {digests[name][:12]}); binarise with the teacher's "
                    "dictionaries (fairseq-preprocess --srcdict/--tgtdict), or train a teacher on this folder"
                )

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        self.parts_of(self.folder_of(split, epoch), split, combine)  # checks them
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        pairs = self.datasets[split]
        training = split == self.cfg.train_subset
        mask = functools.partial(_mask_for_split, training, self.cfg.cmlm_mask_prob, self.cfg.cmlm_seed)
        self.datasets[split] = MaskedPairDataset(
            pairs.src,
            pairs.tgt,
            _every_position if self._left_to_right else mask,
            pad=self.tgt_dict.pad(),
            shuffle_seed=self.cfg.cmlm_seed if training else None,
        )

    def filter_indices_by_size(self, indices, dataset, max_positions=None, ignore_invalid_inputs=False):
        """The pairs that fit the teacher's positions and the token budget; the others are counted in the log."""
        kept, ignored = dataset.filter_indices_by_size(indices, max_positions)
        if len(ignored):
            logger.warning(
                "left out %d of %d pairs (%.2f %%): source and target together are longer than %s tokens "
                "(the teacher's positions or --max-tokens); first ids: %s",
                len(ignored),
                len(indices),
                100.0 * len(ignored) / len(indices),
                max_positions,
                ignored[:10],
            )
        return kept

    def max_positions(self):
        """No limit of the task's own: the model knows its positions."""
        return None


def _mask_for_split(training, mask_prob, seed, length, epoch, index):
    return replayable_mask(length, mask_prob, seed, epoch if training else VALIDATION_EPOCH, index)


def _every_position(length, epoch, index):
    return np.ones(length, dtype=np.bool_)
