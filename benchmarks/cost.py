"""Cost of one run of an ONNX graph at a given shape, per operator, without running it.

MACs are multiply-accumulates; a FLOP is one floating-point operation, so FLOPs are twice the MACs. The papers'
columns named "FLOPs" mostly count MACs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from ufuser.benchmarks.cost_rules import VIEWS, macs
from ufuser.benchmarks.shapes import Shape, known, load, with_shapes
from ufuser.runtime.errors import InputError

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.DOUBLE: 64,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.BOOL: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT32: 32,
    TensorProto.UINT32: 32,
    TensorProto.INT64: 64,
    TensorProto.UINT64: 64,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}
_LEARNED = frozenset((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)) | {
    t for t, bits in _BITS.items() if bits <= 8 and t != TensorProto.BOOL
}
"""Element types of weights. int64 constants are shapes; int32 occurs only as a quantised bias."""
_WITHOUT_TRAFFIC = VIEWS | {"Constant", "Shape", "Size"}
_READS_WHAT_IT_WRITES = frozenset(("Gather", "GatherElements", "GatherND", "Slice"))
_CONTROL_FLOW = frozenset(("If", "Loop", "Scan", "SequenceMap"))


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape and size in memory of one value of the graph."""

    shape: Shape
    bytes: int


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """One node of the graph."""

    name: str
    operator: str
    output: Shape
    macs: int
    parameters: int
    """Weights that this node is the first to use."""
    bytes_read: int
    """Bytes of all inputs, weights included, each counted once; caches are ignored."""
    bytes_written: int


@dataclass(frozen=True)
class GraphCost:
    """One run of a network."""

    operators: tuple[OperatorCost, ...]
    peak_activation_bytes: int
    """Peak memory of inputs, outputs and intermediate results in the order of the file. Each is freed after its last
    use, and reshapes are in place. Weights are not included. Engines that reorder or work in place differ."""

    @cached_property
    def parameters(self) -> int:
        """Weights stored in the graph: floating or quantised, no scalars, scales or BatchNorm statistics."""
        return sum(o.parameters for o in self.operators)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products."""
        return sum(o.macs for o in self.operators)

    @property
    def flops(self) -> int:
        """Floating-point operations of convolutions and matrix products: two for each MAC."""
        return 2 * self.macs

    @cached_property
    def bytes_moved(self) -> int:
        """Bytes read and written by all operators if every input and output passes through memory."""
        return sum(o.bytes_read + o.bytes_written for o in self.operators)

    def by_operator(self) -> dict[str, OperatorCost]:
        """Sums per operator type, sorted by MACs, then by bytes; `output` is empty."""
        groups: dict[str, list[OperatorCost]] = {}
        for cost in self.operators:
            groups.setdefault(cost.operator, []).append(cost)
        sums = [
            OperatorCost(
                f"{len(costs)} nodes",
                operator,
                (),
                sum(c.macs for c in costs),
                sum(c.parameters for c in costs),
                sum(c.bytes_read for c in costs),
                sum(c.bytes_written for c in costs),
            )
            for operator, costs in groups.items()
        ]
        sums.sort(key=lambda c: (c.macs, c.bytes_read + c.bytes_written), reverse=True)
        return {c.operator: c for c in sums}


def cost_of(model: Path | ModelProto, height: int, width: int, batch: int = 1) -> GraphCost:
    """Compute the cost of one run.

    Args:
        model: an ONNX file or graph whose picture inputs are [batch, channels, height, width]; external
            weight files are not needed.
        height, width: pixels.
        batch: pictures per run.

    Raises:
        InputError: no ONNX file, a graph fixed to another shape, one with control flow, an operator without a
            rule, or a shape that cannot be inferred.
    """
    graph = with_shapes(model if isinstance(model, ModelProto) else load(model), batch, height, width)
    tensors = _tensors(graph)
    weights = {t.name for t in graph.initializer}
    learned = _learned(graph)
    operators = []
    for node in graph.node:
        inputs = [tensors[name] if name else Tensor((), 0) for name in node.input]
        outputs = [tensors[name] for name in node.output if name]
        new = [name for name in dict.fromkeys(node.input) if name in learned]
        learned.difference_update(new)
        read = sum(tensors[name].bytes for name in dict.fromkeys(node.input) if name)
        written = sum(o.bytes for o in outputs)
        if node.op_type in _WITHOUT_TRAFFIC:
            read = written = 0
        elif node.op_type in _READS_WHAT_IT_WRITES:
            read = written
        operators.append(
            OperatorCost(
                node.name,
                node.op_type,
                outputs[0].shape if outputs else (),
                macs(node, [i.shape for i in inputs], [o.shape for o in outputs]),
                sum(prod(tensors[name].shape) for name in new),
                read,
                written,
            )
        )
    return GraphCost(tuple(operators), _peak(graph, tensors, weights))


def _tensors(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """Every value of the graph, or an InputError."""
    found = {name: _tensor(shape, element) for name, (shape, element) in known(graph).items()}
    for node in graph.node:
        if node.op_type in _CONTROL_FLOW:
            raise InputError(f"operator {node.op_type} ('{node.name}'): its cost depends on what it is given")
        for name in node.output:
            if name and name not in found:
                raise InputError(
                    f"the shape of '{name}', made by {node.op_type} ('{node.name}'), cannot be inferred"
                )
        if node.op_type == "DequantizeLinear":  # engines convert on the fly, in the operator that reads it
            quantised, result = node.input[0], node.output[0]
            found[result] = Tensor(found[result].shape, found[quantised].bytes)
    return found


def _tensor(shape: Shape, element: int) -> Tensor:
    if element not in _BITS:
        known_types = TensorProto.DataType.values()
        name = TensorProto.DataType.Name(element) if element in known_types else element
        raise InputError(f"element type {name}: its size is unknown here")
    return Tensor(shape, -(-prod(shape) * _BITS[element] // 8))


def _learned(graph: onnx.GraphProto) -> set[str]:
    """Initializers that are weights."""
    biases = {node.input[i] for node in graph.node for i in _int32_biases(node) if i < len(node.input)}
    others = {node.input[i] for node in graph.node for i in _settings(node) if i < len(node.input)}
    return {
        t.name
        for t in graph.initializer
        if t.dims and t.name not in others and (t.data_type in _LEARNED or t.name in biases)
    }


def _int32_biases(node: NodeProto) -> tuple[int, ...]:
    return {"DequantizeLinear": (0,), "QLinearConv": (8,)}.get(node.op_type, ())


def _settings(node: NodeProto) -> tuple[int, ...]:
    """Inputs that hold statistics, scales and zero points."""
    by_operator: Mapping[str, tuple[int, ...]] = {
        "BatchNormalization": (3, 4),
        "DequantizeLinear": (1, 2),
        "QuantizeLinear": (1, 2),
        "QLinearConv": (1, 2, 4, 5, 6, 7),
        "QLinearMatMul": (1, 2, 4, 5, 6, 7),
        "Resize": (1, 2, 3),
    }
    return by_operator.get(node.op_type, ())


def _peak(graph: onnx.GraphProto, tensors: Mapping[str, Tensor], weights: set[str]) -> int:
    """Most bytes of activations alive at once; see `GraphCost.peak_activation_bytes`."""
    given = [v.name for v in graph.input if v.name not in weights]
    constant = set(weights)  # and what engines compute once from weights alone
    owner = {name: name for name in given}  # value → the value whose memory it lies in
    last: dict[str, int] = {}
    for step, node in enumerate(graph.node):
        if all(name in constant for name in node.input if name):
            constant.update(node.output)
            continue
        for name in node.output:
            owner[name] = owner.get(node.input[0], name) if node.op_type in VIEWS else name
        for name in (*node.input, *node.output):
            if name in owner:
                last[owner[name]] = step
    held = {*given, *(owner[v.name] for v in graph.output if v.name in owner)}  # the caller's
    living = {name: tensors[name].bytes for name in given}
    peak = sum(living.values())
    for step, node in enumerate(graph.node):
        living |= {n: tensors[n].bytes for n in node.output if owner.get(n) == n}
        peak = max(peak, sum(living.values()))
        for name in {owner[n] for n in (*node.input, *node.output) if n in owner}:
            if last[name] == step and name not in held:
                living.pop(name, None)
    return peak
