"""Weights of ERNIE as its authors released them (``pytorch_model.bin`` of ``ernie_base``), under our names."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_bert_kd import compat
from fairseq_bert_kd.functional.entity_fusion import FULL, MIX, PLAIN
from fairseq_bert_kd.modules.entity_stream import EntityStream

# released name below a layer -> ours below the entity side of that layer; of both weight and bias
SIDE = {
    "intermediate.dense_ent": "to_hidden",
    "output.dense_ent": "from_hidden",
    "output.LayerNorm_ent": "norm",
}
ATTENTION = {
    "attention.output_ent.dense": "attention.attention.out_proj",
    "attention.output_ent.LayerNorm": "attention.norm",
}
JOINED = "attention.attention.in_proj_"  # of the released query, key and value
HEAD = {"transform.dense": "dense", "transform.LayerNorm": "norm"}
_KINDS = ("weight", "bias")
_OLD_KINDS = {".gamma": ".weight", ".beta": ".bias"}  # of layer normalisation, in some files


class ReleasedWeights:
    """The content of a released file, or a mapping like it.

    Args:
        weights: tensors by released name.
        name: path of the file, for messages.

    Raises:
        ValueError: no layer of the file has an entity side.
    """

    def __init__(self, weights: Mapping[str, Tensor], name: str):
        self.name = name
        self._weights = {_present_name(key): weight for key, weight in weights.items()}
        if all(kind == PLAIN for kind in self.kinds):
            raise ValueError(
                f"`{name}` has no layer with entities; give --entity-weights the pytorch_model.bin of a released ERNIE"
            )

    @classmethod
    def read(cls, path: str) -> "ReleasedWeights":
        """The file, or ``pytorch_model.bin`` of a folder.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it does not hold tensors alone, or not those of a released ERNIE.
        """
        file = os.path.join(path, "pytorch_model.bin") if os.path.isdir(path) else path
        if not os.path.isfile(file):
            raise FileNotFoundError(f"--entity-weights: there is no file `{file}`")
        try:
            weights = compat.load_tensors(file)
        except ValueError:
            weights = None
        if not isinstance(weights, Mapping) or not all(
            isinstance(value, Tensor) for value in weights.values()
        ):
            raise ValueError(
                f"--entity-weights: `{file}` does not hold tensors by name; give the pytorch_model.bin of a released ERNIE"
            )
        return cls(weights, file)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kind of each layer, as `EntityStream` names them."""
        layers = {int(key.split(".")[2]) for key in self._weights if key.startswith("encoder.layer.")}
        return tuple(self._kind(number) for number in sorted(layers))

    def _kind(self, number: int) -> str:
        layer = f"encoder.layer.{number}."
        if f"{layer}intermediate.dense_ent.weight" not in self._weights:
            return PLAIN
        return FULL if f"{layer}attention.self_ent.query.weight" in self._weights else MIX

    def fill(self, encoder: Any, stream: EntityStream, pooler: Any = None) -> None:
        """Copy the weights into a BERT, its entity side, and its pooler's linear layer if it has one.

        Raises:
            ValueError: layers, sizes or kinds of layers differ, or a weight is missing.
        """
        if self.kinds != stream.kinds:
            raise ValueError(
                f"the layers of `{self.name}` are {','.join(self.kinds)}, those of the model {','.join(stream.kinds)}; give "
                "--entity-layers as in the file, and an encoder with as many layers"
            )
        words = {key: self._weights[key] for key in encoder.state_dict() if key in self._weights}
        self._load(encoder, words)
        self._load(stream, dict(self._side(stream.kinds)))
        if pooler is not None:
            self._load(pooler, {kind: self._get(f"pooler.dense.{kind}") for kind in _KINDS})

    def head(self) -> dict[str, Tensor] | None:
        """Weights of the dEA head under the names of `EntityHead`; None in the file of a fine-tuned model, which has none.

        Raises:
            ValueError: only some of them are in the file.
        """
        if not any(key.startswith("cls.predictions_ent.") for key in self._weights):
            return None
        return {
            f"{ours}.{kind}": self._get(f"cls.predictions_ent.{theirs}.{kind}")
            for theirs, ours in HEAD.items()
            for kind in _KINDS
        }

    def _side(self, kinds: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Weights of the entity side under the names of `EntityStream`."""
        for number, layer_kind in enumerate(kinds):
            if layer_kind == PLAIN:
                continue
            ours, theirs = f"layers.{number}.", f"encoder.layer.{number}."
            for kind in _KINDS:
                for old, new in {**SIDE, **(ATTENTION if layer_kind == FULL else {})}.items():
                    yield f"{ours}{new}.{kind}", self._get(f"{theirs}{old}.{kind}")
                if layer_kind == FULL:
                    parts = (
                        f"{theirs}attention.self_ent.{part}.{kind}" for part in ("query", "key", "value")
                    )
                    yield f"{ours}{JOINED}{kind}", torch.cat([self._get(part) for part in parts])

    def _get(self, key: str) -> Tensor:
        if key not in self._weights:
            raise ValueError(f"`{self.name}` has no weight `{key}`; give a whole released file")
        return self._weights[key]

    def _load(self, module: Any, weights: dict[str, Tensor]) -> None:
        own = module.state_dict()
        for key, weight in own.items():
            if "position_ids" in key:  # numbers, no weight; transformers 4 keeps them
                weights.setdefault(key, weight)
            elif key not in weights:
                raise ValueError(f"`{self.name}` has no weight `{key}`; give a whole released file")
            elif weights[key].shape != weight.shape:
                raise ValueError(
                    f"`{key}` of `{self.name}` has the sizes {tuple(weights[key].shape)}, the model {tuple(weight.shape)}; "
                    "give the encoder, entity vectors and --entity-heads that the file was made with (released: "
                    "bert-base-uncased, vectors of 100, 4 heads)"
                )
        module.load_state_dict(weights)


def _present_name(key: str) -> str:
    """Released name without the model's, and without the old names of layer normalisation."""
    key = key.removeprefix("bert.")
    for old, new in _OLD_KINDS.items():
        key = key[: -len(old)] + new if key.endswith(old) else key
    return key
