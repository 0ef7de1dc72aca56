"""The cosine of two sentences' vectors as reward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_bert_kd.compat import import_transformers
from fairseq_bert_kd.rewards.interface import Reward, Scores

BATCH = 256  # texts that are encoded together


class CosineReward(Reward):
    """Cosine of the vectors of source and hypothesis, 0 where it is negative (ours).

    A vector is the mean of an encoder's last hidden states over the tokens of a sentence (Reimers & Gurevych 2019). Like the
    evaluator it gives a copy of the source the highest reward.

    Args:
        path: folder or hub name of a transformers encoder of sentences.

    Raises:
        ValueError: it cannot be loaded.
    """

    name = "cosine"

    def __init__(self, path: str):
        transformers = import_transformers()
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path)
            with torch.random.fork_rng(devices=[]):
                self._model: Any = transformers.AutoModel.from_pretrained(path).eval().requires_grad_(False)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`{path}` is no encoder of sentences that can be loaded ({error}); give the folder or hub name of a "
                "transformers encoder"
            ) from None

    def to(self, device: torch.device) -> None:
        """Move the encoder."""
        self._model.to(device)

    def _scores(self, sources: list[str], hypotheses: list[str], references: list[str]) -> Scores:
        texts = list(dict.fromkeys([*sources, *hypotheses]))
        vectors = dict(zip(texts, self._vectors(texts), strict=True))
        first, second = (torch.stack([vectors[text] for text in side]) for side in (sources, hypotheses))
        return torch.cosine_similarity(first, second).clamp(0, 1).double().cpu().numpy()

    @torch.no_grad()
    def _vectors(self, texts: Sequence[str]) -> list[Tensor]:
        """A vector of each text, in their order."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: dict[int, Tensor] = {}
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            inputs = self._tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, return_tensors="pt"
            ).to(self._model.device)
            hidden = self._model(**inputs).last_hidden_state.float()  # (rows, length, d)
            mask = inputs["attention_mask"][..., None].float()
            found |= zip(rows, (hidden * mask).sum(dim=1) / mask.sum(dim=1), strict=True)
        return [found[i] for i in range(len(texts))]
