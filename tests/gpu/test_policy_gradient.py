"""Training with rewards on a GPU: the backward pass of a recurrent generator is cuDNN's."""

import json
import math

import pytest

from tests.rewarded_generators import LSTM, TINY, train
from tests.tiny_chain import logged


@pytest.mark.parametrize("model", [TINY, LSTM], ids=["transformer", "lstm"])
def test_generator(chain, device, tmp_path, model):
    with logged("train_inner") as inner:
        train(
            chain.data,
            tmp_path,
            "--rl-reward",
            "bleu",
            tokenizer=chain.bert,
            model=model,
            device=device.options,
        )
    steps = [json.loads(line) for line in inner]
    assert len(steps) == 2
    for step in steps:
        assert math.isfinite(float(step["rl_loss"]))
        assert float(step["gnorm"]) > 0
