"""A classifier of pairs as reward: the probability that a text paraphrases its source (Li et al. 2018, M(X, Y))."""

import filecmp
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_bert_kd.data.sentence_dataset import padded
from fairseq_bert_kd.functional.truncation import cut_text, longest_first
from fairseq_bert_kd.rewards.interface import Reward, Scores, Texts
from fairseq_bert_kd.rewards.sentence_models import load_model, read_stated
from fairseq_bert_kd.storage.sentence_data import CLASSES, SentenceSpec
from fairseq_bert_kd.tokenization.dictionary import token_ids
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

TASK = "sentence_prediction_with_teacher"
BATCH = 256  # pairs that are scored together


class Evaluator(Reward):
    """A frozen classifier of two sentences: ``sigmoid(z_1 - z_0)`` for two classes, the softmax of the positive one in general.

    It is no nn.Module, so what holds it neither trains nor saves it, and `train()` does not reach its model.

    Args:
        name: name of the reward in logs.
        model: fairseq model with the interface of ``sentence_prediction``, of two texts; put into evaluation mode and frozen.
        head: name of its classification head.
        dictionary: its dictionary.
        tokenizer: tokenizer that made its pieces.
        positive: number of the class "paraphrase".
    """

    def __init__(
        self, name: str, model: Any, head: str, dictionary: Any, tokenizer: HfTokenizer, positive: int
    ):
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self._head, self._dictionary, self._positive = head, dictionary, positive
        self._positions = model.max_positions()

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def check_case(self, sources: Texts, hypotheses: Texts) -> None:
        """Check that a generator in lower case has not written for an evaluator that reads case.

        It has where most sources have upper case and no hypothesis has (ours).
        """
        if ignores_case(self.tokenizer) or any(text != text.lower() for text in hypotheses):
            return
        cased = [i for i, text in enumerate(sources) if text != text.lower()]
        if 2 * len(cased) > len(sources):
            raise ValueError(
                f"the tokenizer of `{self.name}`, `{self.tokenizer.name}`, reads case, {len(cased)} of {len(sources)} sources "
                f"have upper case, and no output has: source {sources[cased[0]]!r}, output {hypotheses[cased[0]]!r}. Take an "
                "evaluator whose tokenizer makes lower case of all text, or outputs that were not made lower case"
            )

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        return self.score_pairs(sources, hypotheses)

    @torch.no_grad()
    def score_pairs(self, sources: Sequence[str], hypotheses: Sequence[str]) -> Scores:
        """``(pairs,)`` probabilities that the second text paraphrases the first."""
        sides = [token_ids(self.tokenizer, self._dictionary, texts) for texts in (sources, hypotheses)]
        lengths = np.array([[len(text) for text in side] for side in sides]).T  # (pairs, 2)
        scores = np.empty(len(lengths))
        device = next(self.model.parameters()).device
        for rows in _batches(lengths.sum(axis=1)):
            kept = longest_first(lengths[rows], self._positions or int(lengths.sum()))
            texts, sizes = [], []
            for side, length in zip(sides, kept.T, strict=True):
                cut = [cut_text(side[row], n) for row, n in zip(rows, length, strict=True)]
                texts.append(padded(cut, self._dictionary.pad()).to(device))
                sizes.append(torch.from_numpy(length).to(device))
            scores[rows] = self._probabilities(tuple(texts), tuple(sizes)).cpu().numpy()
        return scores

    def _probabilities(self, texts: tuple[Tensor, ...], lengths: tuple[Tensor, ...]) -> Tensor:
        logits, _ = self.model(texts, lengths, features_only=True, classification_head_name=self._head)
        return logits.double().softmax(dim=1)[:, self._positive]


def keep_float32(head: Any) -> None:
    """Let a head compute in float32 under ``torch.autocast``: in half precision many good texts would have equal logits."""
    forward = head.forward

    def in_float32(vectors: Any) -> Tensor:
        both = isinstance(vectors, tuple)
        values = tuple(vector.float() for vector in (vectors if both else (vectors,)))
        with torch.autocast(values[0].device.type, enabled=False):
            return forward(values if both else values[0])

    head.forward = in_float32


def _batches(lengths: Any) -> Iterator[Any]:
    """Rows of similar length."""
    order = np.argsort(lengths, kind="stable")
    return (order[start : start + BATCH] for start in range(0, len(order), BATCH))


def load_evaluator(
    path: str,
    positive: str | None,
    option: str,
    name: str = "evaluator",
    positive_option: str = "--rl-positive",
) -> Evaluator:
    """The evaluator of a checkpoint; torch's random numbers go on as without it.

    Args:
        path: checkpoint of task ``sentence_prediction_with_teacher``; its data folder must be where it was.
        positive: name of the class "paraphrase"; None for the one that the data were prepared with.
        option: option that names the checkpoint, for messages.
        name: name of the reward in logs.
        positive_option: option that names the class, for messages.

    Raises:
        FileNotFoundError: checkpoint or data folder missing.
        ValueError: no classifier of pairs, its positive class is not known, its tokenizer is another one now, or it reads entities.
    """
    stated = read_stated(
        path,
        option,
        f"a classifier of sentences; give a checkpoint of --task {TASK} that was trained on pairs",
    )
    column = positive_class(stated.spec, positive, stated.what, positive_option)
    model, task, tokenizer = load_model(stated)
    head = task.cfg.classification_head_name
    keep_float32(model.classification_heads[head])
    return Evaluator(name, model, head, task.dictionary, tokenizer, column)


def positive_class(spec: SentenceSpec, positive: str | None, what: str, option: str = "--rl-positive") -> int:
    """Number of the class "paraphrase".

    Raises:
        ValueError: not two texts and classes, or no class has this name or none is named.
    """
    if spec.kind != CLASSES or spec.texts != 2:
        raise ValueError(
            f"{what} must classify pairs of texts, but was trained on rows of {spec.texts} text(s) with labels of kind "
            f"{spec.kind}; prepare pairs with two classes, as --task qqp does"
        )
    known = ", ".join(spec.names)
    positive = positive or spec.positive
    if not positive:
        raise ValueError(
            f"{what} has the classes {known}, and none is named as the one of paraphrases; name it with {option}"
        )
    if positive not in spec.names:
        raise ValueError(f"{what} has the classes {known}; `{positive}` is none of them. Correct {option}")
    return spec.names.index(positive)


def check_held_out(rewarding: tuple[str, str | None], held_out: tuple[str, str | None]) -> None:
    """Check that the evaluator that judges is not the one that rewards.

    Args:
        rewarding: option that names its checkpoint, and the checkpoint; None where there is none.
        held_out: the same of the other one.

    Raises:
        ValueError: both are one file, or one a copy of the other.
    """
    (option, path), (other_option, other) = rewarding, held_out
    if not path or not other or not (os.path.isfile(path) and os.path.isfile(other)):
        return
    if filecmp.cmp(path, other, shallow=False):
        raise ValueError(
            f"{option} `{path}` and {other_option} `{other}` are the same checkpoint, and what rewards cannot judge; train "
            f"another evaluator for {other_option}, on other pairs, or leave it out"
        )


def ignores_case(tokenizer: HfTokenizer) -> bool:
    """Whether a tokenizer makes the same of upper and lower case."""
    return tokenizer.normalise("Aa") == tokenizer.normalise("aa")


def check_same_case(generator: HfTokenizer, evaluator: HfTokenizer) -> None:
    """Check that generator and evaluator meet in text of the same case; their tokenizers may differ.

    Raises:
        ValueError: one has lower case only, and the other one both.
    """
    lower = [ignores_case(tokenizer) for tokenizer in (generator, evaluator)]
    if lower[0] != lower[1]:
        cased, uncased = (evaluator, generator) if lower[0] else (generator, evaluator)
        raise ValueError(
            f"generator and evaluator meet as text, but tokenizer `{uncased.name}` makes lower case of all text and "
            f"`{cased.name}` does not; take two tokenizers that agree on case"
        )
