"""Reshapes with computed targets become constant, and answer as before."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from export.simplify import constant_reshapes


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
