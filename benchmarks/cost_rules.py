"""Multiply-accumulates of one ONNX operator from the shapes around it.

Counted are convolutions and matrix products, each once a multiplication and addition, as PyTorch's counter does
(which reports two operations for each). Elementwise operators have no MACs. An operator in neither list is an error,
because a count without it would be too small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from onnx import NodeProto, helper

from ufuser.benchmarks.shapes import Shape
from ufuser.runtime.errors import InputError

VIEWS = frozenset(("DequantizeLinear", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))
"""Operators that need no memory of their own beside their first input's."""

_NAMES = """
Abs Add And ArgMax ArgMin AveragePool BatchNormalization BitShift Cast CastLike Ceil Celu Clip Concat
Constant ConstantOfShape Cos DepthToSpace Div Dropout DynamicQuantizeLinear Elu Equal Erf Exp Expand Floor
Gather GatherElements GatherND Gelu GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample
GroupNormalization HardSigmoid HardSwish InstanceNormalization IsNaN LayerNormalization LeakyRelu Less
LessOrEqual Log LogSoftmax Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear
RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Resize Round Selu Shape Sigmoid Sign Sin Size Slice
Softmax Softplus Softsign SpaceToDepth Split Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose
Trilu Upsample Where Xor
"""
_WITHOUT_MACS = VIEWS | frozenset(_NAMES.split())


def macs(node: NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Multiply-accumulates of a node whose shapes are known.

    Args:
        node: any operator of ONNX's own domain.
        inputs: shape of each input, () where one is left out.
        outputs: shape of each output.

    Raises:
        InputError: an operator without a rule.
    """
    rule = _RULES.get(node.op_type)
    if rule is not None and not node.domain:
        return rule(node, inputs, outputs)
    if node.op_type in _WITHOUT_MACS:
        return 0
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    raise InputError(
        f"operator {name} ('{node.name}') has no rule for its multiply-accumulates: expected an exported, not an "
        f"engine's own optimised graph; a count without it would be too small"
    )


def _attribute(node: NodeProto, name: str, default: int) -> int:
    for attribute in node.attribute:
        if attribute.name == name:
            value: int = helper.get_attribute_value(attribute)
            return value
    return default


def _convolution(weight: int) -> Callable[[NodeProto, Sequence[Shape], Sequence[Shape]], int]:
    """Every output element takes one multiplication for each weight of its channel."""
    return lambda node, inputs, outputs: prod(outputs[0]) * prod(inputs[weight][1:])


def _transposed(node: NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Every input element is multiplied by each weight of its channel. Multiplications with padding count."""
    return prod(inputs[0]) * prod(inputs[1][1:])


def _product(node: NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return prod(outputs[0]) * inputs[0][-1]


def _gemm(node: NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return prod(outputs[0]) * inputs[0][0 if _attribute(node, "transA", 0) else 1]


def _einsum(node: NodeProto, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """All index values of a product of two factors; a permutation of one factor multiplies nothing."""
    equation = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "equation").decode()
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2 or "." in equation:
        raise InputError(f"Einsum '{equation}': expected two factors without an ellipsis")
    sizes = {
        index: side
        for term, shape in zip(terms, inputs, strict=True)
        for index, side in zip(term, shape, strict=True)
    }
    return prod(sizes.values())


_RULES: dict[str, Callable[[NodeProto, Sequence[Shape], Sequence[Shape]], int]] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "Gemm": _gemm,
    "Einsum": _einsum,
}
