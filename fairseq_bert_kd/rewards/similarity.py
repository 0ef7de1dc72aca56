"""The cosine of two sentences' vectors as reward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_bert_kd.compat import first_line, import_transformers
from fairseq_bert_kd.modules.declared_vector import declared_vector
from fairseq_bert_kd.modules.pretrained_encoder import encoder_positions
from fairseq_bert_kd.rewards.interface import Reward, Scores

BATCH = 256  # texts that are encoded together


class SentenceVectors:
    """Vectors of sentences: the mean of an encoder's last hidden states over the tokens (Reimers & Gurevych 2019).

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
                "transformers encoder"
            ) from None
        self._first = declared_vector(path)[0] == "cls"

    def to(self, device: torch.device) -> None:
        """Move the encoder."""
        self._model.to(device)

    @property
    def _longest(self) -> int:
        """Tokens of a text, at most."""
        return min(self._tokenizer.model_max_length, encoder_positions(self._model))

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """``(texts, d)`` float32."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = []
        for start in range(0, len(order), BATCH):
            rows = [texts[i] for i in order[start : start + BATCH]]
            inputs = self._tokenizer(
                rows, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
            ).to(self._model.device)
            hidden = self._model(**inputs).last_hidden_state.float()  # (rows, length, d)
            mask = inputs["attention_mask"][..., None].float()
            found.append(hidden[:, 0] if self._first else (hidden * mask).sum(dim=1) / mask.sum(dim=1))
        vectors = torch.cat(found)
        return torch.empty_like(vectors).index_copy_(0, torch.tensor(order, device=vectors.device), vectors)


class CosineReward(Reward):
    """Cosine of the vectors of source and hypothesis, 0 where it is negative (ours).

    Like the evaluator it gives a copy of the source the highest reward.

    Args:
        path: folder or hub name of the encoder, see `SentenceVectors`.
    """

    name = "cosine"

    def __init__(self, path: str):
        self._vectors = SentenceVectors(path)

    def to(self, device: torch.device) -> None:
        """Move the encoder."""
        self._vectors.to(device)

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        texts = {text: i for i, text in enumerate(dict.fromkeys([*sources, *hypotheses]))}
        vectors = self._vectors.of_texts(list(texts))
        first, second = (vectors[[texts[text] for text in side]] for side in (sources, hypotheses))
        return torch.cosine_similarity(first, second).clamp(0, 1).double().cpu().numpy()
