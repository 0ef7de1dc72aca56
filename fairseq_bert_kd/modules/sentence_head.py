"""Classes of one sentence's vector, or of two sentences' vectors that were made apart."""

import torch
from torch import Tensor, nn

from fairseq_bert_kd.functional.representation_matching import pair_features

INNER_DIM = 512  # InferSent's (Conneau et al. 2017)


class SentenceHead(nn.Module):
    """Linear layer and tanh, then a linear layer to the classes.

    Args:
        width: numbers of a sentence's vector.
        texts: sentences of a row, 1 or 2.
        classes: numbers that it gives, 1 for regression.
        inner_dim: width between the two layers.
        dropout: rate of dropout before each layer.
    """

    def __init__(self, width: int, texts: int, classes: int, inner_dim: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(width if texts == 1 else 4 * width, inner_dim)
        self.output = nn.Linear(inner_dim, classes)

    def forward(self, vectors: tuple[Tensor, ...]) -> Tensor:
        """One or two ``(batch, width)`` vectors to ``(batch, classes)`` logits."""
        features = vectors[0] if len(vectors) == 1 else pair_features(*vectors)
        hidden = torch.tanh(self.dense(self.dropout(features)))
        return self.output(self.dropout(hidden))
