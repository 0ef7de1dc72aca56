"""Task ``translation_with_reward``: fairseq's translation, with samples of the model and their rewards beside the targets."""

import contextlib
import logging
import time
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any, Optional

import torch
from fairseq import utils
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from fairseq_bert_kd.batch import POLICY
from fairseq_bert_kd.data.guarded_loading import GuardedTranslation
from fairseq_bert_kd.evaluation.paraphrase_metrics import (
    BLEU_COUNTS,
    IBLEU_WEIGHTS,
    bleu_counts,
    bleu_of_counts,
    copies,
    corpus_bleu,
    ibleu,
)
from fairseq_bert_kd.functional.policy_gradient import ADVANTAGES, check_advantage
from fairseq_bert_kd.functional.sampling import allowed_log_probs
from fairseq_bert_kd.modules.data_options import TokenizerOptions
from fairseq_bert_kd.modules.decoding_policy import evaluation_mode, scoring_input, symbols_of
from fairseq_bert_kd.modules.student_projection import scores_of
from fairseq_bert_kd.rewards.controls import CONTROLS
from fairseq_bert_kd.rewards.evaluator import Evaluator, check_same_case, load_evaluator
from fairseq_bert_kd.rewards.registry import build_reward, parts_of
from fairseq_bert_kd.rewards.rewarded_samples import COUNTS, SECONDS, RewardedSampler, SamplingSettings
from fairseq_bert_kd.tokenization.guarded_text import GuardedText
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)

UPDATE_SECONDS = "rl_update_seconds"
COPY_WINDOW = 50  # updates over which the copy rate is taken
SOURCE_BLEU = "_rl_source_bleu_"  # prefix of its counts in the log
# options that judge in validation too
JUDGES = ("rl_reward", "rl_evaluator", "rl_held_out_evaluator", "rl_positive", "rl_sentence_encoder")
GUARDS = ("rl_max_start_ppl", "rl_max_copy_rate")  # stop training with samples, change nothing of any


@dataclass
class TranslationWithRewardConfig(TokenizerOptions, TranslationConfig):
    """Options of ``translation``, and of samples and rewards; the weights of the loss are the criterion's."""

    rl_reward: str = field(
        default="evaluator",
        metadata={
            "help": "reward of a text, 0 to 1: evaluator, cosine, rouge-1, rouge-2, rouge-l, bleu, or a weighted sum such as "
            "0.7*evaluator+0.3*rouge-2"
        },
    )
    rl_control: ChoiceEnum(CONTROLS) = field(  # type: ignore[valid-type]
        default="none",
        metadata={
            "help": "take the meaning out of the reward: constant gives every text 1 (use --rl-advantage none; rank-centred, mean "
            "and greedy make 0 of it, and rank is refused, which pushes equal samples down), shuffled deals the rewards of a "
            "batch out anew; the log shows the true reward"
        },
    )
    rl_evaluator: Optional[str] = field(
        default=None,
        metadata={"help": "checkpoint of a classifier of pairs (task sentence_prediction_with_teacher)"},
    )
    rl_held_out_evaluator: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of another classifier of pairs, which never rewards: its mean score of the beam's output is "
            "logged in validation (needs --eval-bleu)"
        },
    )
    rl_positive: Optional[str] = field(
        default=None,
        metadata={
            "help": "name of the evaluators' class of paraphrases (default: the positive class of their data)"
        },
    )
    rl_sentence_encoder: Optional[str] = field(
        default=None,
        metadata={"help": "folder or hub name of a transformers encoder of sentences, for reward cosine"},
    )
    rl_samples: int = field(
        default=4, metadata={"help": "sequences D that are sampled of each source; 4 is our choice"}
    )
    rl_advantage: ChoiceEnum(ADVANTAGES) = field(  # type: ignore[valid-type]
        default="rank-centred",
        metadata={
            "help": "advantage of a sample, rank 1 the best of D. rank: sigmoid(delta (0.5 - rank / D)) - 0.5, the paper's; "
            "rank-centred: the same at rank - 0.5, so that it sums to 0 (ours); mean: reward minus the mean of the others; "
            "greedy: reward minus that of the greedy sequence; none: reward"
        },
    )
    rl_delta: float = field(default=12.0, metadata={"help": "delta of the ranks; 12 is our choice"})
    rl_rollouts: int = field(
        default=0,
        metadata={
            "help": "completions N of each prefix of a sample, whose mean reward ranks its positions (Li et al. 2018); costs N "
            "decodings per position (default: 0, whole sequences are rewarded)"
        },
    )
    rl_rollout_stride: int = field(
        default=1,
        metadata={"help": "complete every such prefix only; positions between are interpolated (ours)"},
    )
    rl_rollout_delta: float = field(
        default=12.0, metadata={"help": "delta of the positions' ranks; 12 is our choice"}
    )
    rl_max_len_a: float = field(
        default=1.5, metadata={"help": "samples are cut at A * source tokens + B tokens"}
    )
    rl_max_len_b: int = field(default=5, metadata={"help": "B of --rl-max-len-a"})
    rl_copy_penalty: float = field(
        default=0.1,
        metadata={
            "help": "this times the sentence BLEU against the source is taken off the reward, as an evaluator accepts a copy of "
            "the source; 0.1 is our choice"
        },
    )
    rl_max_copy_rate: float = field(
        default=0.5,
        metadata={
            "help": f"training stops if more than this share of the samples of {COPY_WINDOW} updates copies its source"
        },
    )
    rl_max_start_ppl: float = field(
        default=100.0,
        metadata={
            "help": "training does not start if the perplexity of the first batch's targets is above this: rewards improve a "
            "trained generator only (Choshen et al. 2020); 100 is our choice"
        },
    )
    rl_reference: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of the generator at its start, for --rl-kl-weight; usually that of --finetune-from-model"
        },
    )
    rl_seed: int = II("common.seed")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")


DEFAULTS = {
    item.name: item.default
    for item in fields(TranslationWithRewardConfig)
    if item.name.startswith("rl_") and item.name != "rl_seed"
}


@register_task("translation_with_reward", dataclass=TranslationWithRewardConfig)
class TranslationWithRewardTask(GuardedTranslation, GuardedText, TranslationTask):
    """fairseq's ``translation``, whose training step samples from the model and rewards the samples if the criterion requires it.

    fairseq's loop is used as it is; the criterion sees numbers only. Evaluators and the reference are no modules of the
    task, so they are neither trained nor saved.
    """

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        self._sampler: RewardedSampler | None = None
        self._held_out: Evaluator | None = None
        self._reference: Any = None
        self._start_checked = False
        self._update = 0  # of the latest step, from 0
        self._copies: deque[tuple[float, float]] = deque(maxlen=COPY_WINDOW)
        self._validated: dict[str, float] = {}

    def build_criterion(self, cfg, *args, **kwargs):
        criterion = super().build_criterion(cfg, *args, **kwargs)
        if getattr(criterion, "needs_samples", False):
            self._check_options()
            if criterion.needs_reference:
                self._load_reference()
            elif self.cfg.rl_reference:
                raise ValueError(
                    "--rl-reference is for --rl-kl-weight above 0, which is not given; leave it out"
                )
            self._prepare()
        else:
            self._check_unused(cfg)
            if self.cfg.kd_tokenizer:
                self._prepare()  # plain training, judged in validation as the others are
        return criterion

    # ------------------------------------------------------------ before training

    def _check_options(self):
        cfg = self.cfg
        check_advantage(str(cfg.rl_advantage), cfg.rl_samples, cfg.rl_rollouts)
        least = {"rl_rollouts": 0, "rl_rollout_stride": 1, "rl_max_len_a": 0, "rl_max_len_b": 1}
        least |= {"rl_copy_penalty": 0, "rl_max_copy_rate": 0, "rl_delta": 0, "rl_rollout_delta": 0}
        for name, bound in least.items():
            if getattr(cfg, name) < bound:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(
                    f"{option} must be at least {bound}, got {getattr(cfg, name)}; the default is {DEFAULTS[name]}"
                )
        if str(cfg.rl_control) == "constant" and str(cfg.rl_advantage) == "rank":
            raise ValueError(
                "--rl-control constant gives every sample the same reward, and --rl-advantage rank, which is not centred, pushes "
                "all of them down; take --rl-advantage none"
            )
        if not cfg.kd_tokenizer:
            raise ValueError(
                "rewards read text: give --kd-tokenizer, the folder or hub name of the tokenizer that made the pieces"
            )
        if cfg.best_checkpoint_metric == "reward":
            raise ValueError(
                "--best-checkpoint-metric reward would choose by what is optimised; take ibleu or held_out, with "
                "--maximize-best-checkpoint-metric and --eval-bleu"
            )
        if cfg.rl_held_out_evaluator and not cfg.eval_bleu:
            raise ValueError(
                "--rl-held-out-evaluator scores the output of --eval-bleu, which is not given; give it, or leave the evaluator "
                f"`{cfg.rl_held_out_evaluator}` out"
            )
        if cfg.left_pad_target:
            raise ValueError("--left-pad-target is not supported with samples; leave it out")

    def _check_unused(self, criterion_cfg):
        """Check that no option is set which training without samples does not read."""
        judged = bool(self.cfg.kd_tokenizer)
        for name, default in DEFAULTS.items():
            if name in GUARDS or (judged and name in JUDGES):
                continue
            if str(getattr(self.cfg, name)) != str(default):
                option = f"--{name.replace('_', '-')}"
                other = ", give --kd-tokenizer to judge in validation" if name in JUDGES else ""
                raise ValueError(
                    f"{option} is for training with samples, and --criterion {criterion_cfg._name} does not ask for any; give "
                    f"--criterion policy_gradient with --rl-weight above 0{other}, or leave {option} out"
                )

    def _prepare(self):
        """Load tokenizer and rewards."""
        cfg = self.cfg
        tokenizer = HfTokenizer(cfg.kd_tokenizer)
        self.check_own_tokenizer(tokenizer, "--kd-tokenizer")
        self.tokenizer_digest = tokenizer.digest()
        files = {
            "evaluator": ("--rl-evaluator", cfg.rl_evaluator),
            "cosine": ("--rl-sentence-encoder", cfg.rl_sentence_encoder),
        }
        reward = build_reward(cfg.rl_reward, files, cfg.rl_positive)
        if cfg.rl_held_out_evaluator:
            option = "--rl-held-out-evaluator"
            self._held_out = load_evaluator(cfg.rl_held_out_evaluator, cfg.rl_positive, option, "held_out")
        for part in [*parts_of(reward), self._held_out]:
            if isinstance(part, Evaluator):
                check_same_case(tokenizer, part.tokenizer)
        settings = SamplingSettings(
            samples=cfg.rl_samples,
            advantage=str(cfg.rl_advantage),
            delta=cfg.rl_delta,
            rollouts=cfg.rl_rollouts,
            rollout_stride=cfg.rl_rollout_stride,
            rollout_delta=cfg.rl_rollout_delta,
            length_ratio=cfg.rl_max_len_a,
            length_added=cfg.rl_max_len_b,
            copy_penalty=cfg.rl_copy_penalty,
            control=str(cfg.rl_control),
            seed=cfg.rl_seed,
        )
        self._reward = reward
        self._sampler = RewardedSampler(settings, reward, (self.src_dict, self.tgt_dict), tokenizer)

    def _load_reference(self):
        """The frozen generator from which the policy must not go far."""
        from fairseq import checkpoint_utils

        if not self.cfg.rl_reference:
            raise ValueError(
                "--rl-kl-weight compares with the generator at its start; give --rl-reference, usually the checkpoint of "
                "--finetune-from-model"
            )
        with torch.random.fork_rng(devices=[]):
            models, _, task = checkpoint_utils.load_model_ensemble_and_task(
                [self.cfg.rl_reference], arg_overrides={"data": self.cfg.data}
            )
        if task.target_dictionary != self.tgt_dict or task.source_dictionary != self.src_dict:
            raise ValueError(
                f"--rl-reference `{self.cfg.rl_reference}` has other dictionaries than `{self.cfg.data}`; give a checkpoint that "
                "was trained on this folder"
            )
        self._reference = models[0].eval().requires_grad_(False)

    def _check_start(self, sample, model, criterion):
        """Check that the generator has been trained, by the targets of the first batch."""
        self._start_checked = True
        with evaluation_mode(model), torch.no_grad():
            _, nll = criterion.compute_loss(model, model(**sample["net_input"]), sample)
        perplexity = float(torch.exp(nll / sample["ntokens"]))
        if not perplexity <= self.cfg.rl_max_start_ppl:
            raise ValueError(
                f"the generator's perplexity on the first batch is {perplexity:.1f}, above --rl-max-start-ppl "
                f"{self.cfg.rl_max_start_ppl:g}: rewards improve a trained generator only. Train it by likelihood first and give "
                "--finetune-from-model"
            )
        logger.info("perplexity of the first batch before policy gradient: %.2f", perplexity)

    # ------------------------------------------------------------ training

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if self._sampler is None or not criterion.needs_samples:
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        self._update = update_num
        if ignore_grad:
            policy, log = self._sampler.stand_in(sample)
        else:
            if update_num == 0 and not self._start_checked:
                self._check_start(sample, model, criterion)
            self._follow(sample["target"].device)
            with self._mixed_precision(optimizer, sample):
                policy, log = self._sampler.rewarded_batch(sample, model, update_num)
        started = time.perf_counter()
        if self._reference is not None:
            policy["reference"] = self._reference_log_probs(sample, policy)
        step = super().train_step(
            {**sample, POLICY: policy}, model, criterion, optimizer, update_num, ignore_grad
        )
        log[UPDATE_SECONDS] = 0.0 if ignore_grad else time.perf_counter() - started
        loss, sample_size, logging_output = step
        return loss, sample_size, {**logging_output, **log}

    def _mixed_precision(self, optimizer, sample):
        """The precision in which fairseq runs the model later in the step."""
        if type(optimizer).__name__ == "AMPOptimizer" and sample["target"].is_cuda:
            return torch.autocast("cuda")
        return contextlib.nullcontext()

    def _reference_log_probs(self, sample, policy):
        symbols = symbols_of(self.tgt_dict)
        with torch.no_grad():
            output = self._reference(**scoring_input(sample["net_input"], policy, symbols.eos))
            return allowed_log_probs(scores_of(self._reference, output), symbols)

    def _follow(self, device):
        """Bring evaluators and reference to the generator's device."""
        for part in [*parts_of(self._reward), self._held_out, self._reference]:
            if part is not None and hasattr(part, "to"):
                part.to(device)

    # ------------------------------------------------------------ validation

    def _inference_with_bleu(self, generator, sample, model):
        """fairseq's, on text of the tokenizer; what else it says about the output is kept for `valid_step`."""
        if self._sampler is None:
            return super()._inference_with_bleu(generator, sample, model)
        self._follow(sample["target"].device)
        best = [found[0]["tokens"] for found in self.inference_step(generator, [model], sample)]
        texts = [self._sampler.decoded(tokens[None])[0] for tokens in best]
        batch = self._sampler.texts_of(sample)
        of_source = bleu_counts(corpus_bleu(texts, batch.sources))
        self._validated = {
            "_rl_texts": len(texts),
            "_rl_reward": float(self._reward(batch.sources, texts, batch.references).sum()),
            "_rl_copies": float(copies(texts, batch.sources).sum()),
            **{f"{SOURCE_BLEU}{name}": float(count) for name, count in of_source.items()},
        }
        if self._held_out is not None:
            scores = self._held_out(batch.sources, texts, batch.references)
            self._validated["_rl_held_out"] = float(scores.sum())
        return corpus_bleu(texts, batch.references)

    def valid_step(self, sample, model, criterion):
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        return loss, sample_size, {**logging_output, **self._validated}

    # ------------------------------------------------------------ log

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        sums: dict[str, float] = {}
        for log in logging_outputs:
            for name, value in log.items():
                if name in (*COUNTS, *SECONDS, UPDATE_SECONDS) or name.startswith("_rl_"):
                    sums[name] = sums.get(name, 0.0) + float(utils.item(value))
        if sums.get("rl_samples"):
            self._log_training(sums)
        if sums.get("_rl_texts"):
            self._log_validation(sums)

    def _log_training(self, sums):
        samples, tokens = sums["rl_samples"], max(sums["rl_tokens"], 1)
        for name, title, total in (
            ("rl_reward", "reward", samples),
            ("rl_copies", "copy_rate", samples),
            ("rl_cut", "cut_rate", samples),
            ("rl_tokens", "sample_length", samples),
            ("rl_entropy", "entropy", tokens),
        ):
            metrics.log_scalar(title, sums[name] / total, total, round=4)
        for name in (*SECONDS, UPDATE_SECONDS):  # of all workers together, a batch
            metrics.log_scalar(name.removeprefix("rl_"), sums[name], round=3)
        self._copies.append((sums["rl_copies"], samples))
        copied = sum(count for count, _ in self._copies) / sum(count for _, count in self._copies)
        if len(self._copies) == COPY_WINDOW and copied > self.cfg.rl_max_copy_rate:
            raise ValueError(
                f"{100 * copied:.1f} % of the samples of the last {COPY_WINDOW} updates copy their source, more than "
                f"--rl-max-copy-rate {self.cfg.rl_max_copy_rate:g}: the reward accepts copies. Raise --rl-copy-penalty, or take "
                f"another reward, and go back to a checkpoint from before update {self._update + 2 - COPY_WINDOW}"
            )

    def _log_validation(self, sums):
        texts = sums["_rl_texts"]
        metrics.log_scalar("reward", sums["_rl_reward"] / texts, texts, round=4)
        metrics.log_scalar("copy_rate", sums["_rl_copies"] / texts, texts, round=4)
        if "_rl_held_out" in sums:
            metrics.log_scalar("held_out", sums["_rl_held_out"] / texts, texts, round=4)
        for name in BLEU_COUNTS:
            metrics.log_scalar_sum(f"{SOURCE_BLEU}{name}", sums[f"{SOURCE_BLEU}{name}"])
        metrics.log_derived("source_bleu", lambda meters: round(_source_bleu(meters), 2))
        metrics.log_derived("ibleu", _ibleu)


def _source_bleu(meters: Any) -> float:
    return bleu_of_counts({name: meters[f"{SOURCE_BLEU}{name}"].sum for name in BLEU_COUNTS})


def _ibleu(meters: Any) -> float:
    """0.9 BLEU - 0.1 source-BLEU of the validation set, a metric to choose a checkpoint by that is no reward."""
    bleu = meters.get_smoothed_value("bleu") if "bleu" in meters else 0.0
    return round(ibleu(bleu, _source_bleu(meters), IBLEU_WEIGHTS[0]), 2)
