"""Lets a Transformer's encoder read smoothed sources, whatever the criterion that calls the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from fairseq.models.transformer import TransformerEncoderBase

from fairseq_bert_kd.functional.text_smoothing import SmoothedText, repeated, smooth_embeddings


class SourceSmoothing:
    """Hands ready embeddings to ``model.encoder``, which fairseq's models do not let a caller pass.

    A hook before the encoder does it, so it works inside a wrapper for several workers, and gradients are reduced.

    Args:
        model: a fairseq encoder-decoder with a Transformer encoder.

    Raises:
        ValueError: another encoder.
    """

    def __init__(self, model: Any):
        encoder = getattr(model, "encoder", None)
        if not isinstance(encoder, TransformerEncoderBase):
            raise ValueError(
                f"--smoothing-weight above 0 needs a student with fairseq's Transformer encoder, `{type(model).__name__}` has a "
                f"`{type(encoder).__name__}`, which takes no ready embeddings; choose such a student, or leave it out"
            )
        self._text: Optional[SmoothedText] = None
        encoder.register_forward_pre_hook(self._replace, with_kwargs=True)

    @contextmanager
    def reading(self, text: SmoothedText) -> Iterator[None]:
        """Within it, the encoder reads this text smoothed."""
        self._text = text
        try:
            yield
        finally:
            self._text = None

    def _replace(self, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._text is None:
            return None
        tokens = args[0] if args else kwargs["src_tokens"]
        text = repeated(self._text, len(tokens))
        smoothed = smooth_embeddings(encoder.embed_tokens.weight, tokens, text, tokens)
        return args, {**kwargs, "token_embeddings": smoothed}
