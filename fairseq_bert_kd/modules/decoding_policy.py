"""A fairseq encoder-decoder as the policy that `fairseq_bert_kd.functional.sampling` draws from."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_bert_kd.functional.sampling import Symbols
from fairseq_bert_kd.modules.student_projection import scores_of, unwrapped


class DecodingPolicy:
    """Decodes step by step, some rows per source; the encoder reads each source once.

    Decoders without incremental state read the whole prefix at each step.

    Args:
        model: encoder-decoder in evaluation mode; fairseq's wrappers for several processes are taken off.
        net_input: ``src_tokens`` and ``src_lengths`` of a batch.
        rows: ``(rows,)`` the source of each row.
    """

    def __init__(self, model: nn.Module, net_input: dict[str, Tensor], rows: Tensor):
        self._model: Any = unwrapped(model)
        assert not self._model.training, "samples of a model with dropout are not of its policy"
        encoder: Any = self._model.encoder
        decoder: Any = self._model.decoder
        if hasattr(decoder, "set_beam_size"):
            decoder.set_beam_size(1)  # fairseq's generator may have left another one
        source = {name: net_input[name] for name in ("src_tokens", "src_lengths")}
        self._encoder_out = encoder.reorder_encoder_out(encoder(**source), rows)
        self._state: dict[str, Any] | None = (
            {} if hasattr(decoder, "reorder_incremental_state_scripting") else None
        )

    def next_logits(self, prefix: Tensor) -> Tensor:
        """``(rows, vocab)`` logits or log-probabilities after ``(rows, length)`` tokens."""
        state = {} if self._state is None else {"incremental_state": self._state}
        output = self._model.decoder(prefix, encoder_out=self._encoder_out, **state)
        return scores_of(self._model, output)[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows."""
        self._encoder_out = self._model.encoder.reorder_encoder_out(self._encoder_out, rows)
        if self._state is not None:
            self._model.decoder.reorder_incremental_state_scripting(self._state, rows)


def symbols_of(dictionary: Any) -> Symbols:
    """Special tokens of a fairseq dictionary."""
    return Symbols(pad=dictionary.pad(), bos=dictionary.bos(), eos=dictionary.eos())


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within the block the model has no dropout; afterwards every part of it is in the mode that it was in.

    Recurrent layers stay in training mode, with dropout 0: cuDNN has no backward pass of one in evaluation mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    recurrent = [(module, module.dropout) for module, _ in modes if isinstance(module, nn.RNNBase)]
    model.eval()
    for layer, _ in recurrent:
        layer.train()
        layer.dropout = 0.0
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for layer, dropout in recurrent:
            layer.dropout = dropout


def longest_target(model: nn.Module) -> int:
    """Tokens that the decoder can write, end of sentence included."""
    inner: Any = unwrapped(model)
    limit = inner.max_decoder_positions()
    return torch.iinfo(torch.int32).max if limit is None else int(limit)


def scoring_input(net_input: dict[str, Tensor], policy: dict[str, Tensor], eos: int) -> dict[str, Tensor]:
    """What the model reads to score sampled sequences by teacher forcing.

    Args:
        net_input: ``src_tokens`` and ``src_lengths`` of a batch.
        policy: ``tokens`` and ``sources``, see `fairseq_bert_kd.batch`.
        eos: start symbol of the decoder.
    """
    tokens, sources = policy["tokens"], policy["sources"]
    start = tokens.new_full((len(tokens), 1), eos)
    return {
        "src_tokens": net_input["src_tokens"][sources],
        "src_lengths": net_input["src_lengths"][sources],
        "prev_output_tokens": torch.cat([start, tokens[:, :-1]], dim=1),
    }
