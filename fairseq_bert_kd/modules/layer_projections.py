"""Linear maps from a student's width into its teacher's, by layer (TinyBERT, Section 3)."""

from torch import nn

PAPER = "paper"
SHARED = "shared"
PER_LAYER = "per-layer"
NONE = "none"
PROJECTIONS = (PAPER, SHARED, PER_LAYER, NONE)


def projection_names(kind: str, layers: int) -> list[str]:
    """Name of the map that each layer uses, from 0 (embeddings) to ``layers``; no names for ``none``.

    Args:
        kind: ``paper``, W_e for embeddings and W_h for all hidden states; ``shared``, one for both; ``per-layer``, one each
            (ours); or ``none``.
        layers: number of the student's layers.
    """
    return {
        PAPER: ["embedding", *["hidden"] * layers],
        SHARED: ["shared"] * (layers + 1),
        PER_LAYER: [f"layer{layer}" for layer in range(layers + 1)],
        NONE: [],
    }[kind]


def new_projection(kind: str, width: int, teacher_width: int) -> nn.Linear:
    """One map, with BERT's own initialisation; ``shared`` has a bias, as in TinyBERT's released code."""
    projection = nn.Linear(width, teacher_width, bias=kind == SHARED)
    nn.init.normal_(projection.weight, std=0.02)
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)
    return projection
