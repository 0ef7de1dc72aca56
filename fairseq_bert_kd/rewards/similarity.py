"""The cosine of two sentences' vectors as reward."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_bert_kd.compat import first_line, import_transformers
from fairseq_bert_kd.data.sentence_dataset import padded
from fairseq_bert_kd.functional.truncation import cut_text
from fairseq_bert_kd.modules.declared_vector import declared_vector
from fairseq_bert_kd.modules.pretrained_encoder import encoder_positions
from fairseq_bert_kd.rewards.interface import Reward, Scores
from fairseq_bert_kd.rewards.sentence_models import load_model, read_stated
from fairseq_bert_kd.tokenization.dictionary import token_ids

BATCH = 256  # texts that are encoded together


class SentenceVectors(ABC):
    """Vectors of sentences, made in batches of similar length."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the encoder."""

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """``(texts, d)`` float32."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts = (order[start : start + BATCH] for start in range(0, len(order), BATCH))
        vectors = torch.cat([self._of_batch([texts[i] for i in part]) for part in parts])
        return torch.empty_like(vectors).index_copy_(0, torch.tensor(order, device=vectors.device), vectors)

    @abstractmethod
    def _of_batch(self, texts: list[str]) -> Tensor:
        """``(texts, d)`` float32."""


class PretrainedVectors(SentenceVectors):
    """The mean of a transformers encoder's last hidden states over the tokens (Reimers & Gurevych 2019).

    Where the encoder's folder declares that it was made for the first state, that is taken.

    Args:
        path: folder or hub name of a transformers encoder of sentences.

    Raises:
        ValueError: it cannot be loaded, or was made for other vectors.
    """

    def __init__(self, path: str):
        transformers = import_transformers()
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path)
            with torch.random.fork_rng(devices=[]):
                model = transformers.AutoModel.from_pretrained(path)
            self._model: Any = model.eval().requires_grad_(False).float()  # whatever type was saved
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`{path}` is not an encoder of sentences that can be loaded ({first_line(error)}); give the folder or hub name of a "
                "transformers encoder, or a checkpoint of --arch sentence_lstm"
            ) from None
        self._first = declared_vector(path)[0] == "cls"

    def to(self, device: torch.device) -> None:
        self._model.to(device)

    @property
    def _longest(self) -> int:
        """Tokens of a text, at most."""
        return min(self._tokenizer.model_max_length, encoder_positions(self._model))

    def _of_batch(self, texts: list[str]) -> Tensor:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
        ).to(self._model.device)
        hidden = self._model(**inputs).last_hidden_state.float()  # (rows, length, d)
        mask = inputs["attention_mask"][..., None].float()
        return hidden[:, 0] if self._first else (hidden * mask).sum(dim=1) / mask.sum(dim=1)


class CheckpointVectors(SentenceVectors):
    """The vectors that a sentence model of ours names as its own, as ``encode`` gives them: a sentence LSTM, or an encoder.

    A text of which the tokenizer leaves nothing has zeros.

    Args:
        path: checkpoint; its data folder must be where it was.
        option: option that names it, for messages.

    Raises:
        FileNotFoundError: its data folder is missing.
        ValueError: not a checkpoint of a model that gives sentence vectors.
    """

    def __init__(self, path: str, option: str):
        wanted = "a model of sentences; give a checkpoint of --arch sentence_lstm or hf_encoder"
        stated = read_stated(path, option, wanted)
        self._model, task, self._tokenizer = load_model(stated)
        if not hasattr(self._model, "sentence_vectors"):
            raise ValueError(
                f"{stated.what} holds a {type(self._model).__name__}, which gives no sentence vectors; give a checkpoint of --arch "
                "sentence_lstm or hf_encoder"
            )
        self._dictionary = task.dictionary

    def to(self, device: torch.device) -> None:
        self._model.to(device)

    def _of_batch(self, texts: list[str]) -> Tensor:
        limit = self._model.max_positions()
        ids = [
            cut_text(text, limit or len(text)) for text in token_ids(self._tokenizer, self._dictionary, texts)
        ]
        device = next(self._model.parameters()).device
        lengths = torch.tensor([len(text) for text in ids], device=device)
        vectors = self._model.sentence_vectors(
            padded(ids, self._dictionary.pad()).to(device), lengths, None
        ).float()
        return vectors.masked_fill(lengths[:, None] == 1, 0.0)  # nothing but the end of sentence


def load_vectors(path: str, option: str) -> SentenceVectors:
    """The encoder of a file, a checkpoint of ours, or of a folder or hub name, a transformers one.

    Args:
        path: the file, folder or name.
        option: option that names it, for messages.

    Raises:
        FileNotFoundError: the data folder of a checkpoint is missing.
        ValueError: it cannot be loaded, or gives other vectors than ours.
    """
    return CheckpointVectors(path, option) if os.path.isfile(path) else PretrainedVectors(path)


class CosineReward(Reward):
    """Cosine of the vectors of source and hypothesis, 0 where it is negative (ours).

    Like the evaluator it gives a copy of the source the highest reward.

    Args:
        path: the encoder, see `load_vectors`.
        option: option that names it, for messages.
    """

    name = "cosine"

    def __init__(self, path: str, option: str = "--sentence-encoder"):
        self._vectors = load_vectors(path, option)

    def to(self, device: torch.device) -> None:
        """Move the encoder."""
        self._vectors.to(device)

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        texts = {text: i for i, text in enumerate(dict.fromkeys([*sources, *hypotheses]))}
        vectors = self._vectors.of_texts(list(texts))
        first, second = (vectors[[texts[text] for text in side]] for side in (sources, hypotheses))
        return torch.cosine_similarity(first, second).clamp(0, 1).double().cpu().numpy()
