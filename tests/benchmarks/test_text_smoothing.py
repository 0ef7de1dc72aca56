"""Steps that are compared read the same sentences."""

import pytest
import torch

from benchmarks import layer_distillation, training_batches
from benchmarks.text_smoothing import Classifier, Translation, plain_of
from fairseq_bert_kd.modules.smoothing_options import BOTH, ONLY


@pytest.mark.parametrize(
    "model",
    [
        lambda: Classifier(layer_distillation.Setting("tiny", 1000, 6, 2, "cpu")),
        lambda: Translation(training_batches.Setting("tiny", 1000, 200, "cpu", batches=1)),
    ],
)
def test_a_step_on_both_is_a_plain_one_and_a_smoothed_one(model):
    model = model()
    for module in model.model.modules():
        if "Dropout" in type(module).__name__:
            module.p = 0.0
    losses = {name: torch.stack(step()) for name, step in model.ways().items()}
    plain = losses[plain_of(ONLY)]
    torch.testing.assert_close(losses[plain_of(BOTH)], 2 * plain)
    torch.testing.assert_close(losses[BOTH], plain + losses[ONLY])
    assert (losses[ONLY] != plain).all()
