"""Samples of a generator in training with their rewards: what a batch of policy gradient is made of."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_bert_kd.evaluation.paraphrase_metrics import copies
from fairseq_bert_kd.evaluation.text_metrics import DEFAULT_TOKENIZER
from fairseq_bert_kd.functional.policy_gradient import (
    advantages,
    interpolated,
    rollout_places,
    token_advantages,
)
from fairseq_bert_kd.functional.sampling import Samples, length_limits, sample_sequences, uniform_draws
from fairseq_bert_kd.modules.decoding_policy import (
    DecodingPolicy,
    evaluation_mode,
    longest_target,
    symbols_of,
)
from fairseq_bert_kd.rewards.controls import controlled
from fairseq_bert_kd.rewards.interface import CachedReward, Reward, Scores
from fairseq_bert_kd.rewards.overlap import SourceBleu
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

SAMPLES_STREAM, ROLLOUTS_STREAM = 0, 1  # purposes of `uniform_draws`
ROLLOUT_ROWS = 2048  # completions that are decoded together: all of a batch have no room in memory
# what `rewarded_batch` counts, as sums over a batch
COUNTS = ("rl_samples", "rl_tokens", "rl_reward", "rl_copies", "rl_cut", "rl_entropy")
SECONDS = ("rl_sampling_seconds", "rl_reward_seconds")


class SamplingSettings(NamedTuple):
    """How sequences are sampled and rewarded.

    Attributes:
        samples: sequences of each source.
        advantage: one of `ADVANTAGES`.
        delta: steepness of ranks.
        rollouts: completions of each prefix; 0 rewards whole sequences only.
        rollout_stride: every such prefix is completed.
        rollout_delta: steepness of the ranks of positions.
        length_ratio: limit of a sequence in tokens per source token.
        length_added: tokens added to this limit.
        copy_penalty: weight of source-BLEU, which is taken off the reward.
        control: one of `CONTROLS`.
        tokenize: sacreBLEU's tokenizer for this source-BLEU.
        seed: seed of the draws.
    """

    samples: int = 4
    advantage: str = "mean"
    delta: float = 12.0
    rollouts: int = 0
    rollout_stride: int = 1
    rollout_delta: float = 12.0
    length_ratio: float = 1.5
    length_added: int = 5
    copy_penalty: float = 0.5
    control: str = "none"
    tokenize: str = DEFAULT_TOKENIZER
    seed: int = 1


class BatchTexts(NamedTuple):
    """Texts of a batch, by source."""

    ids: list[int]
    sources: list[str]
    references: list[str]


class RewardedSampler:
    """Samples from a generator and rewards the samples. It is no nn.Module and holds nothing of the generator.

    Args:
        settings: settings of the draws and the rewards.
        reward: scores texts.
        dictionaries: dictionaries of the sources and of the targets.
        tokenizer: tokenizer that made their pieces.
    """

    def __init__(
        self,
        settings: SamplingSettings,
        reward: Reward,
        dictionaries: tuple[Any, Any],
        tokenizer: HfTokenizer,
    ):
        self.settings = settings
        self._reward, self._source_bleu = CachedReward(reward), CachedReward(SourceBleu(settings.tokenize))
        self._source_dictionary, self._target_dictionary = dictionaries
        self._tokenizer = tokenizer
        self._symbols = symbols_of(self._target_dictionary)

    def rewarded_batch(
        self, sample: dict[str, Any], model: nn.Module, update_num: int
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """``sample[POLICY]`` without ``reference``, see `fairseq_bert_kd.batch`, and what to log (`COUNTS`, `SECONDS`).

        Draws are a function of (seed, update, source). The model is in evaluation mode while it is sampled from, and in its
        own mode afterwards.

        Args:
            sample: batch of a `LanguagePairDataset`.
            model: generator in training.
            update_num: update of training.
        """
        started = time.perf_counter()
        with evaluation_mode(model), torch.no_grad():
            drawn, sources = self._samples(sample, model, update_num)
            greedy = self._greedy(sample, model) if self.settings.advantage == "greedy" else None
            completions = self._rollouts(sample, model, update_num, drawn, sources)
        sampled = time.perf_counter()
        texts = self.texts_of(sample)
        owners = sources.tolist()
        written = self.decoded(drawn.tokens)
        rewards, true_rewards = self._rewards(texts, owners, written, update_num)
        log = self._log(texts, owners, written, drawn, true_rewards)
        advantage = self._advantages(texts, rewards, greedy, update_num).flatten()
        if completions is None:
            values = advantage[:, None]
        else:
            values = self._token_advantages(texts, drawn, rewards, advantage, completions, update_num)
        policy = {
            "tokens": drawn.tokens,
            "sampled": drawn.sampled,
            "advantages": values.to(drawn.tokens.device),
            "sources": sources,
        }
        log |= dict(zip(SECONDS, (sampled - started, time.perf_counter() - sampled), strict=True))
        return policy, log

    def stand_in(self, sample: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """As `rewarded_batch`, of the targets and without advantage: for a worker that has no batch left."""
        target = sample["target"]
        policy = {
            "tokens": target,
            "sampled": target.ne(self._symbols.pad),
            "advantages": torch.zeros(len(target), 1, device=target.device),
            "sources": torch.arange(len(target), device=target.device),
        }
        return policy, dict.fromkeys((*COUNTS, *SECONDS), 0.0)

    # ------------------------------------------------------------ sequences

    def _limits(self, sample: dict[str, Any], model: nn.Module) -> Tensor:
        settings = self.settings
        lengths = sample["net_input"]["src_lengths"]
        return length_limits(lengths, settings.length_ratio, settings.length_added, longest_target(model))

    def _samples(self, sample: dict[str, Any], model: nn.Module, update_num: int) -> tuple[Samples, Tensor]:
        """Sequences, and the source of each: ``samples`` of the first source, then those of the second ..."""
        limits, ids = self._limits(sample, model), sample["id"].tolist()
        count = self.settings.samples
        sources = torch.arange(len(ids), device=limits.device).repeat_interleave(count)
        longest = int(limits.max())
        draws = uniform_draws(
            self.settings.seed, update_num, ids, [count] * len(ids), longest, SAMPLES_STREAM
        )
        policy = DecodingPolicy(model, sample["net_input"], sources)
        return sample_sequences(policy, limits[sources], self._symbols, draws.to(limits.device)), sources

    def _greedy(self, sample: dict[str, Any], model: nn.Module) -> list[str]:
        """Texts of the most likely tokens, one per source."""
        limits = self._limits(sample, model)
        sources = torch.arange(len(limits), device=limits.device)
        policy = DecodingPolicy(model, sample["net_input"], sources)
        return self.decoded(sample_sequences(policy, limits, self._symbols, None).tokens)

    def _rollouts(
        self, sample: dict[str, Any], model: nn.Module, update_num: int, drawn: Samples, sources: Tensor
    ) -> list[list[list[str]]] | None:
        """Texts of the completions by sequence and prefix; None without roll-outs."""
        count = self.settings.rollouts
        if not count:
            return None
        lengths = drawn.sampled.sum(dim=1).tolist()
        places = [rollout_places(length, self.settings.rollout_stride) for length in lengths]
        starts = [(row, place) for row, of_row in enumerate(places) for place in of_row for _ in range(count)]
        if not starts:
            return [[] for _ in places]
        device = sources.device
        owners = torch.tensor([row for row, _ in starts], device=device)  # [completion -> sequence]
        kept = torch.tensor([place for _, place in starts], device=device)
        prefixes = drawn.tokens[owners]
        outside = torch.arange(prefixes.size(1), device=device) >= kept[:, None]
        prefixes = prefixes.masked_fill(outside, self._symbols.pad)
        limits = self._limits(sample, model)[sources[owners]]
        numbers = torch.bincount(sources[owners], minlength=len(sample["id"])).tolist()
        draws = uniform_draws(
            self.settings.seed, update_num, sample["id"].tolist(), numbers, int(limits.max()), ROLLOUTS_STREAM
        )
        texts: list[str] = []
        for start in range(0, len(owners), ROLLOUT_ROWS):
            part = slice(start, start + ROLLOUT_ROWS)
            policy = DecodingPolicy(model, sample["net_input"], sources[owners[part]])
            completed = sample_sequences(
                policy, limits[part], self._symbols, draws[part].to(device), prefixes[part]
            )
            texts += self.decoded(completed.tokens)
        written = iter(texts)
        return [[[next(written) for _ in range(count)] for _ in of_row] for of_row in places]

    # ------------------------------------------------------------ texts

    def decoded(self, tokens: Tensor) -> list[str]:
        """Text of each row of target ids."""
        return self._decoded(tokens, self._target_dictionary)

    def _decoded(self, tokens: Tensor, dictionary: Any) -> list[str]:
        special, symbols = {dictionary.pad(), dictionary.eos(), dictionary.bos()}, dictionary.symbols
        return [
            self._tokenizer.decode([symbols[token] for token in row if token not in special])
            for row in tokens.tolist()
        ]

    def texts_of(self, sample: dict[str, Any]) -> BatchTexts:
        """Sources and references of a batch."""
        sources = self._decoded(sample["net_input"]["src_tokens"], self._source_dictionary)
        return BatchTexts(sample["id"].tolist(), sources, self.decoded(sample["target"]))

    # ------------------------------------------------------------ rewards

    def _rewards(
        self, texts: BatchTexts, owners: Sequence[int], written: list[str], update_num: int
    ) -> tuple[Scores, Scores]:
        """Rewards that training gets, and true rewards without the penalty, of one text per owner."""
        if not written:
            return np.zeros(0), np.zeros(0)
        sides = [texts.sources[i] for i in owners], written, [texts.references[i] for i in owners]
        rewards = self._reward(*sides)
        settings, penalised = self.settings, rewards
        if settings.copy_penalty:
            penalised = rewards - settings.copy_penalty * self._source_bleu(*sides)
        key = [settings.seed, update_num, len(written), *texts.ids]
        return controlled(penalised, settings.control, key), rewards

    def _advantages(
        self, texts: BatchTexts, rewards: Scores, greedy: list[str] | None, update_num: int
    ) -> Tensor:
        """``(sources, samples)`` float32, of differences in float64: float32 knows no two rewards within 6e-8 of 1."""
        baseline = None
        if greedy is not None:
            found, _ = self._rewards(texts, range(len(greedy)), greedy, update_num)
            baseline = torch.from_numpy(found)
        values = torch.from_numpy(rewards).view(len(texts.ids), self.settings.samples)
        return advantages(values, self.settings.advantage, self.settings.delta, baseline).float()

    def _token_advantages(
        self,
        texts: BatchTexts,
        drawn: Samples,
        rewards: Scores,
        advantage: Tensor,
        completions: list[list[list[str]]],
        update_num: int,
    ) -> Tensor:
        """``(sequences, length)`` from the mean reward of each prefix's completions."""
        samples, stride = self.settings.samples, self.settings.rollout_stride
        flat = [
            (row // samples, text)
            for row, prefixes in enumerate(completions)
            for of_prefix in prefixes
            for text in of_prefix
        ]
        owners, written = [owner for owner, _ in flat], [text for _, text in flat]
        found = iter(self._rewards(texts, owners, written, update_num)[0].tolist())
        by_prefix = []
        for row, length in enumerate(drawn.sampled.sum(dim=1).tolist()):
            means = [float(np.mean([next(found) for _ in of_prefix])) for of_prefix in completions[row]]
            places = [*rollout_places(length, stride), length]
            by_prefix.append(
                torch.tensor(interpolated(places, [*means, float(rewards[row])], length), dtype=torch.float64)
            )
        centred = self.settings.advantage != "rank"
        return token_advantages(by_prefix, advantage, self.settings.rollout_delta, centred)

    def _log(
        self, texts: BatchTexts, owners: Sequence[int], written: list[str], drawn: Samples, rewards: Scores
    ) -> dict[str, float]:
        copied = copies(written, [texts.sources[i] for i in owners])
        values = (len(written), drawn.sampled.sum(), rewards.sum(), copied.sum(), drawn.cut.sum())
        return dict(zip(COUNTS, map(float, (*values, drawn.entropies.sum())), strict=True))
