"""Which layers of student and teacher are compared."""

from typing import Any, NamedTuple

from fairseq_bert_kd.criterions.layer_distillation_options import (
    SCORES,
    LayerDistillationConfig,
    term_weights,
)
from fairseq_bert_kd.functional.layer_matching import layer_map

Pairs = tuple[tuple[int, int], ...]  # of a student's and a teacher's layer


class LayerPairs(NamedTuple):
    """Which layers are compared.

    Attributes:
        hidden: hidden states, 0 for embeddings.
        scores: attention scores.
        relations: queries, keys and values.
    """

    hidden: Pairs = ()
    scores: Pairs = ()
    relations: Pairs = ()

    def of(self, side: int) -> dict[str, list[int]]:
        """Layers of the student (0) or the teacher (1), as `encoder_states.record` takes them."""
        return {kind: [pair[side] for pair in pairs] for kind, pairs in self._asdict().items()}


def layer_pairs(cfg: LayerDistillationConfig, student: Any, teacher: Any) -> LayerPairs:
    """The pairs of layers that the losses of some options compare.

    Args:
        cfg: options of the criterion.
        student: config of the student's encoder.
        teacher: `layers`, `width` and `heads` of the teacher.

    Raises:
        ValueError: the layers, heads or widths do not fit.
    """
    weights = term_weights(cfg)
    by_scores = str(cfg.layer_attention_loss) == SCORES
    hidden: Pairs = ((0, 0),) if weights["embedding"] else ()
    scores: Pairs = ()
    relations: Pairs = ()
    if weights["hidden"] or (weights["attention"] and by_scores):
        mapped = _mapped(cfg.layer_map, student.num_hidden_layers, teacher.layers)
        hidden += mapped if weights["hidden"] else ()
        scores = mapped if weights["attention"] and by_scores else ()
    if scores and student.num_attention_heads != teacher.heads:
        raise ValueError(
            "--layer-attention-loss scores compares head by head, and the student has "
            f"{student.num_attention_heads} heads, the teacher {teacher.heads}. Give the student --encoder-heads "
            f"{teacher.heads}, or choose --layer-attention-loss relations"
        )
    if weights["attention"] and not by_scores:
        relations = ((student.num_hidden_layers, _relation_layer(cfg, student, teacher)),)
    return LayerPairs(hidden, scores, relations)


def _mapped(name: str, layers: int, teacher_layers: int) -> Pairs:
    """Pairs of the layers after the embeddings."""
    try:
        return tuple(enumerate(layer_map(name, layers, teacher_layers)))[1:]
    except ValueError as error:
        raise ValueError(f"--layer-map {name}: {error}") from None


def _relation_layer(cfg: LayerDistillationConfig, student: Any, teacher: Any) -> int:
    """The teacher's layer whose relations are learned."""
    heads, layer = cfg.layer_relation_heads, cfg.layer_relation_layer
    if student.hidden_size % heads or teacher.width % heads:
        raise ValueError(
            f"--layer-relation-heads {heads} must divide the student's width {student.hidden_size} and the teacher's "
            f"{teacher.width}; give another number"
        )
    if layer is not None and not 1 <= layer <= teacher.layers:
        raise ValueError(
            f"--layer-relation-layer must be from 1 to {teacher.layers}, the teacher's layers, got {layer}"
        )
    return layer or teacher.layers
