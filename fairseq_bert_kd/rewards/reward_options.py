"""Options of samples and rewards, and which of them have no effect together."""

import logging
from dataclasses import dataclass, field, fields
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum
from omegaconf import II

from fairseq_bert_kd.evaluation.text_metrics import DEFAULT_TOKENIZER
from fairseq_bert_kd.functional.policy_gradient import ADVANTAGES, check_advantage
from fairseq_bert_kd.modules.validation_metrics import BestCheckpointOptions, check_best_end
from fairseq_bert_kd.rewards.combined import parse_terms
from fairseq_bert_kd.rewards.controls import CONTROLS
from fairseq_bert_kd.rewards.reward_log import COPY_WINDOW

logger = logging.getLogger(__name__)

# options that judge in validation too
JUDGES = (
    "rl_reward",
    "rl_evaluator",
    "rl_held_out_evaluator",
    "rl_positive",
    "rl_sentence_encoder",
    "rl_tokenize",
)
FILES = {"evaluator": "rl_evaluator", "cosine": "rl_sentence_encoder"}  # by term of --rl-reward
OF_TARGETS = ("loss", "nll_loss", "ppl")  # measures of validation that samples make worse at first
# of the output of validation: the greatest is the best, and the least
GREATEST = ("bleu", "ibleu", "reward", "held_out", *FILES)
LEAST = ("source_bleu", "copy_rate")
GUARDS = ("rl_max_start_ppl", "rl_max_copy_rate")  # stop training with samples, change nothing of any


@dataclass
class RewardOptions(BestCheckpointOptions):
    """Samples of a generator and what rewards them; the weights of the loss are the criterion's."""

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
            "help": "folder or hub name of a transformers encoder of sentences, or checkpoint of a sentence LSTM, for reward cosine; where it is no term of "
            "--rl-reward, for the mean cosine in validation (needs --eval-bleu)"
        },
    )
    rl_tokenize: str = field(
        default=DEFAULT_TOKENIZER,
        metadata={
            "help": "sacreBLEU's tokenizer for BLEU: of the reward, of --rl-copy-penalty, and of validation with --kd-tokenizer; zh, "
            "ja-mecab, ko-mecab or char where text is written without spaces between words"
        },
    )
    rl_samples: int = field(
        default=4, metadata={"help": "sequences D that are sampled of each source; 4 is our choice"}
    )
    rl_advantage: ChoiceEnum(ADVANTAGES) = field(  # type: ignore[valid-type]
        default="mean",
        metadata={
            "help": "advantage of a sample, rank 1 the best of D. mean: reward minus the mean of the others; rank: "
            "sigmoid(delta (0.5 - rank / D)) - 0.5, the paper's; rank-centred: the same at rank - 0.5, so that it sums to 0 (ours); "
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
        default=0.5,
        metadata={
            "help": "this times the sentence BLEU against the source is taken off the reward, as an evaluator accepts a copy of "
            "the source; 0.5 is our choice"
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


DEFAULTS = {item.name: item.default for item in fields(RewardOptions) if item.name.startswith("rl_")}
del DEFAULTS["rl_seed"]


def option_of(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


def _is_set(cfg: Any, name: str) -> bool:
    return str(getattr(cfg, name)) != str(DEFAULTS[name])


def _terms(cfg: Any) -> set[str]:
    """Names in the reward."""
    return {name for _, name in parse_terms(cfg.rl_reward)}


def check_sampling(cfg: Any) -> None:
    """Check the options of training with samples.

    Args:
        cfg: options of the task.

    Raises:
        ValueError: a number out of range, an option without effect, no tokenizer, or a best checkpoint chosen by the reward.
    """
    check_advantage(str(cfg.rl_advantage), cfg.rl_samples, cfg.rl_rollouts)
    least = {"rl_rollouts": 0, "rl_rollout_stride": 1, "rl_max_len_a": 0, "rl_max_len_b": 1}
    least |= {"rl_copy_penalty": 0, "rl_max_copy_rate": 0, "rl_delta": 0, "rl_rollout_delta": 0}
    for name, bound in least.items():
        if getattr(cfg, name) < bound:
            raise ValueError(
                f"{option_of(name)} must be at least {bound}, got {getattr(cfg, name)}; the default is {DEFAULTS[name]}"
            )
    _check_effects(cfg)
    if not cfg.kd_tokenizer:
        raise ValueError(
            "rewards read text: give --kd-tokenizer, the folder or hub name of the tokenizer that made the pieces"
        )
    _check_metric(cfg)
    if cfg.left_pad_target:
        raise ValueError("--left-pad-target is not supported with samples; leave it out")


def _check_effects(cfg: Any) -> None:
    """Check that the reward has an effect, and every option of ranks and roll-outs."""
    advantage = str(cfg.rl_advantage)
    if str(cfg.rl_control) == "constant" and advantage != "none":
        effect = "pushes all of them down" if advantage == "rank" else "makes 0 of it, so that none counts"
        raise ValueError(
            f"--rl-control constant gives every sample the same reward, and --rl-advantage {advantage} {effect}; take "
            "--rl-advantage none"
        )
    needed = {"rl_delta": ("--rl-advantage rank or rank-centred", advantage.startswith("rank"))}
    needed |= dict.fromkeys(
        ("rl_rollout_stride", "rl_rollout_delta"), ("--rl-rollouts above 0", cfg.rl_rollouts > 0)
    )
    asks_bleu = "bleu" in _terms(cfg) or cfg.rl_copy_penalty > 0 or cfg.eval_bleu
    needed["rl_tokenize"] = ("a reward bleu, --rl-copy-penalty above 0 or --eval-bleu", asks_bleu)
    for name, (other, is_given) in needed.items():
        if _is_set(cfg, name) and not is_given:
            option, value = option_of(name), getattr(cfg, name)
            raise ValueError(
                f"{option} {value if isinstance(value, str) else f'{value:g}'} has no effect without {other}; give that, or leave {option} out"
            )


def _check_metric(cfg: Any) -> None:
    """Check that the best checkpoint is not chosen by what is optimised, and warn of what samples make worse."""
    metric, terms = cfg.best_checkpoint_metric, _terms(cfg)
    optimised = {"reward", *terms} | ({"ibleu"} if "bleu" in terms else set())
    if metric in optimised:
        raise ValueError(
            f"--best-checkpoint-metric {metric} would choose by what is optimised, --rl-reward {cfg.rl_reward}; take "
            f"{_other_metrics(terms)}"
        )
    if metric in OF_TARGETS:
        logger.warning(
            "--best-checkpoint-metric %s measures the targets, so it may keep the generator that the samples have changed "
            "least; take %s",
            *(metric, _other_metrics(terms)),
        )


def _other_metrics(terms: set[str]) -> str:
    """Measures of validation that none of the reward's terms is, and what they need."""
    needed = "with --maximize-best-checkpoint-metric and --eval-bleu"
    if "bleu" not in terms:
        return f"ibleu or held_out, {needed}"
    return f"held_out, {needed}; without a classifier of pairs for --rl-held-out-evaluator reward by rouge-l, and take bleu"


def check_metric(cfg: Any) -> None:
    """Check that validation logs the metric of the best checkpoint, and that its better end is taken.

    Args:
        cfg: options of the task.

    Raises:
        ValueError: an option without which the metric is not logged, or the worst checkpoint would be kept.
    """
    metric, maximised = cfg.best_checkpoint_metric, cfg.maximize_best_checkpoint_metric
    terms = _terms(cfg)
    if metric in (*GREATEST, *LEAST):
        missing = [] if cfg.eval_bleu else ["--eval-bleu"]
        if metric != "bleu" and not cfg.kd_tokenizer:
            missing.append("--kd-tokenizer")
        judge = {**FILES, "held_out": "rl_held_out_evaluator"}.get(metric)
        if judge and not getattr(cfg, judge):
            missing.append(option_of(judge))
        if missing:
            raise ValueError(
                f"--best-checkpoint-metric {metric} is not logged without {' and '.join(missing)}; give "
                f"{'it' if len(missing) == 1 else 'them'}, or choose by another metric"
            )
    if metric.startswith("rouge-") or (metric in FILES and terms == {metric}):
        instead = "reward is its mean" if terms == {metric} else "only evaluator, cosine and held_out are"
        raise ValueError(
            f"--best-checkpoint-metric {metric} is not logged in validation under this name: {instead}; choose by another metric"
        )
    check_best_end(metric, maximised, GREATEST, (*LEAST, *OF_TARGETS))


def check_judges(cfg: Any, samples: bool) -> None:
    """Check that what judges in validation is asked there.

    Args:
        cfg: options of the task.
        samples: whether the reward has another use, in training.
    """
    if _is_set(cfg, "rl_positive") and not (cfg.rl_evaluator or cfg.rl_held_out_evaluator):
        raise ValueError(
            f"--rl-positive {cfg.rl_positive} names a class of evaluators, and there is none; give --rl-evaluator or "
            "--rl-held-out-evaluator, or leave --rl-positive out"
        )
    if cfg.eval_bleu:
        return
    names = {
        "rl_held_out_evaluator",
        *(option for term, option in FILES.items() if term not in _terms(cfg)),
    }
    for name in JUDGES if not samples else [name for name in JUDGES if name in names]:
        if _is_set(cfg, name):
            option = option_of(name)
            raise ValueError(
                f"{option} scores the output of --eval-bleu, which is not given; give it, or leave {option} "
                f"`{getattr(cfg, name)}` out"
            )


def check_unused(cfg: Any, criterion: str) -> None:
    """Check that no option is set which training without samples does not read."""
    judged = bool(cfg.kd_tokenizer)
    for name in DEFAULTS:
        if name in GUARDS or (judged and name in JUDGES):
            continue
        if _is_set(cfg, name):
            option = option_of(name)
            other = ", give --kd-tokenizer to judge in validation" if name in JUDGES else ""
            raise ValueError(
                f"{option} is for training with samples, and --criterion {criterion} does not ask for any; give "
                f"--criterion policy_gradient with --rl-weight above 0{other}, or leave {option} out"
            )
