"""An entity stream beside a BERT's last layers (ERNIE, Zhang et al. 2019, with the released code's residuals)."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn

from fairseq_bert_kd.functional.entity_fusion import FULL, KINDS, MIX, PLAIN, EntityInput
from fairseq_bert_kd.modules.encoder_layers import inside

ZERO = "zero"
NORMAL = "normal"
INITS = (ZERO, NORMAL)
INIT_STD = 0.02
SUPPORTED = ("bert", "roberta", "xlm-roberta", "camembert")


class EntityAttention(nn.Module):
    """Self-attention among entities with residual and layer normalisation: ``LN(MHA(e) + e) * present``.

    Args:
        width: of an entity's vector.
        heads: which divide the width.
        dropout: of attention and output.
        eps: of the layer normalisation.
    """

    def __init__(self, width: int, heads: int, dropout: float, eps: float):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """``(batch, length, width)`` states and ``(batch, length)`` bool to new states, zeros where nothing is present."""
        mixed, _ = self.attention(states, states, states, key_padding_mask=~present, need_weights=False)
        return self.norm(self.dropout(mixed) + states) * present[..., None]


class EntityLayer(nn.Module):
    """The entity side of a mix or full layer.

    With w~ of the token's attention, ``h = act(W w~ + b + U e~ + c)`` gives ``w' = LN(W_t h + b_t + w~)`` and
    ``e' = LN_e(W_e h + b_e + e~)``. W, W_t and the token's attention are BERT's own. A full layer first lets entities attend to
    each other, a mix layer does not. The bias c reaches tokens without entity too, as released.

    Args:
        config: of the encoder.
        kind: "mix" or "full".
        width: of an entity's vector.
        heads: of the entities' attention.
    """

    def __init__(self, config: Any, kind: str, width: int, heads: int):
        super().__init__()
        eps, dropout = config.layer_norm_eps, config.hidden_dropout_prob
        self.attention = EntityAttention(width, heads, dropout, eps) if kind == FULL else None
        self.to_hidden = nn.Linear(width, config.intermediate_size)  # U, c
        self.from_hidden = nn.Linear(config.intermediate_size, width)  # W_e, b_e
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps)

    def forward(
        self, layer: Any, tokens: Tensor, mask: Tensor, entities: EntityInput
    ) -> tuple[Tensor, Tensor]:
        """Run BERT's layer with the entity stream.

        Args:
            layer: BERT's layer.
            tokens: ``(batch, length, d)``.
            mask: of the tokens' attention, as the layer takes it.
            entities: ``(batch, length, width)`` states and where they are.

        Returns:
            New token states and new entity states.
        """
        attended = layer.attention(tokens, mask)[0]
        if self.attention is None:
            states = entities.vectors * entities.present[..., None]
        else:
            states = self.attention(*entities)
        inner = layer.intermediate.dense(attended) + self.to_hidden(states)
        hidden = layer.intermediate.intermediate_act_fn(inner)
        return layer.output(hidden, attended), self.norm(self.dropout(self.from_hidden(hidden)) + states)


class EntityStream(nn.Module):
    """Entity side of all layers of an encoder.

    Args:
        encoder: a transformers BERT or RoBERTa.
        kinds: kind of each layer, one of `KINDS`; fewer ones are those of the last layers, the others are plain.
        width: of an entity's vector.
        heads: of the entities' attention.
        init: "zero" begins exactly as the encoder alone (ours), "normal" with N(0, 0.02) as released.

    Raises:
        ValueError: a kind or model type that is not known, more kinds than layers, no layer with entities, or heads that do
            not divide the width.
    """

    def __init__(self, encoder: Any, kinds: Sequence[str], width: int, heads: int, init: str = ZERO):
        super().__init__()
        _check_kinds(encoder, kinds)
        if heads < 1 or width % heads:
            raise ValueError(
                f"--entity-heads must be at least 1 and divide the width of the entity vectors, got {heads} and {width}; give another number, or "
                "vectors of another width"
            )
        plain = encoder.config.num_hidden_layers - len(kinds)
        self.kinds = (*[PLAIN] * plain, *kinds)
        self.heads, self.width = heads, width
        self.layers = nn.ModuleDict(
            {
                str(number): EntityLayer(encoder.config, kind, width, heads)
                for number, kind in enumerate(self.kinds)
                if kind != PLAIN
            }
        )
        self._initialise(init)

    def train_last_states(self) -> None:
        """Train what only the last entity states need, for a model that reads them; it is frozen at first."""
        self._last_states_need(True)

    def _last_states_need(self, gradients: bool) -> None:
        *_, last = self.layers.values()
        for part in (last.from_hidden, last.norm):
            part.requires_grad_(gradients)

    def _initialise(self, init: str) -> None:
        assert init in INITS, init
        for name, module in self.layers.named_modules():
            # W_e stays as it is: at zero, the first token's entity state would be LN(0), whose gradient is 1 / sqrt(eps)
            zero = init == ZERO and name.endswith("to_hidden")
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.0 if zero else INIT_STD)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.MultiheadAttention):
                nn.init.normal_(module.in_proj_weight, std=INIT_STD)
                nn.init.zeros_(module.in_proj_bias)
        self._last_states_need(False)  # nothing reads them

    def forward(
        self,
        encoder: Any,
        entities: EntityInput,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Optional[Tensor] = None,
    ) -> tuple[Tensor, Tensor]:
        """Last hidden states of the tokens, ``(batch, length, d)``, and last entity states, ``(batch, length, width)``.

        Args:
            encoder: the one that the stream was made for.
            entities: the stream's input.
            input_ids: ``(batch, length)`` encoder ids.
            attention_mask: ``(batch, length)``, 1 on tokens.
            token_type_ids: ``(batch, length)`` segments.
        """
        tokens = encoder.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        least = torch.finfo(tokens.dtype).min
        mask = (attention_mask == 0)[:, None, None, :].to(tokens.dtype) * least
        # the kernels of attention want a mask of the whole shape
        mask = mask.expand(-1, -1, tokens.size(1), -1)
        states = EntityInput(entities.vectors.to(tokens.dtype), entities.present)
        for number, layer in enumerate(inside(encoder).layers):
            if self.kinds[number] == PLAIN:
                output = layer(tokens, mask)
                tokens = output if isinstance(output, Tensor) else output[0]  # transformers 4: a tuple
            else:
                tokens, vectors = self.layers[str(number)](layer, tokens, mask, states)
                states = states._replace(vectors=vectors)
        return tokens, states.vectors


class EntityHead(nn.Module):
    """dEA head: ``LN(act(W h + b))`` in the space of the entity vectors (released code).

    Args:
        config: of the encoder.
        width: of an entity's vector.
    """

    def __init__(self, config: Any, width: int):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, width)
        self.norm = nn.LayerNorm(width, config.layer_norm_eps)
        nn.init.normal_(self.dense.weight, std=INIT_STD)
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: Tensor) -> Tensor:
        """``(rows, d)`` token states to ``(rows, width)``."""
        return self.norm(nn.functional.gelu(self.dense(states)))


def _check_kinds(encoder: Any, kinds: Sequence[str]) -> None:
    config = encoder.config
    if config.model_type not in SUPPORTED:
        raise ValueError(
            f"an entity stream needs an encoder of type {', '.join(SUPPORTED)}, got `{config.model_type}`; give another encoder"
        )
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"--entity-layers must be of {', '.join(KINDS)}, got `{unknown[0]}`")
    if len(kinds) > config.num_hidden_layers:
        raise ValueError(
            f"--entity-layers names {len(kinds)} layers, the encoder has {config.num_hidden_layers}; give as many or fewer"
        )
    if all(kind == PLAIN for kind in kinds):
        raise ValueError(
            f"--entity-layers must name at least one {MIX} or {FULL} layer, got `{','.join(kinds)}`: without one no entity is read"
        )
