"""The smoother of batches: what it waits for on a GPU, and what it hands on."""

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


@pytest.mark.parametrize("origin", ["unigram", "uniform"])
def test_a_control_without_a_store_takes_no_option_of_one(origin):
    said = f"--smoothing-topk is for --smoothing-source mlm or dropout, which reads a store, not {origin}"
    with pytest.raises(ValueError, match=said):
        TextSmoother(SmoothingOptions(smoothing_source=origin, smoothing_topk=4), 1)
    TextSmoother(SmoothingOptions(smoothing_source=origin), 1)
    TextSmoother(SmoothingOptions(smoothing_source="dropout", smoothing_topk=4), 1)
