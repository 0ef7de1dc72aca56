"""C-MLM training as ``fairseq-train`` does it: fairseq's own Trainer with our task, model and criterion."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from fairseq import options, tasks
from fairseq.data import Dictionary
from fairseq.data.iterators import GroupedIterator
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from torch import Tensor

from benchmarks.dump import CLS, MASK, SEP, SHAPES
from benchmarks.synthetic import make_pairs, write_corpus
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.tokenization.dictionary import dictionary_digests

MASK_PROB, SEED = 0.15, 1
LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY, CLIP_NORM = 5e-5, (0.9, 0.98), 1e-8, 0.01, 1.0
PAIR_FORMAT = TextFormat(prefix=(CLS,), middle=(SEP,), mask=MASK, pad=0)


@dataclass(frozen=True)
class Setup:
    """What is trained on what.

    Attributes:
        shape: shape of the model, a name in ``SHAPES``.
        vocabulary: size of the model's vocabulary and of both dictionaries.
        sentences: number of pairs of the corpus; an epoch is all of them once.
        max_tokens: source and target tokens of a batch, as ``--max-tokens``.
        dropout: dropout of hidden states and attention.
        amp: automatic mixed precision in fp16 with loss scaling; else fp32.
        workers: processes that collate.
    """

    shape: str
    vocabulary: int
    sentences: int
    max_tokens: int
    dropout: float = 0.1
    amp: bool = False
    workers: int = 0

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def config(self) -> transformers.BertConfig:
        return transformers.BertConfig(
            vocab_size=self.vocabulary,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            tie_word_embeddings=False,  # as ours, whose output layer is the student's dictionary
            **SHAPES[self.shape],
        )


def write_data(folder: Path, setup: Setup) -> None:
    """Write pairs with the lengths of talks, as fairseq-preprocess does."""
    dictionary = Dictionary()
    for index in range(setup.vocabulary - len(dictionary)):
        dictionary.add_symbol(f"w{index}")
    for language in "ab":
        dictionary.save(str(folder / f"dict.{language}.txt"))
    pairs = make_pairs(setup.sentences, setup.vocabulary, "talks")
    write_corpus((folder / "train.a-b.a", folder / "train.a-b.b"), pairs, setup.vocabulary)


class TeacherSide:
    """fairseq's Trainer on what `write_data` wrote.

    Args:
        folder: the folder that it wrote to.
        setup: the setup that it was given.

    Attributes:
        indices: sentences of each batch of an epoch, in the order of training.
        tokens: number of source and target tokens of each batch.
        masked: number of masked positions of each batch.
        ready: the batches, on the device.
    """

    def __init__(self, folder: Path, setup: Setup):
        importlib.import_module("fairseq_bert_kd.tasks")
        cfg = convert_namespace_to_omegaconf(_fairseq_arguments(folder, setup))
        self.setup, task = setup, tasks.setup_task(cfg.task)
        torch.manual_seed(0)
        model = task.build_model(cfg.model)
        model.source_to_teacher.copy_(teacher_ids(setup.vocabulary))
        model.target_to_teacher.copy_(teacher_ids(setup.vocabulary))
        self.criterion = task.build_criterion(cfg.criterion)
        self.trainer = Trainer(cfg, task, model, self.criterion)
        self.model = self.trainer.model
        self.trainer.get_train_iterator(epoch=1)  # loads the data
        samples = list(self.batches())
        self.ready = [self.trainer._prepare_sample(sample)[0] for sample in samples]
        self.indices = [sample["id"].tolist() for sample in samples]
        self.tokens = [sample["ntokens"] for sample in samples]
        self.masked = [int(sample["net_input"]["masked"].sum()) for sample in samples]

    def batches(self) -> Any:
        """Collated batches of the first epoch, in its order."""
        epoch = self.trainer.get_train_iterator(epoch=1, load_dataset=False, disable_iterator_cache=True)
        return epoch.next_epoch_itr(shuffle=True)

    def train_epoch(self) -> None:
        """One update for each batch, as in the loop of fairseq-train."""
        for samples in GroupedIterator(self.batches(), 1):
            with metrics.aggregate("train_inner"):
                self.trainer.train_step(samples)

    def bare_epoch(self) -> None:
        """Forward, backward and update alone, on batches that lie ready."""
        optimizer = self.trainer.optimizer
        for batch in self.ready:
            with torch.autocast(self.setup.device.type, torch.float16, enabled=self.setup.amp):
                loss, size, _ = self.criterion(self.model, batch)
            optimizer.backward(loss / size)
            optimizer.step()
            optimizer.zero_grad()


def teacher_ids(vocabulary: int) -> Tensor:
    """``(vocabulary,)`` id in the model of each symbol: its own, and the closing ``[SEP]`` for end of sentence."""
    ids = torch.arange(vocabulary)
    ids[Dictionary().eos()] = SEP
    return ids


def _fairseq_arguments(folder: Path, setup: Setup) -> Any:
    dictionary = Dictionary.load(str(folder / "dict.a.txt"))
    spec = {
        "config": json.loads(setup.config().to_json_string(use_diff=False)),
        "pair_format": PAIR_FORMAT.to_dict(),
        "digests": dictionary_digests(dictionary, dictionary),
    }
    words = [
        folder, "--task", "conditional_masked_lm", "--source-lang", "a", "--target-lang", "b", "--seed", SEED,
        "--arch", "hf_masked_lm", "--teacher-spec", json.dumps(spec), "--cmlm-mask-prob", MASK_PROB,
        "--criterion", "conditional_masked_lm", "--optimizer", "adam", "--adam-betas", BETAS, "--adam-eps", EPSILON,
        "--weight-decay", WEIGHT_DECAY, "--clip-norm", CLIP_NORM, "--lr", LEARNING_RATE, "--lr-scheduler", "fixed",
        "--max-tokens", setup.max_tokens, "--num-workers", setup.workers, "--distributed-world-size", 1,
        *(["--cpu"] if setup.device.type == "cpu" else []), *(["--amp"] if setup.amp else []),
    ]  # fmt: skip
    return options.parse_args_and_arch(options.get_training_parser(), [str(word) for word in words])
