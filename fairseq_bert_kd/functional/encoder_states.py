"""Hidden states and attention scores inside an encoder, taken by forward hooks.

transformers gives attention only after softmax, and with its fastest attention not at all. The hooks read the outputs of
the query and key projections instead, so the encoder runs as it is, and only the layers that are asked for cost anything.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class AttentionParts(NamedTuple):
    """Projections of a layer's attention, each from ``(batch, length, d)`` to ``(batch, length, d)``."""

    query: nn.Module
    key: nn.Module
    value: nn.Module


class EncoderParts(NamedTuple):
    """Modules of an encoder that `record` listens to.

    Attributes:
        layers: layers in order; the first one's input is the embedding output.
        attentions: attention of each layer.
        heads: attention heads of a layer.
    """

    layers: tuple[nn.Module, ...]
    attentions: tuple[AttentionParts, ...]
    heads: int


class EncoderStates:
    """States of the last forward pass under `record`.

    Attributes:
        hidden: ``(batch, length, d)`` by layer: 0 is the embedding output as the first layer gets it (in training after its
            dropout), l the output of layer l.
    """

    def __init__(self, heads: int):
        self.hidden: dict[int, Tensor] = {}
        self._heads = heads
        self._projected: dict[tuple[int, str], Tensor] = {}

    def scores(self, layer: int) -> Tensor:
        """Attention scores Q K^T / sqrt(d_head) of a layer, before mask and softmax; made anew at each call.

        Args:
            layer: number from 1, one of ``scores`` or ``relations`` of `record`.

        Returns:
            ``(batch, heads, length, length)``, indexed by query, then key.
        """
        query, key = (_split(self._projected[layer, name], self._heads) for name in ("query", "key"))
        return query @ key.transpose(-1, -2) * query.size(-1) ** -0.5

    def take_hidden(self, layer: int) -> Tensor:
        """``hidden[layer]``, which is kept no longer."""
        return self.hidden.pop(layer)

    def take_queries_and_keys(self, layer: int) -> tuple[Tensor, Tensor]:
        """What `scores` are made of, each ``(batch, length, d)``, heads side by side; they are kept no longer."""
        return self._projected.pop((layer, "query")), self._projected.pop((layer, "key"))

    def repeat_rows(self, times: int) -> None:
        """Make of each row of the batch ``times`` equal ones, one after another."""
        both: tuple[dict[Any, Tensor], ...] = (self.hidden, self._projected)
        for kept in both:
            for place, state in kept.items():
                kept[place] = state.repeat_interleave(times, dim=0)

    def relations(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of a layer in ``relations`` of `record`, each ``(batch, length, d)``, heads side by side."""
        query, key, value = (self._projected[layer, name] for name in AttentionParts._fields)
        return query, key, value


AfterLayer = Callable[[EncoderStates, int], None]


@contextlib.contextmanager
def record(
    parts: EncoderParts,
    hidden: Iterable[int] = (),
    scores: Iterable[int] = (),
    relations: Iterable[int] = (),
    after_layer: AfterLayer | None = None,
) -> Iterator[EncoderStates]:
    """Record states of the forward passes inside the ``with`` block; a later pass replaces those of the one before.

    Gradients flow through what is recorded. Hooks are gone after the block.

    Args:
        parts: modules of the encoder.
        hidden: layers whose hidden states are kept, 0 for the embedding output.
        scores: layers, from 1, whose attention scores can be asked for.
        relations: layers, from 1, whose queries, keys and values can be asked for.
        after_layer: function that is called with the states and a layer's number, 0 for the embeddings, once that is recorded of which
            something is asked for; the pass goes on afterwards.

    Raises:
        ValueError: a layer that the encoder does not have; after the block, a layer that the encoder computed without calling its
            module, as `entity_encoder` does with its mix and full layers.
    """
    hidden, scores, relations = sorted({*hidden}), sorted({*scores}), sorted({*relations})
    _check_layers(hidden, 0, len(parts.layers))
    _check_layers([*scores, *relations], 1, len(parts.layers))
    states = EncoderStates(parts.heads)
    with contextlib.ExitStack() as hooks:
        for layer in hidden:
            handle = (
                parts.layers[layer - 1].register_forward_hook(_keep(states.hidden, layer))
                if layer
                else parts.layers[0].register_forward_pre_hook(_keep_input(states.hidden), with_kwargs=True)
            )
            hooks.callback(handle.remove)
        for layer in sorted({*scores, *relations}):
            names = AttentionParts._fields if layer in relations else ("query", "key")
            for name in names:
                module = getattr(parts.attentions[layer - 1], name)
                handle = module.register_forward_hook(_keep(states._projected, (layer, name)))
                hooks.callback(handle.remove)
        if after_layer is not None:
            for layer in sorted({*hidden, *scores, *relations}):
                hooks.callback(_after(parts, layer, functools.partial(after_layer, states, layer)).remove)
        needed = {max(layer, 1) for layer in (*hidden, *scores, *relations)}  # 0 is the input of layer 1
        silent, computed = _silent_layers(parts, needed, hooks)
        yield states
    if silent and computed:
        raise ValueError(
            f"layers {', '.join(map(str, sorted(silent)))} of this encoder are computed without calling their modules, so their states "
            "cannot be read, as with the mix and full layers of `entity_encoder`; give an encoder without them, such as `hf_encoder`"
        )


def _silent_layers(
    parts: EncoderParts, layers: set[int], hooks: contextlib.ExitStack
) -> tuple[set[int], set[int]]:
    """The layers whose modules have not been called yet, and those that have been computed, by their modules or past them.

    The first set shrinks and the second one grows with every call.
    """
    silent, computed = set(layers), set[int]()
    for layer in layers:
        for module, change in (
            (parts.layers[layer - 1], silent.discard),
            (parts.layers[layer - 1], computed.add),
            (parts.attentions[layer - 1].query, computed.add),  # which runs wherever the layer is computed
        ):
            handle = module.register_forward_hook(
                lambda _module, _inputs, _output, change=change, layer=layer: change(layer)
            )
            hooks.callback(handle.remove)
    return silent, computed


def _after(parts: EncoderParts, layer: int, call: Callable[[], None]) -> RemovableHandle:
    """Hook a call to the end of a layer, behind the hooks that it has; 0 is the beginning of the first one."""
    if not layer:
        return parts.layers[0].register_forward_pre_hook(lambda _module, _inputs: call())
    return parts.layers[layer - 1].register_forward_hook(lambda _module, _inputs, _output: call())


def _keep(kept: dict[Any, Tensor], place: Any) -> Callable[..., None]:
    """A hook that keeps a module's output, or the first of several."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        kept[place] = output[0] if isinstance(output, tuple) else output

    return hook


def _keep_input(kept: dict[int, Tensor]) -> Callable[..., None]:
    """A hook that keeps a layer's input as hidden state 0."""

    def hook(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        kept[0] = inputs[0] if inputs else named["hidden_states"]

    return hook


def _split(projected: Tensor, heads: int) -> Tensor:
    """``(batch, length, d)`` to ``(batch, heads, length, d / heads)``."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


def _check_layers(layers: list[int], first: int, count: int) -> None:
    for layer in layers:
        if not first <= layer <= count:
            raise ValueError(
                f"the encoder has layers {first} to {count}, but layer {layer} is asked for; leave it out"
            )
