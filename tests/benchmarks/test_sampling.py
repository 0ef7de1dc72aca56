"""What is timed decodes the same sequences."""

import torch

from benchmarks.sampling import LENGTH, SAMPLES, Decoding
from benchmarks.training_batches import Setting


def test_greedy_ways_decode_the_same_and_samples_are_as_long():
    decoding = Decoding(Setting("tiny", 200, 0, "cpu"), 3)
    ours, theirs = decoding.sampled(None), decoding.by_fairseq()
    assert ours.shape == theirs.shape == (3 * SAMPLES, LENGTH)
    assert torch.equal(ours[:, :-1], theirs[:, :-1])  # fairseq's last is the end that it forces
    assert decoding.sampled(decoding.draws).shape == ours.shape
