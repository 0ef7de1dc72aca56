"""Tokens per second of C-MLM training as fairseq-train does it, and against bare steps on batches that lie ready.

The model has MiniLM-L6-H384's shape with random weights, which cost what trained ones cost, and sentences are as long as
those of talks; fp32 on a CPU, fp16 autocast on a GPU, and bfloat16 autocast beside them. Tokens are those of source and target,
without special ones. Reading, masking and collating batches, clipping and logging are part of training and not of a bare step
(forward, backward, Adam).
"""

import contextlib
import importlib
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from fairseq import options, tasks
from fairseq.data.iterators import GroupedIterator
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.dump import SEP, SHAPES, TEXT_FORMAT
from benchmarks.synthetic import make_dictionary, make_pairs, write_corpus
from benchmarks.table import Length, Row, at_least, spread
from benchmarks.timing import in_turns, processor_clock, ratios
from fairseq_bert_kd.modules.pretrained_encoder import EncoderSpec
from fairseq_bert_kd.tokenization.dictionary import dictionary_digests

GOAL = 0.85  # of the bare steps' rate
PRODUCTS = 10  # of large matrices, whose speed stands for the device's
PRECISIONS = {  # options of training, and the type of its matrix products
    "fp32": ([], torch.float32),
    "fp16 autocast": (["--amp"], torch.float16),
    "bf16 autocast": (["--autocast", "bf16"], torch.bfloat16),
}
UTILISATION = "model FLOPs per second, over those of a large matrix product"


@dataclass(frozen=True)
class Setup:
    """What is trained on what.

    Attributes:
        shape: shape of the model, a name in ``SHAPES``.
        vocabulary: size of the model's vocabulary and of both dictionaries.
        sentences: number of pairs of the corpus; an epoch is all of them once.
        max_tokens: source and target tokens of a batch, as ``--max-tokens``.
        workers: processes that collate.
        precision: a key of ``PRECISIONS``.
    """

    shape: str
    vocabulary: int
    sentences: int
    max_tokens: int
    workers: int = 0
    precision: str = "fp32"


class TeacherTraining:
    """fairseq's own Trainer with our task, model and criterion, on pairs with the lengths of talks.

    Args:
        folder: folder for the data.
        setup: what is trained on what.

    Attributes:
        indices: sentences of each batch of an epoch, in the order of training.
        tokens: number of source and target tokens of an epoch.
        ready: the batches, on the device.
    """

    def __init__(self, folder: Path, setup: Setup):
        importlib.import_module("fairseq_bert_kd.tasks")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = PRECISIONS[setup.precision][1]
        dictionary = make_dictionary(setup.vocabulary)
        for language in "ab":
            dictionary.save(str(folder / f"dict.{language}.txt"))
        pairs = make_pairs(setup.sentences, setup.vocabulary)
        write_corpus((folder / "train.a-b.a", folder / "train.a-b.b"), pairs, setup.vocabulary)
        config = transformers.BertConfig(vocab_size=setup.vocabulary, **SHAPES[setup.shape])
        settings = json.loads(config.to_json_string(use_diff=False))
        spec = EncoderSpec(
            settings, TEXT_FORMAT, dictionary_digests({"source": dictionary, "target": dictionary})
        )
        cfg = convert_namespace_to_omegaconf(_fairseq_arguments(folder, setup, spec, self.device))
        task = tasks.setup_task(cfg.task)
        torch.manual_seed(0)
        model = task.build_model(cfg.model)
        ids = torch.arange(setup.vocabulary)  # each symbol's own
        ids[dictionary.eos()] = SEP  # the token that closes the model's input
        model.source_to_teacher.copy_(ids)
        model.target_to_teacher.copy_(ids)
        self.criterion = task.build_criterion(cfg.criterion)
        self.trainer = Trainer(cfg, task, model, self.criterion)
        self.model = self.trainer.model
        self.trainer.get_train_iterator(epoch=1)  # loads the data
        samples = list(self.batches())
        self.ready = [self.trainer._prepare_sample(sample)[0] for sample in samples]
        self.indices = [sample["id"].tolist() for sample in samples]
        self.tokens = sum(sample["ntokens"] for sample in samples)

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
            with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
                loss, size, _ = self.criterion(self.model, batch)
            optimizer.backward(loss / size)
            optimizer.step()
            optimizer.zero_grad()


def _fairseq_arguments(folder: Path, setup: Setup, spec: EncoderSpec, device: str) -> Any:
    words = [
        folder, "--task", "conditional_masked_lm", "--source-lang", "a", "--target-lang", "b", "--seed", 1,
        "--arch", "hf_masked_lm", "--teacher-spec", spec.to_json(), "--cmlm-mask-prob", 0.15,
        "--criterion", "conditional_masked_lm", "--optimizer", "adam", "--adam-betas", (0.9, 0.98),
        "--weight-decay", 0.01, "--clip-norm", 1.0, "--lr", 5e-5, "--lr-scheduler", "fixed",
        "--max-tokens", setup.max_tokens, "--num-workers", setup.workers, "--distributed-world-size", 1,
        *(["--cpu"] if device == "cpu" else []), *PRECISIONS[setup.precision][0],
    ]  # fmt: skip
    return options.parse_args_and_arch(options.get_training_parser(), [str(word) for word in words])


def large_matrix(device: str, dtype: torch.dtype) -> torch.Tensor:
    """A square matrix in the precision of training."""
    size = 8192 if device == "cuda" else 1024
    return torch.ones(size, size, device=device, dtype=dtype)


def described(setup: Setup, device: str) -> str:
    """What is trained, for the table."""
    return f"{setup.shape}, dictionary {setup.vocabulary:,}, batches of {setup.max_tokens:,}, {setup.precision}, {device}"


def measure(setup: Setup, rounds: int) -> list[Row]:
    """Rates, their ratio, and how much of the device's arithmetic training uses."""
    with tempfile.TemporaryDirectory() as folder:
        training = TeacherTraining(Path(folder), setup)
        matrix = large_matrix(training.device, training.dtype)
        products = lambda: [matrix @ matrix for _ in range(PRODUCTS)]  # noqa: E731
        ways = {"bare": training.bare_epoch, "train": training.train_epoch, "products": products}
        times = in_turns(ways, rounds)
        with FlopCounterMode(display=False) as counter:
            training.bare_epoch()
    what = described(setup, training.device)
    rates = [training.tokens / one for one in times["train"]]
    shares = ratios(times["bare"], times["train"])
    # of an epoch, in that of the products
    arithmetic = counter.get_total_flops() / (PRODUCTS * 2 * len(matrix) ** 3)
    used = [arithmetic * share for share in ratios(times["products"], times["train"])]
    return [
        Row("teacher training", f"{what}: tokens/s", spread(rates, ",.0f")),
        at_least("teacher training", f"{what}: over bare steps, tokens/s", shares, GOAL),
        Row("teacher training", f"{what}: {UTILISATION}", spread(used, ".2f")),
    ]


def compare(setup: Setup, rounds: int) -> list[Row]:
    """The rate in bfloat16 over that of ``setup``."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        usual = TeacherTraining(Path(first), setup)
        bfloat16 = TeacherTraining(Path(second), replace(setup, precision="bf16 autocast"))
        ways = {"usual": usual.train_epoch, "bfloat16": bfloat16.train_epoch}
        times = in_turns(ways, rounds, processor_clock(usual.device))
    what = f"{described(setup, usual.device)}: with bf16 autocast over it, tokens/s"
    return [Row("teacher training", what, spread(ratios(times["usual"], times["bfloat16"]), ".2f"))]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without fairseq's reports."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def run(length: Length) -> list[Row]:
    """All rows, or those of a length."""
    rounds = 2 if length is Length.SHORT else 5
    with quiet():
        if length is Length.QUICK:
            setup = Setup("tiny", 1000, 100, 512)
            return [*measure(setup, rounds=1), *compare(setup, rounds=1)]
        if torch.cuda.is_available():  # --max-tokens of the README
            setup = Setup("minilm", 30522, 60_000, 16384, workers=2, precision="fp16 autocast")
        else:
            setup = Setup("minilm", 30522, 200, 4096)
        fewer = replace(setup, sentences=setup.sentences // 4)  # whose batches are made twice
        return [*measure(setup, rounds), *compare(fewer if torch.cuda.is_available() else setup, rounds)]
