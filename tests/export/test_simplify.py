"""Reshapes with computed targets become constant, and answer as before."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ufuser.export.simplify import constant_reshapes


def graph(allowzero: int) -> onnx.ModelProto:
    """[b, 4, h, w] → [b, 2, 2, h·w] → back, both targets computed from the input's shape."""

    def value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Shape", ["x"], ["b"], start=0, end=1),
        helper.make_node("Concat", ["b", "rest"], ["flat_target"], axis=0),
        helper.make_node("Reshape", ["x", "flat_target"], ["flat"], allowzero=allowzero),
        helper.make_node("Neg", ["flat"], ["negative"]),
        helper.make_node("Shape", ["x"], ["hw"], start=2, end=4),
        helper.make_node("Concat", ["b", "four", "hw"], ["back_target"], axis=0),
        helper.make_node("Reshape", ["negative", "back_target"], ["y"], allowzero=allowzero),
    ]
    initializers = [
        helper.make_tensor("rest", TensorProto.INT64, [3], [2, 2, -1]),
        helper.make_tensor("four", TensorProto.INT64, [1], [4]),
    ]
    flat: list[int | str] = ["b", 2, 2, "h*w"]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [value("x", ["b", 4, "h", "w"])],
            [value("y", ["b", 4, "h", "w"])],
            initializers,
            value_info=[value("flat", flat), value("negative", flat)],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


@pytest.mark.parametrize("allowzero", [0, 1])
def test_targets_become_constant_or_shared(allowzero: int) -> None:
    model = graph(allowzero)
    before = model.SerializeToString()
    constant_reshapes(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node].count("Concat") == 0
    assert len(model.graph.node) == 4  # two reshapes, the negation, one shape
    x = np.random.default_rng(0).random((3, 4, 5, 7), np.float32)
    answers = [
        onnxruntime.InferenceSession(m, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for m in (before, model.SerializeToString())
    ]
    np.testing.assert_array_equal(answers[0], answers[1])


def test_a_reshape_of_unknown_shape_is_left_alone() -> None:
    model = graph(0)
    del model.graph.value_info[:]
    nodes = len(model.graph.node)
    constant_reshapes(model)
    # The way back still has a known target: the input's own shape. The way there is not touched.
    assert model.graph.node[[n.op_type for n in model.graph.node].index("Reshape")].input[1] == "flat_target"
    assert len(model.graph.node) <= nodes


def unshuffled() -> onnx.ModelProto:
    """`PixelUnshuffle(2)` as PyTorch 2.13 exports it: its tensors' axes have no names in `value_info`."""

    def value(name: str, shape: list[int | str | None]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Shape", ["x"], ["channels"], start=1, end=2),
        *(helper.make_node("Shape", ["x"], [n], start=i, end=i + 1) for i, n in ((2, "h"), (3, "w"))),
        helper.make_node("Div", ["h", "two"], ["h2"]),
        helper.make_node("Div", ["w", "two"], ["w2"]),
        helper.make_node("Concat", ["one", "channels", "h2", "two", "w2", "two"], ["cut"], axis=0),
        helper.make_node("Reshape", ["x", "cut"], ["cells"]),
        helper.make_node("Transpose", ["cells"], ["apart"], perm=[0, 1, 3, 5, 2, 4]),
        helper.make_node("Mul", ["channels", "four"], ["channels4"]),
        helper.make_node("Concat", ["one", "channels4", "h2", "w2"], ["joined"], axis=0),
        helper.make_node("Reshape", ["apart", "joined"], ["y"]),
    ]
    constants = {"one": -1, "two": 2, "four": 4}
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [value("x", ["b", 1, "2*h", "2*w"])],
            [value("y", [None] * 4)],
            [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in constants.items()],
            value_info=[value("cells", [None] * 6), value("apart", [None] * 6)],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def test_axes_of_unknown_size_are_not_taken_for_alike() -> None:
    model = unshuffled()
    before = model.SerializeToString()
    constant_reshapes(model)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).random((3, 1, 6, 10), np.float32)
    expected, given = (
        onnxruntime.InferenceSession(m, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for m in (before, model.SerializeToString())
    )
    assert expected.shape == (3, 4, 3, 5)
    np.testing.assert_array_equal(given, expected)
