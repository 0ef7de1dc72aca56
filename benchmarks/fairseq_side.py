"""C-MLM training as ``fairseq-train`` does it: fairseq's own Trainer with our task, model and criterion."""

import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from fairseq import options, tasks
from fairseq.data import Dictionary, indexed_dataset
from fairseq.data.iterators import GroupedIterator
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from torch import Tensor

from benchmarks.dump_throughput import CLS, MASK, SEP, SHAPES, make_pairs
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.tokenization.dictionary import dictionary_digests

MASK_PROB, SEED = 0.15, 1
LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY, CLIP_NORM = 5e-5, (0.9, 0.98), 1e-8, 0.01, 1.0
PAIR_FORMAT = TextFormat(prefix=(CLS,), middle=(SEP,), mask=MASK, pad=0)


@dataclass(frozen=True)
class Setup:
    """What is trained on what.

    Attributes:
        shape: of the model, a name in ``SHAPES``.
        vocabulary: size of the model's vocabulary and of both dictionaries.
        sentences: pairs of the corpus; an epoch is all of them once.
        max_tokens: source and target tokens of a batch, as ``--max-tokens``.
        dropout: of hidden states and attention.
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


class Clock:
    """Seconds from the end of step ``warm_up`` to the end of step ``steps``."""

    def __init__(self, warm_up: int, steps: int, device: torch.device):
        assert 0 < warm_up < steps, (warm_up, steps)
        self.marks, self.device = (warm_up, steps), device
        self.done = 0
        self.times: list[float] = []

    def step_done(self) -> None:
        self.done += 1
        if self.done in self.marks:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        start, end = self.times
        return end - start


def write_data(folder: Path, setup: Setup) -> None:
    """Pairs with the lengths of talks, as fairseq-preprocess leaves them."""
    dictionary = Dictionary()
    for index in range(setup.vocabulary - len(dictionary)):
        dictionary.add_symbol(f"w{index}")
    sides = make_pairs(setup.sentences, setup.vocabulary, "talks")
    for language, side in zip("ab", sides, strict=True):
        dictionary.save(str(folder / f"dict.{language}.txt"))
        prefix = folder / f"train.a-b.{language}"
        builder = indexed_dataset.make_builder(f"{prefix}.bin", "mmap", vocab_size=setup.vocabulary)
        for index in range(len(side)):
            builder.add_item(torch.from_numpy(side[index]))
        builder.finalize(f"{prefix}.idx")


class OurSide:
    """fairseq's Trainer on what `write_data` wrote.

    Args:
        folder: that it wrote to.
        setup: that it was given.

    Attributes:
        indices: sentences of each batch of an epoch, in the order of training.
        tokens: source and target tokens of each batch.
        masked: masked positions of each batch.
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
        self._first = samples[0]
        self.indices = [sample["id"].tolist() for sample in samples]
        self.tokens = [sample["ntokens"] for sample in samples]
        self.masked = [int(sample["net_input"]["masked"].sum()) for sample in samples]

    def batches(self) -> Any:
        """Collated batches of the first epoch, in its order."""
        epoch = self.trainer.get_train_iterator(epoch=1, load_dataset=False, disable_iterator_cache=True)
        return epoch.next_epoch_itr(shuffle=True)

    def train_epoch(self, clock: Clock) -> None:
        """One update for each batch, as in the loop of fairseq-train."""
        for samples in GroupedIterator(self.batches(), 1):
            with metrics.aggregate("train_inner"):
                self.trainer.train_step(samples)
            clock.step_done()

    @torch.no_grad()
    def first_loss(self) -> float:
        """Of the first batch without dropout, nats for each masked position."""
        sample, _ = self.trainer._prepare_sample(self._first)
        loss, count, _ = self.criterion(self.model.eval(), sample)
        return float(loss) / count

    def watch(self, seen: Callable[[float, int], None]) -> None:
        """Call ``seen`` with mean loss and masked positions of every batch."""

        def hook(_module: Any, _inputs: Any, out: Any) -> None:
            loss, count, _ = out
            seen(loss.item() / count, count)

        self.criterion.register_forward_hook(hook)


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
