"""One step with all of TinyBERT's layer losses: over the same step by transformers' own outputs, and over the bare models.

A step is the frozen teacher's forward pass and the student's forward and backward pass, on batches of full sentences; the
optimiser, which is the same for all, is left out. "By outputs" is what transformers offers: eager attention with
``output_hidden_states`` and ``output_attentions``, so its attention loss is of probabilities after softmax; TinyBERT's scores
before it are not to be had that way. "Bare" has no loss but the sum of the student's last hidden states. On a CPU the time is the
processor's. Memory is above parameters and batch.
"""

import statistics
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from benchmarks.dump import SEP, SHAPES, TEXT_FORMAT
from benchmarks.synthetic import make_dictionary
from benchmarks.table import Length, Row, at_most, spread
from benchmarks.timing import in_turns, processor_clock, ratios
from benchmarks.training_memory import peak_during
from fairseq_bert_kd.criterions.layer_distillation import LayerDistillationCriterion
from fairseq_bert_kd.criterions.layer_distillation_options import LayerDistillationConfig
from fairseq_bert_kd.models.hf_encoder import HfEncoder
from fairseq_bert_kd.modules.sentence_classifier import take_apart
from fairseq_bert_kd.teachers.layer_teacher import LiveLayerTeacher

GOAL_TIME, GOAL_MEMORY, GOAL_OVER_BARE = 0.8, 0.7, 1.15
STUDENTS = {
    "tiny": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "minilm": {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 12, "intermediate_size": 768},
}  # fmt: skip
LONG = 128  # tokens; goals against outputs are for sentences of this length
OURS, OUTPUTS, BARE = "ours", "by outputs", "bare"


@dataclass(frozen=True)
class Setting:
    """What is trained, and on what.

    Attributes:
        shape: of the teacher, and of the student beside it.
        vocabulary: size of both models' vocabulary.
        length: tokens of every sentence, special ones included.
        sentences: sentences of a batch.
        device: "cpu" or "cuda".
    """

    shape: str
    vocabulary: int
    length: int
    sentences: int
    device: str


class LayerStep:
    """The same step in three ways.

    Attributes:
        student: model in training.
        criterion: ours, with a teacher.
    """

    def __init__(self, setting: Setting):
        torch.manual_seed(0)
        self.setting = setting
        dictionary = make_dictionary(setting.vocabulary)
        trial = {"texts": (torch.full((1, 2), dictionary.eos()),), "lengths": (torch.tensor([2]),)}
        teacher = make_encoder(SHAPES[setting.shape], setting)
        self.student = make_encoder(STUDENTS[setting.shape], setting)
        task = SimpleNamespace(
            num_classes=0,
            source_dictionary=dictionary,
            teacher=LiveLayerTeacher(teacher),
            starts_from=None,
            trial_input=lambda: trial,
        )
        self.teacher = task.teacher
        self.criterion = LayerDistillationCriterion(LayerDistillationConfig(layer_stage="general"), task)
        self.criterion.prepare(self.student)
        self.student.to(setting.device).train()
        self.batch = make_batch(setting, dictionary)

    def ways(self) -> dict[str, Any]:
        """Each way's step by name."""
        return {OURS: self.ours, OUTPUTS: self.by_outputs, BARE: self.bare}

    def ours(self) -> Tensor:
        """The criterion."""
        return self._backward(self.criterion(self.student, self.batch)[0])

    def by_outputs(self) -> Tensor:
        """Losses of what eager attention and the output options of transformers give."""
        return self._backward(sum(self.losses_by_outputs(*self.outputs()).values()))

    def outputs(self) -> tuple[Any, Any]:
        """Outputs of the student's and the teacher's encoder with eager attention."""
        encoders = (self.student.encoder, self.teacher.model.encoder)
        given = self.student.lay_out(**self.batch["net_input"])._asdict()
        del given["positions"]
        asked = {"output_hidden_states": True, "output_attentions": True}
        for encoder in encoders:
            encoder.set_attn_implementation("eager")
        try:
            with torch.no_grad():
                teacher = encoders[1](**given, **asked)
            return encoders[0](**given, **asked), teacher
        finally:
            for encoder in encoders:
                encoder.set_attn_implementation("sdpa")

    def losses_by_outputs(self, student: Any, teacher: Any) -> dict[str, Any]:
        """Losses of hidden states and of attention from the outputs of both encoders."""
        step = self.teacher.layers // self.student.encoder.config.num_hidden_layers
        projections = [self.student.projections[name] for name in self.criterion.projections]
        hidden, attention = zip(student.hidden_states, projections, strict=True), student.attentions
        return {
            "hidden": sum(
                F.mse_loss(project(states), teacher.hidden_states[layer * step])
                for layer, (states, project) in enumerate(hidden)
            ),
            "attention": sum(
                F.mse_loss(probs, teacher.attentions[layer * step - 1])
                for layer, probs in enumerate(attention, start=1)
            ),
        }

    def bare(self) -> Tensor:
        """Both models without a loss between them."""
        net_input = self.batch["net_input"]
        with torch.no_grad():
            self.teacher.model(**net_input)
        return self._backward(self.student(**net_input)[0].sum())

    def _backward(self, loss: Tensor) -> Tensor:
        self.student.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach()


def make_encoder(shape: dict[str, int], setting: Setting) -> HfEncoder:
    config = transformers.BertConfig(vocab_size=setting.vocabulary, max_position_embeddings=512, **shape)
    ids = torch.arange(setting.vocabulary)
    ids[2] = SEP % setting.vocabulary  # end of sentence
    return HfEncoder(take_apart(transformers.BertModel(config)), ids, TEXT_FORMAT, {}).to(setting.device)


def make_batch(setting: Setting, dictionary: Any) -> dict[str, Any]:
    """Sentences of equal length, end of sentence included; the prefix comes on top."""
    shape = (setting.sentences, setting.length - len(TEXT_FORMAT.prefix))
    texts = torch.randint(dictionary.nspecial, setting.vocabulary, shape)
    texts[:, -1] = dictionary.eos()
    lengths = torch.full(shape[:1], shape[1])
    net_input = {"texts": (texts.to(setting.device),), "lengths": (lengths.to(setting.device),)}
    return {"net_input": net_input, "nsentences": shape[0], "ntokens": texts.numel()}


def measure(setting: Setting, rounds: int) -> list[Row]:
    """Rows for one setting."""
    step = LayerStep(setting)
    ways = step.ways()
    on_cpu = setting.device == "cpu"
    times = in_turns(ways, rounds, processor_clock(setting.device))
    memory = {name: peak_during(setting.device, way) for name, way in ways.items()}
    where = (
        f"{setting.shape}, {setting.sentences} sentences of {setting.length} tokens, fp32, {setting.device}"
    )
    unit = "processor ms" if on_cpu else "ms"
    figures = f"{statistics.median(times[OURS]) * 1000:,.0f} {unit}; {memory[OURS]:,.0f} MiB"
    over_outputs, over_bare = (ratios(times[OURS], times[other]) for other in (OUTPUTS, BARE))
    memory_over_outputs = [memory[OURS] / memory[OUTPUTS]]
    name, long = "layer-distillation", setting.length >= LONG
    rows = [
        (over_outputs, "time over the step by outputs", GOAL_TIME if long else None),
        (memory_over_outputs, "peak memory over the step by outputs", GOAL_MEMORY if long else None),
        (over_bare, "time over the bare teacher and student", GOAL_OVER_BARE),
    ]
    return [
        Row(name, f"{where}: a step; its peak memory", figures),
        *(
            Row(name, f"{where}: {what}", spread(values, ".2f"))
            if goal is None
            else at_most(name, f"{where}: {what}", values, goal)
            for values, what, goal in rows
        ),
    ]


def run(length: Length) -> list[Row]:
    """All rows for this machine's device."""
    if length is Length.QUICK:
        return measure(Setting("tiny", 1000, 16, 2, "cpu"), rounds=1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rounds = 5 if length is Length.SHORT else 10
    sizes = [(128, 256), (32, 1024)] if device == "cuda" else [(128, 32), (32, 32)]
    return [row for size in sizes for row in measure(Setting("minilm", 30522, *size, device), rounds)]
