"""Evaluators that read case, or do not, and score nothing."""

from types import SimpleNamespace

import torch

from fairseq_bert_kd.rewards.evaluator import Evaluator


class _Nothing(torch.nn.Module):
    def max_positions(self):
        return 9


def evaluator_reading(lower_case: bool, name: str = "held_out") -> Evaluator:
    """An evaluator whose tokenizer makes lower case of all text, or does not."""
    tokenizer = SimpleNamespace(name="t", normalise=str.lower if lower_case else str)
    return Evaluator(name, _Nothing(), "head", None, tokenizer, 1)
