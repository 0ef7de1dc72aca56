"""The policy's sampler against greedy decoding of the same sequences, by fairseq's generator and by the sampler itself.

No sequence ends early, so all ways make the same number of steps on the same rows. Sequences of a trained model end at
different lengths; the sampler then takes finished rows out, as fairseq's generator does.
"""

from typing import Any

import torch
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

from benchmarks.table import Length, Row, at_most, spread
from benchmarks.timing import in_turns, ratios
from benchmarks.training_batches import Setting, make_student, make_task
from fairseq_bert_kd.functional.sampling import sample_sequences, uniform_draws
from fairseq_bert_kd.modules.decoding_policy import DecodingPolicy, symbols_of

SOURCES, SAMPLES, SOURCE_LENGTH, LENGTH = 64, 4, 12, 15
GOAL = 1.3  # times the greedy decoding of fairseq
GREEDY, OWN, SAMPLED = "fairseq, greedy", "greedy", "sampled"


class Endless(DecodingPolicy):
    """A policy that never ends a sequence."""

    def next_logits(self, prefix: Tensor) -> Tensor:
        """As its parent's, without an end of sentence."""
        logits = super().next_logits(prefix)
        logits[:, self._model.decoder.dictionary.eos()] = -torch.inf
        return logits


class Decoding:
    """A student and a batch of sources, decoded in several ways.

    Args:
        setting: size, dictionary, device.
        sources: number of them.
    """

    def __init__(self, setting: Setting, sources: int):
        task = make_task(setting.dictionary)
        self.dictionary, device = task.target_dictionary, torch.device(setting.device)
        self.model: Any = make_student(setting, task).eval()
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(4, setting.dictionary, (sources, SOURCE_LENGTH), generator=generator)
        tokens[:, -1] = self.dictionary.eos()
        self.net_input = {
            "src_tokens": tokens.to(device),
            "src_lengths": torch.full((sources,), SOURCE_LENGTH, device=device),
        }
        self.rows = torch.arange(sources, device=device).repeat_interleave(SAMPLES)
        self.limits = torch.full((len(self.rows),), LENGTH, device=device)
        self.draws = uniform_draws(1, 0, list(range(sources)), [SAMPLES] * sources, LENGTH).to(device)
        self.generator = SequenceGenerator(
            [self.model], self.dictionary, beam_size=1, max_len_a=0, max_len_b=LENGTH - 1, min_len=LENGTH - 1
        )

    @torch.no_grad()
    def sampled(self, draws: Tensor | None) -> Tensor:
        """``(rows, length)`` tokens of our sampler; the best tokens without draws."""
        policy = Endless(self.model, self.net_input, self.rows)
        return sample_sequences(policy, self.limits, symbols_of(self.dictionary), draws).tokens

    @torch.no_grad()
    def by_fairseq(self) -> Tensor:
        """``(rows, length)`` greedy tokens of fairseq's generator, each source once per row; the last is the end."""
        sample = {"net_input": {name: values[self.rows] for name, values in self.net_input.items()}}
        found = self.generator.generate([self.model], sample)
        return torch.stack([hypotheses[0]["tokens"] for hypotheses in found])

    def ways(self) -> dict[str, Any]:
        """What is timed, by name."""
        return {
            GREEDY: self.by_fairseq,
            OWN: lambda: self.sampled(None),
            SAMPLED: lambda: self.sampled(self.draws),
        }


def run(length: Length) -> list[Row]:
    """Rows for each dictionary."""
    quick = length is Length.QUICK
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = (
        [Setting("tiny", 500, 0, "cpu")]
        if quick
        else [Setting("small", n, 0, device) for n in (10_000, 30_000)]
    )
    return [
        row for setting in settings for row in measure(setting, 8 if quick else SOURCES, 2 if quick else 7)
    ]


def measure(setting: Setting, sources: int, rounds: int) -> list[Row]:
    """Rows for one dictionary."""
    decoding = Decoding(setting, sources)
    times = in_turns(decoding.ways(), rounds)
    where = f"{setting.size}, dictionary {setting.dictionary:,}, {setting.device}"
    rows = sources * SAMPLES
    return [
        *(
            Row(
                "sampling",
                f"{where}: {name}, {rows} sequences of {LENGTH} tokens",
                f"{spread(found, '.3f')} s",
            )
            for name, found in times.items()
        ),
        at_most(
            "sampling",
            f"{where}: sampled over fairseq's greedy, time",
            ratios(times[SAMPLED], times[GREEDY]),
            GOAL,
        ),
        at_most("sampling", f"{where}: sampled over greedy, time", ratios(times[SAMPLED], times[OWN]), GOAL),
    ]
