"""Option ``--autocast``: what runs in bfloat16 and what does not, and what it is refused beside."""

import argparse
import json
import logging
import math

import pytest
import torch
from fairseq.tasks import FairseqTask
from torch import nn

from fairseq_bert_kd.data.run_hints import say_autocast
from fairseq_bert_kd.models.sentence_lstm import SentenceLstm
from fairseq_bert_kd.modules.autocast import AutocastTraining, check_device, fused_attention
from tests import rewarded_generators, tiny_sentences
from tests.tiny_chain import logged, train_student, train_teacher

LOG = ("--log-interval", 1, "--log-format", "simple")


class Task(AutocastTraining, FairseqTask):
    pass


class Student(nn.Linear):
    def set_num_updates(self, updates):
        pass


class Optimizer:
    def backward(self, loss):
        loss.backward()


class Recorder(nn.Module):
    """In the place of an LSTM: gives back its input, and notes whether autocast is on."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, inputs):
        self.seen.append(torch.is_autocast_enabled("cpu"))
        return inputs, None


def products(model, sample):
    """A criterion that notes the type of the model's products."""
    output = model(sample["states"])
    products.seen.append(output.dtype)
    return output.float().sum(), 1, {}


@pytest.fixture(autouse=True)
def _nothing_seen():
    products.seen = []


@pytest.mark.parametrize(("autocast", "expected"), [("bf16", torch.bfloat16), ("none", torch.float32)])
def test_the_forward_pass_of_training_alone_is_cast(autocast, expected):
    task, model = Task(argparse.Namespace(autocast=autocast)), Student(3, 2)
    states = torch.ones(1, 3)
    task.train_step({"states": states}, model, products, Optimizer(), 0)
    task.valid_step({"states": states}, model, products)
    assert products.seen == [expected, torch.float32]
    assert model.weight.dtype == model.weight.grad.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
    with task.precision(Optimizer(), torch.device("cpu")):
        assert model(states).dtype == expected


class Recurrent(Student):
    """A linear layer at every token, the last state of an LSTM."""

    def __init__(self):
        super().__init__(1, 1)
        self.cell = nn.LSTMCell(4, 8)

    def forward(self, states):
        state = torch.zeros(states.size(1), 8), torch.zeros(states.size(1), 8)
        total = states.new_zeros(())
        for tokens in states:
            state = self.cell(tokens, state)
            total = total + state[0].float().sum()
        return total


def test_gradients_of_recurrent_weights_are_added_up_in_float32():
    """Those of 200 tokens: in bfloat16 they lose what each token adds to a large sum."""
    torch.manual_seed(0)
    model, sample = Recurrent(), {"states": torch.randn(200, 16, 4)}
    gradients = {}
    for autocast in ("none", "bf16"):
        model.zero_grad()
        Task(argparse.Namespace(autocast=autocast)).train_step(sample, model, products, Optimizer(), 0)
        gradients[autocast] = {name: weight.grad.clone() for name, weight in model.cell.named_parameters()}
    for name, expected in gradients["none"].items():
        assert (gradients["bf16"][name] - expected).norm() < 0.02 * expected.norm(), name


class Attention(Student):
    """Self-attention, which notes how it was computed."""

    def forward(self, states):
        states = self.weight * states[:, None]
        output = nn.functional.scaled_dot_product_attention(states, states, states)
        kernel = type(output.grad_fn).__name__
        self.fused = "Flash" in kernel
        return output


@pytest.mark.parametrize(
    ("net_input", "autocast", "fused"),
    [
        ({"src_tokens": torch.ones(2, 128), "prev_output_tokens": torch.ones(2, 128)}, "bf16", False),
        ({"src_tokens": torch.ones(2, 128), "prev_output_tokens": torch.ones(2, 129)}, "bf16", True),
        ({"texts": (torch.ones(2, 200), torch.ones(2, 56))}, "bf16", False),
        ({"texts": (torch.ones(2, 200), torch.ones(2, 57))}, "bf16", True),
        ({"src_tokens": torch.ones(2, 3)}, "none", True),
    ],
    ids=["short pairs", "long pairs", "short texts", "long texts", "float32"],
)
def test_attention_of_short_rows_is_not_fused_in_bfloat16_on_a_cpu(net_input, autocast, fused):
    """There torch's fused kernel is slow (`python -m benchmarks attention`)."""
    task, model = Task(argparse.Namespace(autocast=autocast)), Attention(8, 1)
    sample = {"states": torch.randn(2, 5, 8), "net_input": net_input}
    task.train_step(sample, model, products, Optimizer(), 0)
    assert model.fused == fused
    assert torch.backends.cuda.flash_sdp_enabled()  # what others compute afterwards is left as it was


def test_attention_is_left_to_torch_on_a_gpu():
    assert fused_attention({"net_input": {"src_tokens": torch.ones(2, 3)}}, "cuda")


def loss(messages):
    """The loss of the first update."""
    (line,) = [message for message in messages if "num_updates=1," in message]
    return float(line.split(" loss=")[1].split(",")[0])


def trained(train, folder):
    """Losses and weights in float32 and in bfloat16, by a function of a folder and an option."""
    found = {}
    for autocast in ("none", "bf16"):
        with logged("train_inner") as messages:
            checkpoint = train(folder / autocast, "--autocast", autocast, *LOG)
        weights = torch.load(checkpoint, weights_only=True)["model"]
        found[autocast] = loss(messages), weights
    return found


def check(found, tolerance=0.03):
    """bfloat16 computes nearly the same, and not the same; weights stay float32."""
    (usual, weights), (cast, cast_weights) = found["none"], found["bf16"]
    assert math.isfinite(cast)
    assert cast == pytest.approx(usual, rel=tolerance)
    floats = {name for name, weight in weights.items() if weight.is_floating_point()}
    assert all(cast_weights[name].dtype == weights[name].dtype for name in weights)
    assert all(cast_weights[name].isfinite().all() for name in floats)
    assert any(not torch.equal(cast_weights[name], weights[name]) for name in floats)


def test_a_teacher(chain, tmp_path):
    check(trained(lambda *words: train_teacher(chain.data, chain.bert, *words), tmp_path))


@pytest.mark.parametrize(
    "options", [(), ("--kd-projection", "plain"), ("--rdrop-weight", 1, "--dropout", 0.1)], ids=str
)
def test_a_student(chain, tmp_path, options):
    found = trained(lambda folder, *words: train_student(chain.data, folder, *options, *words), tmp_path)
    check(found, tolerance=0.1 if "--dropout" in options else 0.03)  # another type may draw another dropout


def test_a_live_teacher_is_cast_too(chain, tmp_path, monkeypatch):
    from fairseq_bert_kd.teachers.live import LiveTeacher

    seen = []
    real = LiveTeacher.teacher_batch

    def note(self, *arguments, **settings):
        seen.append(torch.is_autocast_enabled("cpu"))
        return real(self, *arguments, **settings)

    monkeypatch.setattr(LiveTeacher, "teacher_batch", note)
    live = ("--kd-live-teacher", chain.teacher)
    check(trained(lambda folder, *words: train_student(chain.data, folder, *live, *words), tmp_path))
    assert seen == [False, False, True, True]
    train_student(chain.data, tmp_path / "warm-up", *live, "--kd-warmup-updates", 2, updates=3)
    assert len(seen) == 5  # it does not run while it has no weight


@pytest.mark.parametrize(
    "model", [rewarded_generators.TINY, rewarded_generators.LSTM], ids=["transformer", "lstm"]
)
def test_samples_are_cast_as_their_scores_are(chain, tmp_path, monkeypatch, model):
    from fairseq_bert_kd.rewards.rewarded_samples import RewardedSampler

    seen = []
    real = RewardedSampler.rewarded_batch

    def note(self, *arguments):
        seen.append(torch.is_autocast_enabled("cpu"))
        return real(self, *arguments)

    monkeypatch.setattr(RewardedSampler, "rewarded_batch", note)
    with logged("train_inner") as messages:
        checkpoint = rewarded_generators.train(
            chain.data,
            tmp_path,
            "--rl-reward",
            "bleu",
            "--autocast",
            "bf16",
            tokenizer=chain.bert,
            model=model,
        )
    entropies = [float(json.loads(message)["entropy"]) for message in messages]
    assert len(entropies) == 2
    assert all(0 < entropy < math.log(100) for entropy in entropies)
    assert seen == [True, True]
    weights = torch.load(checkpoint, weights_only=True)["model"].values()
    assert all(weight.isfinite().all() for weight in weights)


def test_sentences(chain, tmp_path):
    table = tiny_sentences.write_table(tmp_path / "table.tsv", 24)
    words = ("--columns", "text", "--label-column", "label", "--full-dictionary")
    assert (
        tiny_sentences.prepare(chain.bert, tmp_path / "data", *words, "--train", table, "--valid", table) == 0
    )
    check(trained(lambda *words: tiny_sentences.train(tmp_path / "data", *words), tmp_path))


@pytest.mark.parametrize("option", ["--fp16", "--bf16", "--amp", "--checkpoint-activations"])
def test_refused_beside(chain, tmp_path, option):
    with pytest.raises(ValueError, match=f"{option} .*leave one of them out"):
        train_student(chain.data, tmp_path, "--autocast", "bf16", option)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "said"),
    [("--fp16", "needs a GPU, .* --autocast bf16"), ("--bf16", "is for TPUs .* --autocast bf16")],
)
def test_half_precision_that_fairseq_cannot_compute_here(chain, tmp_path, monkeypatch, option, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"{option} {said}"):
        train_student(chain.data, tmp_path, option)
    assert not list(tmp_path.iterdir())


def test_a_gpu_without_bfloat16_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    check_device.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    with pytest.raises(ValueError, match="8.0 or higher.*Tesla V100 has none; take --amp"):
        check_device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "warned", "hinted"),
    [
        ({"avx512_bf16": True}, False, True),
        ({"amx_bf16": True}, False, True),
        ({"avx2": True}, True, False),
        (None, False, False),
    ],
)
def test_what_is_said_of_a_cpu(monkeypatch, caplog, capabilities, warned, hinted):
    """None: a torch that does not list what the CPU can do."""
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    check_device.cache_clear()
    with caplog.at_level(logging.INFO):
        check_device("cpu")
        assert ("no instructions for bfloat16" in caplog.text) is warned
        caplog.clear()
        say_autocast("cpu", "none")
        assert ("--autocast bf16 trains most models faster" in caplog.text) is hinted
        caplog.clear()
        say_autocast("cpu", "bf16")
        say_autocast("cuda", "none")
        assert not caplog.text


def test_an_lstm_is_float32_on_a_cpu_without_bfloat16(monkeypatch):
    """oneDNN has no LSTM in bfloat16 there, and says so in a raw error."""
    lstm, embedded = SentenceLstm.__new__(SentenceLstm), torch.randn(2, 3, 4)
    nn.Module.__init__(lstm)
    lstm.dropout, lstm.lstm = nn.Dropout(0), Recorder()  # a real one would fail where the CPU has no bfloat16
    for has in (True, False):
        monkeypatch.setattr("fairseq_bert_kd.compat.cpu_has_bfloat16", lambda has=has: has)
        for lengths in ([3, 3], [3, 2]):
            with torch.autocast("cpu", torch.bfloat16):
                lstm._hidden(embedded, torch.tensor(lengths))
    assert lstm.lstm.seen == [True, True, False, False]
