"""Task ``translation_with_reward``: fairseq's translation, with samples of the model and their rewards beside the targets."""

import logging
import time
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_bert_kd.batch import POLICY
from fairseq_bert_kd.data.guarded_loading import GuardedTranslation
from fairseq_bert_kd.evaluation.paraphrase_metrics import corpus_bleu
from fairseq_bert_kd.functional.sampling import allowed_entropies, allowed_log_probs
from fairseq_bert_kd.modules.autocast import AutocastOptions, AutocastTraining
from fairseq_bert_kd.modules.data_options import TokenizerOptions
from fairseq_bert_kd.modules.decoding_policy import evaluation_mode, scoring_input, symbols_of
from fairseq_bert_kd.modules.student_projection import scores_of
from fairseq_bert_kd.rewards.evaluator import Evaluator, check_held_out, check_same_case, load_evaluator
from fairseq_bert_kd.rewards.interface import Reward
from fairseq_bert_kd.rewards.registry import build_reward, parts_of
from fairseq_bert_kd.rewards.reward_log import ENTROPY, TARGETS, UPDATE_SECONDS, RewardLog, judged_counts
from fairseq_bert_kd.rewards.reward_options import (
    FILES,
    RewardOptions,
    check_judges,
    check_metric,
    check_sampling,
    check_unused,
    option_of,
)
from fairseq_bert_kd.rewards.rewarded_samples import RewardedSampler, SamplingSettings
from fairseq_bert_kd.tokenization.guarded_text import GuardedText
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)


# of fairseq's --eval-bleu: they say how pieces become text, which --kd-tokenizer says already
TEXT_OPTIONS = ("eval_tokenized_bleu", "eval_bleu_remove_bpe", "eval_bleu_detok", "eval_bleu_detok_args")


@dataclass
class TranslationWithRewardConfig(RewardOptions, TokenizerOptions, AutocastOptions, TranslationConfig):
    """Options of ``translation``, and of samples and rewards."""


class UntrainedStart(ValueError, RuntimeError):
    """The generator has not been trained. A RuntimeError too: of all others in a step fairseq writes ``crash.pt``."""


@register_task("translation_with_reward", dataclass=TranslationWithRewardConfig)
class TranslationWithRewardTask(AutocastTraining, GuardedTranslation, GuardedText, TranslationTask):
    """fairseq's ``translation``, whose training step samples from the model and rewards the samples if the criterion requires it.

    fairseq's loop is used as it is; the criterion sees numbers only. Evaluators and the reference are no modules of the
    task, so they are neither trained nor saved.
    """

    _recomputes = False  # whether the generator's backward pass computes its layers again
    _positions: tuple[int, int]  # tokens of a source and of a target that the generator reads

    def __init__(self, cfg, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        self._sampler: RewardedSampler | None = None
        self._judges: dict[str, Reward] = {}  # by name in the log of validation
        self._reference: Any = None
        self._start_checked = False
        self._update = 0  # of the latest step, from 0
        self._log = RewardLog()
        self._validated: dict[str, float] = {}

    def build_model(self, cfg, from_checkpoint=False):
        model = super().build_model(cfg, from_checkpoint)
        self._recomputes = not from_checkpoint and getattr(cfg, "checkpoint_activations", False)
        self._positions = model.max_positions()
        return model

    def build_criterion(self, cfg, *args, **kwargs):
        criterion = super().build_criterion(cfg, *args, **kwargs)
        samples = bool(getattr(criterion, "needs_samples", False))
        if samples:
            check_sampling(self.cfg)
            self._check_recomputation()
            if criterion.needs_reference:
                self._load_reference()
            elif self.cfg.rl_reference:
                raise ValueError(
                    "--rl-reference is for --rl-kl-weight above 0, which is not given; leave it out"
                )
        else:
            check_unused(self.cfg, cfg._name)
        check_metric(self.cfg)
        if self.cfg.kd_tokenizer:  # without samples too: validation judges plain training as the others
            check_judges(self.cfg, samples)
            check_text_options(self.cfg)
            self._prepare(samples)
        return criterion

    # ------------------------------------------------------------ before training

    def _check_recomputation(self):
        if self._recomputes:
            raise ValueError(
                "--checkpoint-activations (--offload-activations) computes layers again in the backward pass, then with the "
                "dropout that samples are scored without: the gradient would be another policy's. Leave it out, and halve "
                "--batch-size and double --update-freq where memory is short"
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
            tokenize=cfg.rl_tokenize,
            seed=cfg.rl_seed,
        )
        dictionaries = (self.src_dict, self.tgt_dict)
        self._sampler = RewardedSampler(settings, self._judges["reward"], dictionaries, tokenizer)

    def _loaded_judges(self) -> dict[str, Reward]:
        """The reward, what else is given and is not all of it, and the evaluator that is held out."""
        cfg = self.cfg
        held_out = "--rl-held-out-evaluator"
        check_held_out(("--rl-evaluator", cfg.rl_evaluator), (held_out, cfg.rl_held_out_evaluator))
        files = {term: (option_of(name), getattr(cfg, name)) for term, name in FILES.items()}
        reward = build_reward(cfg.rl_reward, files, cfg.rl_positive, tokenize=cfg.rl_tokenize)
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
        self._check_positions(models[0])
        self._reference = models[0].eval().requires_grad_(False)

    def _check_positions(self, reference):
        """Check that the reference reads sources and samples of every length that training meets."""
        cfg, (longest_source, longest_target) = self.cfg, self._positions
        source = min(cfg.max_source_positions, longest_source)
        target = min(int(cfg.rl_max_len_a * source + cfg.rl_max_len_b), longest_target)
        parts = (("source", reference.encoder, source), ("target", reference.decoder, target))
        for side, part, needed in parts:
            learned = isinstance(getattr(part, "embed_positions", None), torch.nn.Embedding)  # others go on
            if learned and part.max_positions() < needed:
                raise ValueError(
                    f"--rl-reference `{cfg.rl_reference}` reads {side}s of at most {part.max_positions()} tokens, and training may have {needed}; give a "
                    "reference that reads as many, or leave long sources out with --max-source-positions (samples are cut by "
                    "--rl-max-len-a and --rl-max-len-b)"
                )

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
        self._validated = judged_counts(texts, batch, self._judges, self.cfg.rl_tokenize)
        if self.cfg.eval_bleu_print_samples:
            logger.info("example hypothesis: %s", texts[0])
            logger.info("example reference: %s", batch.references[0])
        return corpus_bleu(texts, batch.references, tokenize=self.cfg.rl_tokenize)

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
        return {ENTROPY: float(entropies.sum()), TARGETS: int(targets.sum())}

    # ------------------------------------------------------------ log

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        self._log.reduce(logging_outputs, self.cfg.rl_max_copy_rate, self._update)


def check_text_options(cfg: TranslationWithRewardConfig) -> None:
    """Check that pieces become text in one way.

    Raises:
        ValueError: an option of fairseq's says how, beside ``--kd-tokenizer``.
    """
    plain = TranslationWithRewardConfig()
    for name in TEXT_OPTIONS if cfg.eval_bleu else ():
        if str(getattr(cfg, name)) != str(getattr(plain, name)):
            raise ValueError(
                f"{option_of(name)} says how pieces become text, which --kd-tokenizer says; leave one of them out"
            )


def _now(device: torch.device) -> float:
    """The clock in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
