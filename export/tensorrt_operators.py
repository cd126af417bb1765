"""ONNX operators and element types that TensorRT's parser accepts, checked without a GPU.

From the parser's table (onnx-tensorrt, `docs/operators.md`, as of TensorRT 10.15), as far as image networks use it:
`KNOWN` may be extended by other operators of the table. A strongly typed network takes every type from the graph, so
types are checked as well as names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_NUMBERS = _FLOATS | {TensorProto.INT32, TensorProto.INT64}
_ANY = _NUMBERS | {TensorProto.BOOL}


def _table() -> dict[str, frozenset[int]]:
    kinds = {
        _FLOATS: "AveragePool BatchNormalization Ceil Clip Conv ConvTranspose Cos Erf Exp Floor Gelu GlobalAveragePool "
        "HardSigmoid InstanceNormalization LayerNormalization LeakyRelu Log MatMul PRelu QuantizeLinear Reciprocal "
        "Resize Round Sigmoid Sin Softmax Softplus Sqrt Tanh",
        _NUMBERS: "Abs Add DepthToSpace Div Greater Less Max Mean Min Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 "
        "ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Sign SpaceToDepth Sub Sum",
        _ANY: "Cast Concat Constant ConstantOfShape Equal Expand Flatten Gather Identity Reshape Shape Slice Split "
        "Squeeze Tile Transpose Unsqueeze Where",
        frozenset({TensorProto.INT8}): "DequantizeLinear",
    }
    return {name: types for types, names in kinds.items() for name in names.split()}


KNOWN: Mapping[str, frozenset[int]] = _table()
"""Operator → element types of its first input."""
_RESIZE = {
    "mode": {"nearest", "linear"},
    "coordinate_transformation_mode": {
        "half_pixel",
        "pytorch_half_pixel",
        "tf_half_pixel_for_nn",
        "asymmetric",
        "align_corners",
    },
    "nearest_mode": {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"},
    "keep_aspect_ratio_policy": {"stretch"},
}


def unsupported(model: onnx.ModelProto) -> list[str]:
    """Operators and types of a graph that TensorRT's parser is not known to accept, each with a node's name."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in KNOWN:
            domain = f"{node.domain}:" if node.domain else ""
            found.setdefault(f"operator {domain}{node.op_type}", node.name or node.output[0])
    return [f"{reason} ('{name}')" for reason, name in (found or _by_type(model)).items()]


def _by_type(model: onnx.ModelProto) -> dict[str, str]:
    """Known operators with unknown types or settings, and the first node with each."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError as e:
        return {"types that contradict each other": " ".join(str(e).split())[:200]}
    types = {t.name: t.data_type for t in inferred.initializer}
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types |= {v.name: v.type.tensor_type.elem_type for v in values}
    constants = {t.name for t in model.graph.initializer}
    constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    found: dict[str, str] = {}
    for node in model.graph.node:
        for reason in _objections(node, types, constants):
            found.setdefault(reason, node.name or node.output[0])
    return found


def _objections(node: onnx.NodeProto, types: Mapping[str, int], constants: set[str]) -> Iterator[str]:
    kind = types.get(node.input[0]) if node.input else None
    if kind and kind not in KNOWN[node.op_type]:
        yield f"{node.op_type} of {TensorProto.DataType.Name(kind)}"
    if node.op_type == "Resize":
        settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for name, values in _RESIZE.items():
            value = settings.get(name, b"").decode()
            if value and value not in values:
                yield f"Resize with {name} {value}"
        if settings.get("antialias"):
            yield "Resize with antialias"
    if node.op_type in ("Conv", "ConvTranspose") and types.get(node.input[1]) != kind:
        yield f"{node.op_type} with a kernel of another type than its map"
    if node.op_type.startswith("Reduce") and len(node.input) > 1 and node.input[1] not in constants:
        yield f"{node.op_type} over computed axes"
