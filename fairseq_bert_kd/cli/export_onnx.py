"""Format ``onnx`` of ``export-student``: a folder with a graph that makes sentence vectors, and its tokenizer."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd import compat
from fairseq_bert_kd.cli.export_transformers import own_tokenizer, read_others_as_unknown

SUMMARY = (
    "a FOLDER with model.onnx and tokenizer, of a sentence_lstm: token ids and their mask to sentence vectors"
)
OPTIONS: dict[str, dict[str, Any]] = {}
FILE = "model.onnx"
OPSET, IR_VERSION = 17, 8  # both of 2022, so that older runtimes read the file
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "sentence_embedding"
_LEAST = np.finfo(np.float32).min
_GATES = [0, 3, 1, 2]  # torch's input, forget, cell, output in the order of ONNX: input, output, forget, cell


def write(state: dict[str, Any], output: Path, args: argparse.Namespace) -> str:
    """Write the folder; what to say about it.

    Raises:
        ValueError: the checkpoint is no ``sentence_lstm``, or another tokenizer than its own.
        InstallationError: the package onnx is not installed.
    """
    from fairseq_bert_kd.modules.sentence_lstm_spec import spec_of_state

    onnx = compat.import_extra("onnx", "onnx", "--format onnx")
    spec = spec_of_state(state, f"`{args.checkpoint}`")
    tokenizer = own_tokenizer(state, args, spec.digests["tokenizer"])
    read_others_as_unknown(state["model"]["embedding.weight"], state)
    weights = {
        name: weight.float().numpy() for name, weight in state["model"].items() if weight.is_floating_point()
    }
    graph = VectorGraph(onnx, weights, spec.sizes, len(spec.text_format.prefix))
    output.mkdir()
    onnx.save(graph.model(), str(output / FILE))
    tokenizer.save(str(output))
    _without_limits(output / "tokenizer.json")
    left_out = any(name.startswith("classification_heads.") for name in weights)
    said = f"vectors of {spec.sizes['vector_dim']} numbers"
    return said + (", without the classification head" if left_out else "")


def _without_limits(path: Path) -> None:
    """Let a saved tokenizer neither cut nor pad: the teacher's length is not the student's, which has none."""
    stated = json.loads(path.read_text(encoding="utf-8"))
    stated |= {"truncation": None, "padding": None}
    path.write_text(json.dumps(stated, ensure_ascii=False, indent=2), encoding="utf-8")


class VectorGraph:
    """The ONNX graph of a ``sentence_lstm``.

    Args:
        onnx: the package.
        weights: weights of the checkpoint, by name.
        sizes: sizes of its `LstmSpec`.
        prefix: special tokens that the tokenizer writes before a text, which the LSTM does not read.
    """

    def __init__(self, onnx: Any, weights: Mapping[str, NDArray[Any]], sizes: Mapping[str, Any], prefix: int):
        self.onnx, self.weights, self.sizes = onnx, weights, sizes
        self._nodes: list[Any] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._build(prefix)

    def model(self) -> Any:
        """The model, checked."""
        helper, types = self.onnx.helper, self.onnx.TensorProto
        shape = ["batch", "length"]
        graph = helper.make_graph(
            self._nodes,
            "sentence_lstm",
            [helper.make_tensor_value_info(name, types.INT64, shape) for name in INPUTS],
            [helper.make_tensor_value_info(OUTPUT, types.FLOAT, ["batch", self.sizes["vector_dim"]])],
            [self.onnx.numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="fairseq-bert-kd"
        )
        self.onnx.checker.check_model(model)
        return model

    # ------------------------------------------------------------ parts

    def _node(self, kind: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """Add a node; the name of its output, or the names of several."""
        names = [name] if name else [f"{kind.lower()}_{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(self.onnx.helper.make_node(kind, inputs, names, **attributes))
        return names[0] if len(names) == 1 else names

    def _constant(self, value: Any, dtype: str = "float32") -> str:
        name = f"constant_{len(self._constants)}"
        self._constants[name] = np.ascontiguousarray(value, dtype=dtype)
        return name

    def _ints(self, *values: int) -> str:
        return self._constant(values, "int64")

    def _build(self, prefix: int) -> None:
        ids, mask = (
            self._node("Slice", name, self._ints(prefix), self._ints(np.iinfo(np.int64).max), self._ints(1))
            for name in INPUTS
        )
        lengths = self._node("ReduceSum", mask, self._ints(1), keepdims=0)
        sequence_lens = self._node("Cast", lengths, to=self.onnx.TensorProto.INT32)
        embedding = self._constant(self.weights["embedding.weight"])
        states = self._node("Transpose", self._node("Gather", embedding, ids), perm=[1, 0, 2])
        last = ""
        for layer in range(self.sizes["lstm_layers"]):
            states, last = self._lstm(layer, states, sequence_lens)
        hidden = self._node("Transpose", states, perm=[1, 0, 2])  # (batch, length, 2 * c)
        present = self._node("Unsqueeze", mask, self._ints(2))
        pooled = getattr(self, f"_{self.sizes['pooling']}")(hidden, present, last)
        weight, bias = (self._constant(self.weights[f"output.{name}"]) for name in ("weight", "bias"))
        self._node("Gemm", pooled, weight, bias, transB=1, name=OUTPUT)

    def _lstm(self, layer: int, states: str, lengths: str) -> tuple[str, str]:
        """``(length, batch, 2 * c)`` states of a layer, and its ``(batch, 2 * c)`` last ones."""
        size = self.sizes["hidden_size"]
        directions = ("", "_reverse")

        def gates(name: str) -> list[NDArray[Any]]:
            parts = [self.weights[f"lstm.{name}_l{layer}{direction}"] for direction in directions]
            return [np.concatenate([np.split(part, 4)[gate] for gate in _GATES]) for part in parts]

        into, between = (self._constant(np.stack(gates(name))) for name in ("weight_ih", "weight_hh"))
        biases = zip(gates("bias_ih"), gates("bias_hh"), strict=True)
        bias = self._constant(np.stack([np.concatenate(pair) for pair in biases]))
        everything, last, _ = self._node(
            "LSTM",
            states,
            into,
            between,
            bias,
            lengths,
            outputs=3,
            direction="bidirectional",
            hidden_size=size,
        )
        by_batch = self._node("Transpose", everything, perm=[0, 2, 1, 3])
        states = self._node("Reshape", by_batch, self._ints(0, 0, 2 * size))
        last = self._node("Reshape", self._node("Transpose", last, perm=[1, 0, 2]), self._ints(0, 2 * size))
        return states, last

    # ------------------------------------------------------------ poolings

    def _only_present(self, values: str, present: str) -> str:
        """The values where a token is, else the least number."""
        there = self._node("Cast", present, to=self.onnx.TensorProto.BOOL)
        return self._node("Where", there, values, self._constant(_LEAST))

    def _max(self, hidden: str, present: str, last: str) -> str:
        return self._node("ReduceMax", self._only_present(hidden, present), axes=[1], keepdims=0)

    def _mean(self, hidden: str, present: str, last: str) -> str:
        weights = self._node("Cast", present, to=self.onnx.TensorProto.FLOAT)
        total = self._node("ReduceSum", self._node("Mul", hidden, weights), self._ints(1), keepdims=0)
        return self._node("Div", total, self._node("ReduceSum", weights, self._ints(1), keepdims=0))

    def _last(self, hidden: str, present: str, last: str) -> str:
        return last

    def _attention(self, hidden: str, present: str, last: str) -> str:
        dense = self._constant(self.weights["attention.0.weight"].T)
        inner = self._node(
            "Add", self._node("MatMul", hidden, dense), self._constant(self.weights["attention.0.bias"])
        )
        scores = self._node(
            "MatMul", self._node("Tanh", inner), self._constant(self.weights["attention.2.weight"].T)
        )
        weights = self._node("Softmax", self._only_present(scores, present), axis=1)
        return self._node("ReduceSum", self._node("Mul", hidden, weights), self._ints(1), keepdims=0)
