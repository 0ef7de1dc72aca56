"""One training step on smoothed words over the same step on plain ones, for a classifier and for sources of translation.

A step is forward, loss and backward of the same model on the same batches, with what is gathered for the log; the optimiser, which
is the same for all, is left out, and so is reading the rows of the store. "Only" smooths every sentence; "both" reads each sentence
plain and smoothed in one update, so it stands beside a plain step on each sentence twice. Times on a CPU are processor time.
"""

import functools
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.criterions.sentence_prediction import SentencePredictionCriterion
from torch import Tensor

from benchmarks import layer_distillation, training_batches
from benchmarks.synthetic import make_dictionary, make_info
from benchmarks.table import Length, Row, at_most
from benchmarks.timing import in_turns, processor_clock, ratios
from benchmarks.training_batches import RowsInMemory, make_batches, make_student, make_task
from fairseq_bert_kd.batch import SMOOTHING, TeacherRequirements, twice
from fairseq_bert_kd.criterions.smoothed_sentence_prediction import (
    SmoothedSentencePredictionConfig,
    SmoothedSentencePredictionCriterion,
)
from fairseq_bert_kd.data.store_rows import StoreRows
from fairseq_bert_kd.modules.smoothing_options import BOTH, ONLY, SmoothingOptions
from fairseq_bert_kd.modules.source_smoothing import SourceSmoothing
from fairseq_bert_kd.modules.text_smoother import SpecialIds, TextSmoother

GOAL = 1.1
K = 16
HEAD = "sentence_classification_head"
CLASSES = 6
Ways = dict[str, Callable[[], list[Tensor]]]  # losses of a step by its schedule; plain ones under `plain_of`


def plain_of(schedule: str) -> str:
    """Name of the plain step that reads as many sentences as that of a schedule."""
    return f"plain {schedule}"


def smoothing_rows(lengths: Any, dictionary: int, width: int) -> dict[str, Any]:
    """``sample[SMOOTHING]`` of sentences of given lengths, ``(batch,)``."""
    reader: Any = RowsInMemory(make_info(K, dictionary_size=dictionary, gold=True), np.asarray(lengths))
    return StoreRows([reader], TeacherRequirements(K)).teacher_batch(np.arange(len(lengths)), width)


def on_device(sample: Any, device: str) -> Any:
    """A batch on the device."""
    if isinstance(sample, Tensor):
        return sample.to(device)
    if isinstance(sample, dict):
        return {name: on_device(value, device) for name, value in sample.items()}
    if isinstance(sample, (list, tuple)):
        return type(sample)(on_device(value, device) for value in sample)
    return sample


def backward(model: Any, loss: Tensor) -> Tensor:
    """Gradients made anew, as fairseq's optimisers do; the loss."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return loss.detach()


class Classifier:
    """A transformers encoder with a head on sentences of equal length.

    Args:
        setting: of `benchmarks.layer_distillation`.
    """

    def __init__(self, setting: layer_distillation.Setting):
        torch.manual_seed(0)
        self.where = f"classifier, {setting.shape}, {setting.sentences} sentences of {setting.length} tokens"
        dictionary = make_dictionary(setting.vocabulary)
        self.model = layer_distillation.make_encoder(layer_distillation.SHAPES[setting.shape], setting)
        self.model.register_classification_head(HEAD, CLASSES)
        self.model.to(setting.device).train()
        batch = layer_distillation.make_batch(setting, dictionary)
        width = batch["net_input"]["texts"][0].size(1)
        rows = smoothing_rows([width] * setting.sentences, setting.vocabulary, width)
        target = torch.arange(setting.sentences)[:, None] % CLASSES
        self.batch = on_device(
            {**batch, "id": torch.arange(setting.sentences), "target": target, SMOOTHING: rows},
            setting.device,
        )
        self.task = SimpleNamespace(
            source_dictionary=dictionary, label_dictionary=None, cfg=SimpleNamespace(seed=1)
        )

    def ways(self) -> Ways:
        """Each way's step by name."""
        plain = SentencePredictionCriterion(SmoothedSentencePredictionConfig(), self.task).train()
        found: Ways = {}
        for schedule, batch in ((ONLY, self.batch), (BOTH, twice(self.batch))):
            config = SmoothedSentencePredictionConfig(smoothing_schedule=schedule, smoothing_topk=K)
            smoothed = SmoothedSentencePredictionCriterion(config, self.task).train()
            found[plain_of(schedule)] = functools.partial(self._step, plain, batch)
            found[schedule] = functools.partial(self._step, smoothed, self.batch)
        return found

    def _step(self, criterion: Any, batch: dict[str, Any]) -> list[Tensor]:
        return [backward(self.model, criterion(self.model, batch)[0])]


class Translation:
    """A Transformer student on padded batches of talks.

    Args:
        setting: size, dictionary, tokens of a batch.
    """

    def __init__(self, setting: training_batches.Setting):
        self.where = f"translation, {setting.size}, dictionary {setting.dictionary:,}, batches of {setting.max_tokens} tokens"
        self.task = make_task(setting.dictionary)
        self.model: Any = make_student(setting, self.task)
        self.criterion = LabelSmoothedCrossEntropyCriterion(
            self.task, sentence_avg=False, label_smoothing=0.1
        ).train()
        self.smoothing = SourceSmoothing(self.model)
        self.batches = []
        for batch in make_batches(setting, self.task.target_dictionary):
            lengths, width = batch["net_input"]["src_lengths"], batch["net_input"]["src_tokens"].size(1)
            rows = smoothing_rows(lengths.cpu(), setting.dictionary, width)
            self.batches.append({**batch, SMOOTHING: on_device(rows, setting.device)})

    def ways(self) -> Ways:
        """Each way's step by name."""
        found: Ways = {}
        for schedule, batches in ((ONLY, self.batches), (BOTH, [twice(batch) for batch in self.batches])):
            smoother = TextSmoother(SmoothingOptions(smoothing_schedule=schedule, smoothing_topk=K), 1)
            found[plain_of(schedule)] = functools.partial(self._plain, batches)
            found[schedule] = functools.partial(self._smoothed, smoother)
        return found

    def _plain(self, batches: list[dict[str, Any]]) -> list[Tensor]:
        return [backward(self.model, self.criterion(self.model, batch)[0]) for batch in batches]

    def _smoothed(self, smoother: TextSmoother) -> list[Tensor]:
        """As the task of translation does it."""
        losses = []
        dictionary = self.task.source_dictionary
        special = SpecialIds.of(dictionary)
        for batch in self.batches:
            batch, text = smoother.smoothed_batch(batch, batch["net_input"]["src_tokens"], special)
            with self.smoothing.reading(text):
                losses.append(backward(self.model, self.criterion(self.model, batch)[0]))
            smoother.log(text, batch["net_input"]["src_tokens"])
        return losses


def measure(model: Classifier | Translation, device: str, rounds: int) -> list[Row]:
    """Rows for one model."""
    times = in_turns(model.ways(), rounds, processor_clock(device))
    where = f"{model.where}, k={K}, fp32, {device}"
    rows = []
    for schedule, against in ((ONLY, "on the same sentences"), (BOTH, "on each sentence twice")):
        plain = times[plain_of(schedule)]
        found = f"{statistics.median(plain) * 1000:,.0f} ms"
        over = f"{where}: schedule {schedule}, time of a step over the plain one"
        rows += [
            Row("text-smoothing", f"{where}: plain step {against}", found),
            at_most("text-smoothing", over, ratios(times[schedule], plain), GOAL),
        ]
    return rows


def models(length: Length, device: str) -> list[Classifier | Translation]:
    """What is measured."""
    if length is Length.QUICK:
        return [
            Classifier(layer_distillation.Setting("tiny", 1000, 16, 2, device)),
            Translation(training_batches.Setting("tiny", 1000, 200, device, batches=2)),
        ]
    cuda = device == "cuda"
    sizes = [(32, 1024), (16, 1024)] if cuda else [(32, 32), (16, 8)]
    settings = [
        training_batches.Setting(
            "base" if cuda else "small", symbols, 6144 if cuda else 800, device, batches=2
        )
        for symbols in (6_000, 30_000)
    ]
    return [
        *(Classifier(layer_distillation.Setting("minilm", 30_522, *size, device)) for size in sizes),
        *map(Translation, settings),
    ]


def run(length: Length) -> list[Row]:
    """All rows for this machine's device."""
    quick = length is Length.QUICK
    device = "cuda" if torch.cuda.is_available() and not quick else "cpu"
    rounds = {Length.QUICK: 1, Length.SHORT: 3, Length.FULL: 10}[length]
    return [row for model in models(length, device) for row in measure(model, device, rounds)]
