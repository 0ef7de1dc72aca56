"""Task ``sentence_prediction_with_teacher``: classes or numbers for one or two sentences, labels known by name."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II, MISSING

from fairseq_bert_kd.data.guarded_loading import GuardedLoading
from fairseq_bert_kd.data.sentence_dataset import SentenceDataset
from fairseq_bert_kd.modules.autocast import AutocastOptions, AutocastTraining
from fairseq_bert_kd.modules.data_options import TokenizerOptions
from fairseq_bert_kd.modules.encoder_start import check_same_heads
from fairseq_bert_kd.modules.sentence_checkpoints import (
    SPEC,
    check_continued,
    check_same_stage,
    continued_checkpoint,
)
from fairseq_bert_kd.modules.sentence_criterions import check_criterion, check_reads_texts, learns_labels
from fairseq_bert_kd.modules.validation_metrics import (
    BestCheckpointOptions,
    allow_single_rows,
)
from fairseq_bert_kd.optim.adam_by_part import name_parts
from fairseq_bert_kd.storage.fairseq_data import (
    check_parallel,
    open_sides,
    sentence_files,
)
from fairseq_bert_kd.storage.sentence_data import (
    NUMBERS,
    UNLABELLED,
    SentenceSpec,
    check_same_pieces,
    check_same_task,
    check_tokenizer,
    named,
    read_spec,
    read_targets,
    translated,
)
from fairseq_bert_kd.teachers.layer_teacher import LiveLayerTeacher
from fairseq_bert_kd.teachers.load import entities_digest, entity_span
from fairseq_bert_kd.teachers.load_layer_teacher import load_layer_teacher
from fairseq_bert_kd.teachers.smoothed_inputs import smoothed_sentences
from fairseq_bert_kd.tokenization.dictionary import SentenceVocabulary, load_dictionary, sentence_vocabulary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)

CHECKPOINT = "the checkpoint"  # in messages


@dataclass
class SentencePredictionWithTeacherConfig(TokenizerOptions, AutocastOptions, BestCheckpointOptions):
    """Options of the data and of the classification head."""

    data: str = field(
        default=MISSING, metadata={"help": "folder that `fairseq-bert-kd prepare-sentences` wrote"}
    )
    kd_teacher: Optional[str] = field(
        default=None,
        metadata={
            "help": "teacher of --criterion layer_distillation, frozen in the training loop: checkpoint of --arch hf_encoder, or "
            "folder or hub name of a transformers encoder, with the tokenizer of the data"
        },
    )
    max_positions: Optional[int] = field(
        default=None,
        metadata={
            "help": "longest row in tokens, ends of sentence included; longer ones are cut, the longer text first, and "
            "counted in the log (default: what the model can read)"
        },
    )
    classification_head_name: str = field(
        default="sentence_classification_head",
        metadata={"help": "name of the classification head that is trained"},
    )
    seed: int = II("common.seed")
    log_interval: int = II("common.log_interval")
    train_subset: str = II("dataset.train_subset")
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    reset_optimizer: bool = II("checkpoint.reset_optimizer")


@register_task("sentence_prediction_with_teacher", dataclass=SentencePredictionWithTeacherConfig)
class SentencePredictionWithTeacherTask(AutocastTraining, GuardedLoading, FairseqTask):
    """Sentences or pairs of them with a class, a number or no label; fairseq's ``sentence_prediction`` criterion trains it.

    Unlike fairseq's own task it keeps texts apart for the model to join, knows classes by name, sorts each epoch's rows by
    length within buckets, and loses none: longer rows are cut and the last batch is kept.

    Attributes:
        spec: what the model's outputs mean; that of the checkpoint if there is one, else that of the data.
        dictionary: dictionary of all texts.
        teacher: set while a criterion is built that learns from one; no module, and no part of a checkpoint.
        starts_from: checkpoint or folder whose weights training starts from; None for random weights.
        reads_mentions: whether batches say which tokens name which entity.
    """

    spec: SentenceSpec
    teacher: LiveLayerTeacher | None = None
    starts_from: str | None = None
    reads_mentions = False
    _tokenizer_name: str
    _built: tuple[Any, Any]  # model and its settings
    _continued: str | None = None  # checkpoint from which training goes on
    _model_positions: int | None = None
    _needs_labels = False
    _smoother: Any = None  # of a criterion that smooths its inputs

    def __init__(self, cfg, spec: SentenceSpec, folders: dict[str, SentenceSpec], dictionary: Dictionary):
        super().__init__(cfg)
        if cfg.max_positions is not None and cfg.max_positions < spec.texts:
            raise ValueError(
                f"--max-positions must be at least {spec.texts}, the ends of sentence of a row, got {cfg.max_positions}"
            )
        self.dictionary = dictionary
        self._folders = folders
        self._smoothing_checked = False
        self._take_spec(spec)

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """Read what the data folders say.

        Raises:
            FileNotFoundError: a folder was not prepared.
            ValueError: folders that do not belong together.
        """
        folders = {folder: read_spec(folder) for folder in utils.split_paths(cfg.data)}
        first, *others = folders
        for folder in others:
            names = (f"data folder `{first}`", f"data folder `{folder}`")
            check_same_pieces(folders[first], folders[folder], names)
            check_same_task(folders[first], folders[folder], names)
        return cls(cfg, folders[first], folders, load_dictionary(first, folders[first]))

    def load_state_dict(self, state_dict):
        """Take the meaning of the outputs from a checkpoint, before fairseq builds its model.

        Raises:
            ValueError: the data have other pieces than those that the checkpoint was trained on.
        """
        super().load_state_dict(state_dict)
        if SPEC in state_dict:
            trained = SentenceSpec.from_json(state_dict[SPEC])
            check_same_pieces(trained, self.spec, (CHECKPOINT, f"data folder `{self.cfg.data}`"))
            self._take_spec(trained)

    def _take_spec(self, spec: SentenceSpec) -> None:
        self.spec = spec
        self.state.merge_state_dict({SPEC: spec.to_json()})
        self._tokenizer_name = self.cfg.kd_tokenizer or spec.tokenizer_name

    # ------------------------------------------------------------ what models ask for

    @property
    def source_dictionary(self):
        return self.dictionary

    @property
    def target_dictionary(self):
        return self.dictionary

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of the model's outputs; empty for numbers and unlabelled text."""
        return self.spec.names

    @property
    def predicted_kind(self) -> str:
        """What a head of this task predicts, one of `sentence_data.KINDS` or `sentence_data.SETS`."""
        return self.spec.kind

    def predictions(self, logits: torch.Tensor) -> list[Any]:
        """Names of the classes with the highest score, or numbers, of ``(rows, classes)`` logits."""
        if self.spec.kind == NUMBERS:
            return logits.view(-1).double().tolist()
        return [self.spec.names[number] for number in logits.argmax(dim=1).tolist()]

    def references(self, folder: str, split: str, rows: int) -> list[Any] | None:
        """Labels of a split as `predictions` gives them; None where it has none."""
        spec = read_spec(folder)
        targets = read_targets(folder, split, spec)
        if targets is None:
            return None
        return named(targets, spec)

    @property
    def num_classes(self) -> int:
        """Outputs of the classification head: classes, or 1 for numbers; 0 for unlabelled text."""
        return self.spec.outputs

    @functools.cached_property
    def label_dictionary(self) -> Dictionary:
        """Class *numbers* as symbols, which fairseq's criterion turns into integers again."""
        dictionary = Dictionary()
        for number in range(len(self.spec.names)):
            dictionary.add_symbol(str(number))
        return dictionary

    @functools.cached_property
    def vocabulary(self) -> SentenceVocabulary:
        """The dictionary in the ids of the encoder; made when a model asks for it.

        Raises:
            ValueError: the tokenizer cannot be loaded, or is another one than that of the data.
        """
        name = self._tokenizer_name
        if not name:
            raise ValueError(
                "the tokenizer of the data is not known; give --kd-tokenizer, a folder or hub name"
            )
        tokenizer = HfTokenizer(name)
        check_tokenizer(f"data folder `{self.cfg.data}`", self.spec.tokenizer, tokenizer.digest(), name)
        return sentence_vocabulary(tokenizer, self.dictionary)

    def build_model(self, cfg, from_checkpoint=False):
        """Build the model and its classification head, and write its description into ``cfg`` if it has one.

        Raises:
            ValueError: a model that reads no sentences, an encoder of another tokenizer than the data's, or a model to train that
                reads entities, which this task's batches do not name.
        """
        check_reads_texts(getattr(cfg, "_name", None) or getattr(cfg, "arch", None))
        encoder = getattr(cfg, "encoder_model", None)
        if not from_checkpoint:
            self._check_continued_checkpoint()
            self._continued, heads = continued_checkpoint(self.cfg), getattr(cfg, "encoder_heads", None)
            if self._continued and heads:
                check_same_heads(self._continued, heads)
            self._check_encoder_tokenizer(encoder)
        self._tokenizer_name = self.cfg.kd_tokenizer or encoder or self.spec.tokenizer_name
        model = super().build_model(cfg, from_checkpoint)
        if not (from_checkpoint or self.reads_mentions) and hasattr(model, "entities_digest"):
            raise ValueError(
                "the model reads entities, which the batches of this task do not name, so it would be trained without them; give "
                "--task entity_sentence_prediction, or --arch hf_encoder"
            )
        head = self.cfg.classification_head_name
        if self.num_classes and head not in model.classification_heads:
            model.register_classification_head(head, num_classes=self.num_classes)
        if getattr(cfg, "encoder_spec", "") is None:
            cfg.encoder_spec = model.spec()
        self._model_positions = _smallest(model.max_positions())
        origins = (getattr(cfg, name, None) for name in ("encoder_init", "encoder_model"))
        self.starts_from = continued_checkpoint(self.cfg) or next(filter(None, origins), None)
        self._built = model, cfg
        name_parts(model)
        return model

    def _check_continued_checkpoint(self):
        """Compare the data with the checkpoint from which training goes on; fairseq loads it later, weights only."""
        check_continued(self.cfg, self.spec)

    def _check_encoder_tokenizer(self, encoder: str | None) -> None:
        """Compare the tokenizer beside ``--encoder-model``, if there is one, with that of the data, where both are named."""
        name = self.cfg.kd_tokenizer
        if not (name and encoder) or encoder == name:
            return
        try:
            theirs = HfTokenizer(encoder).digest()
        except ValueError:  # weights alone, whose tokenizer is that of --kd-tokenizer
            return
        ours = self.spec.tokenizer or HfTokenizer(name).digest()
        if theirs != ours:
            raise ValueError(
                f"--encoder-model `{encoder}` has another tokenizer than --kd-tokenizer `{name}`, that of the data (sha256 "
                f"{theirs[:12]} against {ours[:12]}): its embeddings belong to other pieces; give an encoder with the tokenizer of "
                "the data, or prepare the data with that of the encoder"
            )

    def build_criterion(self, cfg, from_checkpoint=False):
        self._check_criterion(cfg)
        if self._continued:
            check_same_stage(self._continued, self.cfg, cfg)
        criterion = super().build_criterion(cfg, from_checkpoint=from_checkpoint)
        needs_teacher = getattr(criterion, "needs_teacher", False)
        if needs_teacher:
            self._load_teacher(criterion.needs_predictions)
        elif self.cfg.kd_teacher and not hasattr(criterion, "needs_teacher"):
            raise ValueError(
                f"--kd-teacher is for --criterion layer_distillation, smoothed or not, `{cfg._name}` does not ask a teacher; leave "
                "it out"
            )
        smoother = getattr(criterion, "smoother", None)
        if smoother is not None and smoother.active:
            if self.spec.texts != 1:
                raise ValueError(
                    f"--criterion {cfg._name} smooths single sentences, rows of `{self.cfg.data}` have {self.spec.texts} texts; "
                    f"choose --criterion {cfg._name.removeprefix('smoothed_')}"
                )
            self._smoother = smoother
        if hasattr(criterion, "prepare"):
            model, settings = self._built
            criterion.prepare(model)
            if hasattr(settings, "encoder_spec"):
                settings.encoder_spec = model.spec()  # with what the criterion has added
        return criterion

    def _load_teacher(self, predicts: bool) -> None:
        """Load ``--kd-teacher``; ``predicts`` if its predictions are learned."""
        if not self.cfg.kd_teacher:
            raise ValueError(
                "--criterion layer_distillation learns from a teacher; give --kd-teacher, a checkpoint of --arch hf_encoder or "
                "the folder or hub name of a transformers encoder"
            )
        model, _ = self._built
        self.teacher = load_layer_teacher(
            self.cfg.kd_teacher,
            self.vocabulary,
            self.label_names,
            self.num_classes,
            predicts,
            entities=entities_digest(model) if self.reads_mentions else "",
            span=entity_span(model),
        )
        self._model_positions = _smallest([self._model_positions, self.teacher.model.max_positions()])

    def _check_criterion(self, cfg):
        """Check the criterion's options against the labels of the data."""
        check_criterion(cfg, self.cfg, self.spec, self.num_classes)
        self._needs_labels = learns_labels(cfg)

    @staticmethod
    def logging_outputs_can_be_summed(criterion) -> bool:
        """Whether workers may add up their logs: not the lists that ``--report-mcc`` and its like are computed from."""
        if getattr(criterion, "keep_pred_and_targ", False):
            return False
        return FairseqTask.logging_outputs_can_be_summed(criterion)

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        allow_single_rows()

    # ------------------------------------------------------------ data

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """Load a split.

        Raises:
            FileNotFoundError: the folder does not have it.
            ValueError: a damaged file, sides of unequal length, or no labels where they are needed.
        """
        folder = self.folder_of(split, epoch)
        spec = self._folders[folder]
        texts = open_sides(sentence_files(folder, split, spec.sides), split)
        self.say_unknown(folder, split, texts, dict.fromkeys(texts, self.dictionary.unk()))
        targets = self._targets(folder, split, len(texts["input0"]))
        training = split == self.cfg.train_subset
        seed = self.cfg.seed if training else None
        dataset = self.make_dataset(folder, split, list(texts.values()), targets, seed)
        self.truncate(dataset, split)
        if training and self._smoother is not None:
            self._check_smoothing(folder, split)
            dataset = self._smoothed(dataset, folder, split, texts["input0"])
        self.datasets[split] = dataset

    def _smoothed(self, dataset, folder: str, split: str, tokens: Any):
        """The dataset with what its text is smoothed by."""
        tokenizer = self._folders[folder].tokenizer
        return smoothed_sentences(self._smoother, dataset, self, folder, split, tokens, tokenizer)

    def _check_smoothing(self, folder: str, split: str) -> None:
        """Before the first epoch, check the stores of the other data folders, which would end the run in a later one."""
        if self._smoothing_checked or not self._smoother.needs_store:
            return
        for other in self._folders.keys() - {folder}:
            texts = list(open_sides(sentence_files(other, split), split).values())
            self._smoothed(self.make_dataset(other, split, texts), other, split, texts[0])
        self._smoothing_checked = True

    def make_dataset(
        self,
        folder: str | None,
        split: str,
        texts: Sequence[Any],
        targets: Any = None,
        shuffle_seed: int | None = None,
    ) -> SentenceDataset:
        """Rows for the model, with what else it reads of them.

        Args:
            folder: data folder; None for rows of a table.
            split: split of the folder.
            texts: ids of one or two texts, see `SentenceDataset`.
            targets: labels, see `SentenceDataset`.
            shuffle_seed: seed of the epochs' orders, see `SentenceDataset`.
        """
        return SentenceDataset(texts, targets, self.dictionary.pad(), shuffle_seed)

    def trial_input(self) -> dict[str, Any]:
        """The model's input of a batch of one row, each text two ends of sentence, to see what a loss reaches."""
        text, count = torch.full((1, 2), self.dictionary.eos()), self.spec.texts
        return {"texts": (text,) * count, "lengths": (torch.tensor([2]),) * count}

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def _targets(self, folder: str, split: str, rows: int):
        """Labels of a split in the numbers of the model's outputs; None if there are none."""
        spec = self._folders[folder]
        targets = read_targets(folder, split, spec)
        if targets is None:
            if self._needs_labels:
                raise ValueError(
                    f"split `{split}` of `{folder}` has no labels; for predictions run `fairseq-bert-kd evaluate-sentences`"
                )
            return None
        check_parallel(split, rows, len(targets), ("input0", "label"))
        check_same_task(self.spec, spec, (CHECKPOINT, f"data folder `{folder}`"))
        return None if self.spec.kind == UNLABELLED else translated(targets, spec, self.spec)

    @property
    def row_limit(self) -> int | None:
        """Tokens of a row that model, teacher and ``--max-positions`` allow; None without a limit."""
        return _smallest([self.cfg.max_positions, self._model_positions])

    def truncate(self, dataset: SentenceDataset, name: str) -> None:
        """Cut rows to what the model reads, and count them in the log."""
        limit = self.row_limit
        if limit is not None and (cut := dataset.truncate(limit)):
            logger.warning(
                "%s: %d of %d rows (%.2f %%) were cut to %d tokens (the model's or its teacher's positions, or --max-positions), the longer "
                "text first",
                name,
                cut,
                len(dataset),
                100.0 * cut / len(dataset),
                limit,
            )

    def filter_indices_by_size(self, indices, dataset, max_positions=None, ignore_invalid_inputs=False):
        """All rows: those that the model cannot read whole were cut when they were loaded.

        Raises:
            ValueError: a row is longer than ``--max-tokens``; fairseq would leave it out without a word.
        """
        limit, longest = _smallest(max_positions), int(dataset.sizes.max(initial=0))
        if limit is not None and longest > limit:
            raise ValueError(
                f"the longest row has {longest} tokens, more than a batch of --max-tokens {limit} can hold; raise it, or "
                "cut the rows with --max-positions"
            )
        return indices

    def max_positions(self):
        """No limit of the task's own: rows are cut when they are loaded."""
        return None


def _smallest(positions: int | Sequence[int | None] | None) -> int | None:
    """The smallest of some limits, as fairseq gives those of a model: one number or several, None for no limit."""
    if positions is None or isinstance(positions, int):
        return positions
    return min((limit for limit in positions if limit is not None), default=None)
