"""Task ``translation_with_reward``: fairseq's translation, with samples of the model and their rewards beside the targets."""

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
from fairseq_bert_kd.functional.sampling import allowed_entropies, allowed_log_probs
from fairseq_bert_kd.modules.autocast import AutocastOptions, AutocastTraining
from fairseq_bert_kd.modules.data_options import TokenizerOptions
from fairseq_bert_kd.modules.decoding_policy import evaluation_mode, scoring_input, symbols_of
from fairseq_bert_kd.modules.student_projection import scores_of
from fairseq_bert_kd.rewards.combined import parse_terms
from fairseq_bert_kd.rewards.controls import CONTROLS
from fairseq_bert_kd.rewards.evaluator import Evaluator, check_held_out, check_same_case, load_evaluator
from fairseq_bert_kd.rewards.interface import Reward
from fairseq_bert_kd.rewards.registry import build_reward, parts_of
from fairseq_bert_kd.rewards.rewarded_samples import COUNTS, SECONDS, RewardedSampler, SamplingSettings
from fairseq_bert_kd.tokenization.guarded_text import GuardedText
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)

UPDATE_SECONDS = "rl_update_seconds"
COPY_WINDOW = 50  # updates over which the copy rate is taken
SOURCE_BLEU = "_rl_source_bleu_"  # prefix of its counts in the log
JUDGED = "_rl_judged_"  # prefix of the sums of scores in validation
# options that judge in validation too
JUDGES = ("rl_reward", "rl_evaluator", "rl_held_out_evaluator", "rl_positive", "rl_sentence_encoder")
FILES = {"evaluator": "rl_evaluator", "cosine": "rl_sentence_encoder"}  # by term of --rl-reward
# of fairseq's --eval-bleu: they say how pieces become text, which --kd-tokenizer says already
TEXT_OPTIONS = ("eval_tokenized_bleu", "eval_bleu_remove_bpe", "eval_bleu_detok", "eval_bleu_detok_args")
OF_TARGETS = ("loss", "nll_loss", "ppl")  # measures of validation that samples make worse at first
GUARDS = ("rl_max_start_ppl", "rl_max_copy_rate")  # stop training with samples, change nothing of any


@dataclass
class TranslationWithRewardConfig(TokenizerOptions, AutocastOptions, TranslationConfig):
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
            "help": "take the meaning out of the reward: constant gives every text 1 (needs --rl-advantage none, as all others make 0 of "
            "it or push equal samples down), shuffled deals the rewards of a batch out anew; the log shows the true reward"
        },
    )
    rl_evaluator: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of a classifier of pairs (task sentence_prediction_with_teacher); where --rl-reward has no term "
            "evaluator, its mean score of the beam's output is logged in validation (needs --eval-bleu)"
        },
    )
    rl_held_out_evaluator: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of another classifier of pairs, which never rewards, in another file: its mean score of the beam's output is "
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
        metadata={
            "help": "folder or hub name of a transformers encoder of sentences, for reward cosine; where it is no term of "
            "--rl-reward, for the mean cosine in validation (needs --eval-bleu)"
        },
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
    if item.name in TEXT_OPTIONS or (item.name.startswith("rl_") and item.name != "rl_seed")
}


class UntrainedStart(ValueError, RuntimeError):
    """The generator has not been trained. A RuntimeError too: of all others in a step fairseq writes ``crash.pt``."""


@register_task("translation_with_reward", dataclass=TranslationWithRewardConfig)
class TranslationWithRewardTask(AutocastTraining, GuardedTranslation, GuardedText, TranslationTask):
    """fairseq's ``translation``, whose training step samples from the model and rewards the samples if the criterion requires it.

    fairseq's loop is used as it is; the criterion sees numbers only. Evaluators and the reference are no modules of the
    task, so they are neither trained nor saved.
    """

    _recomputes = False  # whether the generator's backward pass computes its layers again

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        self._sampler: RewardedSampler | None = None
        self._judges: dict[str, Reward] = {}  # by name in the log of validation
        self._reference: Any = None
        self._start_checked = False
        self._update = 0  # of the latest step, from 0
        self._copies: deque[tuple[float, float]] = deque(maxlen=COPY_WINDOW)
        self._validated: dict[str, float] = {}

    def build_model(self, cfg, from_checkpoint=False):
        model = super().build_model(cfg, from_checkpoint)
        self._recomputes = not from_checkpoint and getattr(cfg, "checkpoint_activations", False)
        return model

    def build_criterion(self, cfg, *args, **kwargs):
        criterion = super().build_criterion(cfg, *args, **kwargs)
        samples = bool(getattr(criterion, "needs_samples", False))
        if samples:
            self._check_options()
            if criterion.needs_reference:
                self._load_reference()
            elif self.cfg.rl_reference:
                raise ValueError(
                    "--rl-reference is for --rl-kl-weight above 0, which is not given; leave it out"
                )
        else:
            self._check_unused(cfg)
        if (
            self.cfg.kd_tokenizer
        ):  # without samples too: plain training is judged in validation as the others are
            self._check_judges(samples)
            self._prepare(samples)
        return criterion

    # ------------------------------------------------------------ before training

    def _check_options(self):
        cfg = self.cfg
        check_advantage(str(cfg.rl_advantage), cfg.rl_samples, cfg.rl_rollouts)
        least = {"rl_rollouts": 0, "rl_rollout_stride": 1, "rl_max_len_a": 0, "rl_max_len_b": 1}
        least |= {"rl_copy_penalty": 0, "rl_max_copy_rate": 0, "rl_delta": 0, "rl_rollout_delta": 0}
        for name, bound in least.items():
            if getattr(cfg, name) < bound:
                option = _option(name)
                raise ValueError(
                    f"{option} must be at least {bound}, got {getattr(cfg, name)}; the default is {DEFAULTS[name]}"
                )
        self._check_effects()
        if not cfg.kd_tokenizer:
            raise ValueError(
                "rewards read text: give --kd-tokenizer, the folder or hub name of the tokenizer that made the pieces"
            )
        self._check_metric()
        if cfg.left_pad_target:
            raise ValueError("--left-pad-target is not supported with samples; leave it out")
        if self._recomputes:
            raise ValueError(
                "--checkpoint-activations (--offload-activations) computes layers again in the backward pass, then with the "
                "dropout that samples are scored without: the gradient would be another policy's. Leave it out, and halve "
                "--batch-size and double --update-freq where memory is short"
            )

    def _check_effects(self):
        """Check that the reward has an effect, and every option of ranks and roll-outs."""
        cfg = self.cfg
        advantage = str(cfg.rl_advantage)
        if str(cfg.rl_control) == "constant" and advantage != "none":
            effect = (
                "pushes all of them down" if advantage == "rank" else "makes 0 of it, so that none counts"
            )
            raise ValueError(
                f"--rl-control constant gives every sample the same reward, and --rl-advantage {advantage} {effect}; take "
                "--rl-advantage none"
            )
        needed = {"rl_delta": ("--rl-advantage rank or rank-centred", advantage.startswith("rank"))}
        needed |= dict.fromkeys(
            ("rl_rollout_stride", "rl_rollout_delta"), ("--rl-rollouts above 0", cfg.rl_rollouts > 0)
        )
        for name, (other, is_given) in needed.items():
            if self._is_set(name) and not is_given:
                option = _option(name)
                raise ValueError(
                    f"{option} {getattr(cfg, name):g} has no effect without {other}; give that, or leave {option} out"
                )

    def _check_metric(self):
        """Check that the best checkpoint is not chosen by what is optimised, and warn of what samples make worse."""
        metric, terms = self.cfg.best_checkpoint_metric, self._terms()
        optimised = {"reward", *terms} | ({"ibleu"} if "bleu" in terms else set())
        if metric in optimised:
            others = "held_out" if "bleu" in terms else "ibleu or held_out"
            raise ValueError(
                f"--best-checkpoint-metric {metric} would choose by what is optimised, --rl-reward {self.cfg.rl_reward}; take "
                f"{others}, with --maximize-best-checkpoint-metric and --eval-bleu"
            )
        if metric in OF_TARGETS:
            logger.warning(
                "--best-checkpoint-metric %s measures the targets, so it may keep the generator that the samples have changed "
                "least; take ibleu or held_out, with --maximize-best-checkpoint-metric and --eval-bleu",
                metric,
            )

    def _terms(self) -> set[str]:
        return {name for _, name in parse_terms(self.cfg.rl_reward)}

    def _is_set(self, name: str) -> bool:
        return str(getattr(self.cfg, name)) != str(DEFAULTS[name])

    def _check_judges(self, samples: bool):
        """Check that what judges in validation is asked there.

        Args:
            samples: whether the reward has another use, in training.
        """
        cfg = self.cfg
        if self._is_set("rl_positive") and not (cfg.rl_evaluator or cfg.rl_held_out_evaluator):
            raise ValueError(
                f"--rl-positive {cfg.rl_positive} names a class of evaluators, and there is none; give --rl-evaluator or "
                "--rl-held-out-evaluator, or leave --rl-positive out"
            )
        if cfg.eval_bleu:
            if name := next(filter(self._is_set, TEXT_OPTIONS), None):
                raise ValueError(
                    f"{_option(name)} says how pieces become text, which --kd-tokenizer says; leave one of them out"
                )
            return
        names = {
            "rl_held_out_evaluator",
            *(option for term, option in FILES.items() if term not in self._terms()),
        }
        for name in JUDGES if not samples else [name for name in JUDGES if name in names]:
            if self._is_set(name):
                option = _option(name)
                raise ValueError(
                    f"{option} scores the output of --eval-bleu, which is not given; give it, or leave {option} "
                    f"`{getattr(cfg, name)}` out"
                )

    def _check_unused(self, criterion_cfg):
        """Check that no option is set which training without samples does not read."""
        judged = bool(self.cfg.kd_tokenizer)
        for name in DEFAULTS:
            if name in GUARDS or (judged and name in JUDGES):
                continue
            if name not in TEXT_OPTIONS and self._is_set(name):
                option = _option(name)
                other = ", give --kd-tokenizer to judge in validation" if name in JUDGES else ""
                raise ValueError(
                    f"{option} is for training with samples, and --criterion {criterion_cfg._name} does not ask for any; give "
                    f"--criterion policy_gradient with --rl-weight above 0{other}, or leave {option} out"
                )

    def _prepare(self, samples: bool):
        """Load the tokenizer, and rewards where texts are sampled or judged."""
        cfg = self.cfg
        tokenizer = HfTokenizer(cfg.kd_tokenizer)
        self.check_own_tokenizer(tokenizer, "--kd-tokenizer")
        self.tokenizer_digest = tokenizer.digest()
        if not (samples or cfg.eval_bleu):
            return
        self._judges = self._loaded_judges()
        for part in self._parts():
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
        dictionaries = (self.src_dict, self.tgt_dict)
        self._sampler = RewardedSampler(settings, self._judges["reward"], dictionaries, tokenizer)

    def _loaded_judges(self) -> dict[str, Reward]:
        """The reward, what else is given and is not all of it, and the evaluator that is held out."""
        cfg = self.cfg
        held_out = "--rl-held-out-evaluator"
        check_held_out(("--rl-evaluator", cfg.rl_evaluator), (held_out, cfg.rl_held_out_evaluator))
        files = {term: (_option(name), getattr(cfg, name)) for term, name in FILES.items()}
        reward = build_reward(cfg.rl_reward, files, cfg.rl_positive)
        parts = {part.name: part for part in parts_of(reward)}
        judges = {"reward": reward}
        for term, (_, path) in files.items():
            if path and term != reward.name:
                judges[term] = parts.get(term) or build_reward(term, files, cfg.rl_positive)
        if path := cfg.rl_held_out_evaluator:
            judges["held_out"] = load_evaluator(path, cfg.rl_positive, held_out, "held_out")
        return judges

    def _parts(self) -> list[Reward]:
        return [part for judge in self._judges.values() for part in parts_of(judge)]

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
            raise UntrainedStart(
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
            with self.precision(optimizer, sample["target"].device):
                policy, log = self._sampler.rewarded_batch(sample, model, update_num)
        device = sample["target"].device
        started = _now(device)
        if self._reference is not None:
            with self.precision(optimizer, device):
                policy["reference"] = self._reference_log_probs(sample, policy)
        step = super().train_step(
            {**sample, POLICY: policy}, model, criterion, optimizer, update_num, ignore_grad
        )
        log[UPDATE_SECONDS] = 0.0 if ignore_grad else _now(device) - started
        loss, sample_size, logging_output = step
        return loss, sample_size, {**logging_output, **log}

    def _reference_log_probs(self, sample, policy):
        symbols = symbols_of(self.tgt_dict)
        with torch.no_grad():
            output = self._reference(**scoring_input(sample["net_input"], policy, symbols.eos))
            return allowed_log_probs(scores_of(self._reference, output), symbols)

    def _follow(self, device):
        """Bring evaluators and reference to the generator's device."""
        for part in [*self._parts(), self._reference]:
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
            "_rl_copies": float(copies(texts, batch.sources).sum()),
            **{f"{SOURCE_BLEU}{name}": float(count) for name, count in of_source.items()},
        }
        for name, judge in self._judges.items():
            scores = judge(batch.sources, texts, batch.references)
            self._validated[f"{JUDGED}{name}"] = float(scores.sum())
        if self.cfg.eval_bleu_print_samples:
            logger.info("example hypothesis: %s", texts[0])
            logger.info("example reference: %s", batch.references[0])
        return corpus_bleu(texts, batch.references)

    def valid_step(self, sample, model, criterion):
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        entropy = self._entropy(sample, model) if self.cfg.kd_tokenizer else {}
        return loss, sample_size, {**logging_output, **self._validated, **entropy}

    @torch.no_grad()
    def _entropy(self, sample, model):
        """Entropies of the policy at the positions of the targets, by teacher forcing."""
        scores = scores_of(model, model(**sample["net_input"]))
        targets = sample["target"].ne(self.tgt_dict.pad())
        entropies = allowed_entropies(scores[targets], symbols_of(self.tgt_dict))
        return {"_rl_entropy": float(entropies.sum()), "_rl_targets": int(targets.sum())}

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
        if targets := sums.get("_rl_targets"):
            metrics.log_scalar("entropy", sums["_rl_entropy"] / targets, targets, round=4)
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
        metrics.log_scalar("copy_rate", sums["_rl_copies"] / texts, texts, round=4)
        for name in sums:
            if name.startswith(JUDGED):
                metrics.log_scalar(name.removeprefix(JUDGED), sums[name] / texts, texts, round=4)
        for name in BLEU_COUNTS:
            metrics.log_scalar_sum(f"{SOURCE_BLEU}{name}", sums[f"{SOURCE_BLEU}{name}"])
        metrics.log_derived("source_bleu", lambda meters: round(_source_bleu(meters), 2))
        metrics.log_derived("ibleu", _ibleu)


def _option(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


def _now(device: torch.device) -> float:
    """The clock in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _source_bleu(meters: Any) -> float:
    return bleu_of_counts({name: meters[f"{SOURCE_BLEU}{name}"].sum for name in BLEU_COUNTS})


def _ibleu(meters: Any) -> float:
    """0.9 BLEU - 0.1 source-BLEU of the validation set, a metric to choose a checkpoint by that is no reward."""
    bleu = meters.get_smoothed_value("bleu") if "bleu" in meters else 0.0
    return round(ibleu(bleu, _source_bleu(meters), IBLEU_WEIGHTS[0]), 2)
