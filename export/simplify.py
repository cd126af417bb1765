"""Dynamic reshapes with constant targets.

The exporter computes the target of every dynamic reshape from the input's shape, with several nodes each. ONNX can
express most of them as constants: 0 keeps an axis, one −1 is inferred. If two axes are dynamic, the target is the
shape of an earlier tensor of the same symbolic shape, which all such reshapes share.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

Shape = tuple[int | str, ...]
"""Each axis: its size, the exporter's symbol for it, or a unique name if neither is known."""


def constant_reshapes(model: ModelProto) -> None:
    """Replace computed targets of Reshape nodes, in place, and remove unused nodes.

    Relies on the symbolic shapes that the exporter leaves in `value_info`; a Reshape without them stays.
    """
    graph = model.graph
    shapes = {v.name: _shape(v) for v in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {t.name: tuple(t.dims) for t in graph.initializer}
    constants = {t.name for t in graph.initializer}
    first = {shapes[v.name]: v.name for v in reversed(graph.input)}  # the earliest tensor of each shape
    shared: dict[Shape, str] = {}  # the output of a Shape node for it
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] not in constants:
            given, wanted = shapes.get(node.input[0]), shapes.get(node.output[0])
            target = _constant_target(given, wanted) if given and wanted else None
            if target is not None:
                name = f"target_{'_'.join(str(d) for d in target)}"
                if name not in constants:
                    constants.add(name)
                    graph.initializer.append(numpy_helper.from_array(np.array(target, np.int64), name))
                node.input[1] = name
                del node.attribute[:]  # allowzero, under which 0 would not mean "keep"
            elif wanted in first:
                if wanted not in shared:
                    shared[wanted] = f"shape_of_{first[wanted]}"
                    nodes.append(helper.make_node("Shape", [first[wanted]], [shared[wanted]]))
                node.input[1] = shared[wanted]
        nodes.append(node)
        for name in node.output:
            if name in shapes:
                first.setdefault(shapes[name], name)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)


def _shape(value: ValueInfoProto) -> Shape:
    """The symbolic shape; each axis that the exporter left out is different from all others."""
    dims = value.type.tensor_type.shape.dim
    return tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param or f"{value.name}, axis {axis}"
        for axis, d in enumerate(dims)
    )


def _constant_target(given: Shape, wanted: Shape) -> list[int] | None:
    """A constant that reshapes `given` to `wanted`, or None if more than one axis had to be inferred."""
    target: list[int] = []
    for axis, dim in enumerate(wanted):
        if isinstance(dim, int):
            target.append(dim)
        elif axis < len(given) and given[axis] == dim:
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that no output depends on."""
    needed = {o.name for o in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    initializers = [t for t in graph.initializer if t.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)
