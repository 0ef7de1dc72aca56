"""The smoother of batches: what it waits for on a GPU, and what it hands on."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fairseq_bert_kd.batch import SMOOTHING, pack
from fairseq_bert_kd.functional.text_smoothing import smooth_embeddings
from fairseq_bert_kd.modules.smoothing_options import SmoothingOptions
from fairseq_bert_kd.modules.text_smoother import SpecialIds, TextSmoother

SPECIAL = SpecialIds(pad=1, eos=2, unk=3)
TOKENS = torch.tensor([[4, 5, 2], [6, 2, 1]])
WAITING = {"aten.nonzero.default", "aten._local_scalar_dense.default", "aten.masked_select.default"}


class Waits(TorchDispatchMode):
    """Counts operations for whose result Python waits on a GPU: values, and numbers of what a mask leaves."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        indices = args[1] if str(func).startswith("aten.index") and isinstance(args[1], (list, tuple)) else ()
        masks = [each for each in indices if each is not None and each.dtype == torch.bool]
        if str(func) in WAITING or masks:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def batch():
    """Two sentences with rows of two words a position."""
    fields = {
        "topk_ids": torch.tensor([4, 5], dtype=torch.int32).expand(2, 3, 2),
        "topk_logits": torch.zeros(2, 3, 2, dtype=torch.float16),
        "log_normalisers": torch.full((2, 3, 1), 1.4),
        "present": TOKENS.ne(SPECIAL.pad),
    }
    rows = {**pack(fields), "temperatures": (1.0,), "weight": 1.0}
    return {"id": torch.tensor([3, 7]), "nsentences": 2, "ntokens": 5, SMOOTHING: rows}


@pytest.mark.parametrize(
    "options",
    [{}, {"smoothing_schedule": "only"}, {"smoothing_schedule": "mixed"}, {"smoothing_source": "dropout"}],
)
def test_a_smoothed_batch_waits_once(options):
    """For the number of smoothed positions, however many sentences it has; random draws are made on the CPU."""
    smoother, embedding = TextSmoother(SmoothingOptions(**options), 1), torch.randn(8, 4)
    with Waits() as waits:
        _, text = smoother.smoothed_batch(batch(), TOKENS, SPECIAL)
        tokens = TOKENS.repeat_interleave(len(text.smoothed) // 2, dim=0)
        smooth_embeddings(embedding, tokens, text, tokens)
        smoother.log(text, tokens)
    assert waits.found == ["aten.nonzero.default"]


def test_a_batch_read_twice_does_not_carry_rows_twice():
    doubled, text = TextSmoother(SmoothingOptions(), 1).smoothed_batch(batch(), TOKENS, SPECIAL)
    assert SMOOTHING not in doubled
    assert doubled["id"].tolist() == [3, 3, 7, 7]
    assert text.smoothed.tolist() == [[False] * 3, [True, True, False], [False] * 3, [True, False, False]]


def test_a_position_without_a_row_and_the_normaliser_of_the_temperature():
    """exp(0 / 2 - log 4) is 1/4, of which lambda takes 0.8; at temperature 1 it would be exp(-1.4)."""
    fields = {
        "topk_ids": torch.tensor([4, 5], dtype=torch.int32).expand(2, 3, 2),
        "topk_logits": torch.zeros(2, 3, 2, dtype=torch.float16),
        "log_normalisers": torch.tensor([1.4, math.log(4)]).repeat(2, 3, 1),
        "present": torch.tensor([[True, False, True], [True, True, False]]),
    }
    rows = {**pack(fields), "temperatures": (1.0, 2.0), "weight": 1.0}
    options = SmoothingOptions(smoothing_schedule="only", smoothing_temperature=2.0, smoothing_weight=0.8)
    _, text = TextSmoother(options, 1).smoothed_batch(batch() | {SMOOTHING: rows}, TOKENS, SPECIAL)
    assert text.smoothed.tolist() == [[True, False, False], [True, False, False]]
    assert text.weights[text.smoothed].tolist() == [[pytest.approx(0.2)] * 2] * 2
    options.smoothing_special = True
    _, text = TextSmoother(options, 1).smoothed_batch(batch() | {SMOOTHING: rows}, TOKENS, SPECIAL)
    assert text.smoothed.tolist() == [[True, False, True], [True, True, False]]


@pytest.mark.parametrize(
    ("origin", "expected"), [("unigram", [0, 0, 0.75, 0.25]), ("uniform", [0, 0, 0.5, 0.5])]
)
def test_the_words_of_a_control(origin, expected):
    smoother = TextSmoother(SmoothingOptions(smoothing_source=origin, smoothing_schedule="only"), 1)
    plain = {"id": torch.tensor([3, 7])}
    assert not smoother.has_rows(plain)
    smoother.take_counts(torch.tensor([0, 0, 3, 1]))
    assert smoother.has_rows(plain)
    _, text = smoother.smoothed_batch(plain, TOKENS, SPECIAL)
    assert (text.common.tolist(), text.common_weight) == (expected, 0.5)


def test_draws_of_sentences_are_others_in_every_update():
    smoother = TextSmoother(SmoothingOptions(smoothing_schedule="mixed", smoothing_rate=0.5), 1)
    sentences, drawn = torch.arange(40), []
    for smoother.updates in (0, 1, 0):
        drawn.append(smoother._drawn(sentences).tolist())
    assert drawn[0] == drawn[2] != drawn[1]
    assert smoother._drawn(sentences.flip(0)).tolist() == drawn[2][::-1]  # of the sentence, not of its row


def test_dropped_words_are_those_of_the_text_wherever_padding_stands():
    """Sources are padded on the left in one batch and not in another; the same words are dropped."""
    smoother = TextSmoother(SmoothingOptions(smoothing_source="dropout", smoothing_schedule="only"), 1)
    words = torch.arange(4, 24)

    def dropped(tokens, present):
        fields = {
            "topk_ids": torch.full((1, tokens.size(1), 1), 30, dtype=torch.int32),
            "topk_logits": torch.zeros(1, tokens.size(1), 1, dtype=torch.float16),
            "log_normalisers": torch.zeros(1, tokens.size(1), 1),
            "present": present,
        }
        sample = {"id": torch.tensor([3]), SMOOTHING: {**pack(fields), "temperatures": (1.0,), "weight": 1.0}}
        _, text = smoother.smoothed_batch(sample, tokens, SPECIAL)
        assert (text.ids == SPECIAL.unk).all()
        return text.weights[text.smoothed][:, 0].tolist()

    alone = dropped(words[None], torch.ones(1, 20, dtype=torch.bool))
    assert 0 < sum(alone) < 20  # with lambda 0.5 about half of them
    left = torch.cat([torch.full((3,), SPECIAL.pad), words])[None]
    assert dropped(left, left != SPECIAL.pad) == alone
    smoother.updates = 1
    assert dropped(words[None], torch.ones(1, 20, dtype=torch.bool)) != alone


@pytest.mark.parametrize("origin", ["unigram", "uniform"])
def test_a_control_without_a_store_takes_no_option_of_one(origin):
    said = f"--smoothing-topk is for --smoothing-source mlm or dropout, which reads a store, not {origin}"
    with pytest.raises(ValueError, match=said):
        TextSmoother(SmoothingOptions(smoothing_source=origin, smoothing_topk=4), 1)
    TextSmoother(SmoothingOptions(smoothing_source=origin), 1)
    TextSmoother(SmoothingOptions(smoothing_source="dropout", smoothing_topk=4), 1)
