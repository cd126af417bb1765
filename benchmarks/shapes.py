"""Shape inference of an ONNX graph for one picture size.

ONNX's own inference does the work. If a shape depends on a small computation from constants, such as the amounts of
a Pad in some exports, that part is evaluated and inference is repeated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from ufuser.runtime.errors import InputError, first_line

Shape = tuple[int, ...]

_SMALL = 1024
"""Elements of the largest constant that may define a shape; larger constants are weights."""


def load(model: Path) -> ModelProto:
    """Read a graph without external weight files. Raises InputError if the file is missing or is no ONNX file."""
    if not model.is_file():
        raise InputError(f"no model file {model}: expected an .onnx file")
    try:
        return onnx.load(str(model), load_external_data=False)
    except Exception as e:  # protobuf and onnx raise unrelated classes
        raise InputError(f"{model} is not an ONNX file: {first_line(e)}") from None


def with_shapes(model: ModelProto, batch: int, height: int, width: int) -> GraphProto:
    """Fix the picture inputs and infer all other shapes into `value_info`.

    Weights keep their shapes but lose their values.

    Raises:
        InputError: an input is no picture or has another fixed shape, shapes contradict each other, or the graph is
            not one: a node has other inputs or attributes than its operator, or takes what nothing makes.
    """
    try:
        _check_nodes(model)
    except UnicodeDecodeError:
        raise InputError("a name in the graph is not UTF-8") from None
    fixed = _without_weights(inliner.inline_local_functions(model) if model.functions else model)
    weights = {t.name for t in fixed.graph.initializer}
    for value in fixed.graph.input:
        if value.name not in weights:
            _fix(value, batch, height, width)
    inferred = _inferred(fixed, (batch, height, width))
    while _fold(inferred):
        inferred = _inferred(inferred, (batch, height, width))
    return inferred.graph


def _check_nodes(model: ModelProto) -> None:
    """Raise InputError unless every node fits its operator and takes what is there. Weights are not looked at."""
    graph = model.graph
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {opset.domain: opset.version for opset in model.opset_import}
    own = {(function.domain, function.name) for function in model.functions}
    there = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        missing = [name for name in node.input if name and name not in there]
        if missing:
            raise InputError(
                f"'{node.name}' ({node.op_type}) takes '{missing[0]}', which nothing before it makes"
            )
        there.update(node.output)
        try:
            if (node.domain, node.op_type) not in own:
                onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as e:
            raise InputError(f"'{node.name}' ({node.op_type}): {first_line(e)}") from None


def known(graph: GraphProto) -> dict[str, tuple[Shape, int]]:
    """Shape and element type of every value for which both are known."""
    found = {t.name: (tuple(t.dims), t.data_type) for t in graph.initializer}
    for value in (*graph.value_info, *graph.output, *graph.input):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            found[value.name] = (tuple(d.dim_value for d in kind.shape.dim), kind.elem_type)
    return found


def _without_weights(model: ModelProto) -> ModelProto:
    """A copy in which large constants have a shape but no data, because inference copies its input."""
    copy = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = model.graph
    copy.graph.CopyFrom(GraphProto(name=graph.name, node=graph.node, input=graph.input, output=graph.output))
    for tensor in graph.initializer:
        small = int(np.prod(tensor.dims, dtype=np.int64)) <= _SMALL
        shape_only = onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        copy.graph.initializer.append(tensor if small else shape_only)
    for value in copy.graph.output:  # the exporter's symbolic axes
        value.type.tensor_type.ClearField("shape")
    return copy


def _fix(value: onnx.ValueInfoProto, batch: int, height: int, width: int) -> None:
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise InputError(
            f"input '{value.name}' has {len(dims)} axes: expected pictures, [batch, channels, height, width]"
        )
    for axis, side in ((0, batch), (2, height), (3, width)):
        if dims[axis].dim_value not in (0, side):
            raise InputError(
                f"input '{value.name}' is fixed to {dims[axis].dim_value} on axis {axis}, but {side} was requested: "
                f"export it with dynamic axes, or request its own shape"
            )
        dims[axis].dim_value = side


def _inferred(model: ModelProto, size: Shape) -> ModelProto:
    try:
        return shape_inference.infer_shapes(model, data_prop=True, strict_mode=True)
    except shape_inference.InferenceError as e:
        reason = first_line(e)
        raise InputError(f"shapes cannot be inferred at {'x'.join(map(str, size))}: {reason}") from None


def _fold(model: ModelProto) -> bool:
    """Evaluate, in place, the nodes that depend on small constants and known shapes only, if shapes are missing.

    Returns False if no shape is missing or no node can be evaluated.
    """
    graph = model.graph
    shapes = known(graph)
    if all(name in shapes for node in graph.node for name in node.output if name):
        return False
    values = {t.name: t for t in graph.initializer if t.raw_data or not _is_large(t)}
    part: list[NodeProto] = []
    computed: set[str] = set()
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes:
            ends = {a.name: a.i for a in node.attribute}
            shape = np.array(shapes[node.input[0]][0], np.int64)[ends.get("start") : ends.get("end")]
            part.append(
                helper.make_node(
                    "Constant", [], list(node.output), value=numpy_helper.from_array(shape, node.output[0])
                )
            )
        elif node.op_type == "Range":  # inference needs its inputs, and its result is no constant
            continue
        elif all(name in values or name in computed for name in node.input if name):
            part.append(node)
        else:
            continue
        computed.update(node.output)
    wanted = [
        name
        for node in graph.node
        if not computed.issuperset(node.output)
        for name in node.input
        if name in computed
    ]
    constants = {node.output[0] for node in graph.node if node.op_type == "Constant"}
    wanted = [name for name in dict.fromkeys(wanted) if name not in constants]
    if not wanted:
        return False
    outputs = [helper.make_empty_tensor_value_info(name) for name in wanted]
    subgraph = helper.make_graph(part, "constants", [], outputs, list(values.values()))
    try:
        evaluator = ReferenceEvaluator(helper.make_model(subgraph, opset_imports=model.opset_import))
        results = dict(zip(wanted, evaluator.run(None, {}), strict=True))
    except Exception as e:  # whatever NumPy raises for a graph that does not fit together
        raise InputError(f"shapes cannot be computed: {first_line(e)}") from None
    _replace(graph, {name: np.asarray(value) for name, value in results.items()})
    return True


def _is_large(tensor: onnx.TensorProto) -> bool:
    return int(np.prod(tensor.dims, dtype=np.int64)) > _SMALL


def _replace(graph: GraphProto, results: dict[str, np.ndarray]) -> None:
    """Replace nodes by their results and drop the nodes that are no longer needed."""
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in results.items())
    needed = {v.name for v in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output) - set(results):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
