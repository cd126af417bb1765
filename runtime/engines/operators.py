"""The operators of an ONNX file, read from its bytes, without the onnx package.

Engines run `Loop`, `Scan` and `If` as the file says, in native code that no signal interrupts: an endless loop would
have to be killed. A fusion network needs none of them, so they are refused before an engine sees the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ufuser.runtime.errors import InputError

CONTROL_FLOW = frozenset(("If", "Loop", "Scan", "SequenceMap"))
_DEEPEST = 16
"""Graphs inside of attributes; deeper ones are refused."""

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _FUNCTION_NODE = 1, 7
_NODE_OPERATOR, _NODE_ATTRIBUTE = 4, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class _MalformedError(Exception):
    """These bytes are no protobuf message."""


def require_no_control_flow(model: Path) -> None:
    """Raise InputError for an ONNX file that is damaged, holds no network, or one with loops or branches."""
    found = operators_of(model)
    if not found:
        raise InputError(f"{model} is not an ONNX file with a network in it: expected one of `ufuser export`")
    refused = sorted(found & CONTROL_FLOW)
    if refused:
        raise InputError(
            f"{model} has the operator {refused[0]}: expected a fusion network without loops and branches, which "
            f"may never end"
        )


def operators_of(model: Path) -> frozenset[str]:
    """The operators of an ONNX file, those of its functions and inner graphs too. Raises InputError."""
    try:
        return frozenset(_operators(memoryview(model.read_bytes())))
    except OSError as e:
        raise InputError(f"cannot read {model}: {e.strerror}") from None
    except _MalformedError:
        raise InputError(
            f"{model} is not an ONNX file, or not a whole one: expected one of `ufuser export`"
        ) from None


def _operators(model: memoryview) -> Iterator[str]:
    for number, part in _fields(model):
        if number == _MODEL_GRAPH:
            yield from _of_nodes(part, _GRAPH_NODE, 0)
        elif number == _MODEL_FUNCTIONS:
            yield from _of_nodes(part, _FUNCTION_NODE, 0)


def _of_nodes(graph: memoryview, node_field: int, depth: int) -> Iterator[str]:
    """The operators of a graph or function, and of the graphs in its nodes' attributes."""
    if depth > _DEEPEST:
        raise _MalformedError
    for number, node in _fields(graph):
        if number != node_field:
            continue
        for inner, part in _fields(node):
            if inner == _NODE_OPERATOR:
                yield bytes(part).decode("utf-8", "replace")
            elif inner == _NODE_ATTRIBUTE:
                for kind, subgraph in _fields(part):
                    if kind in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                        yield from _of_nodes(subgraph, _GRAPH_NODE, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The numbers and contents of a message's fields of variable length. Raises _MalformedError."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire == _EIGHT_BYTES:
            at += 8
        elif wire == _FOUR_BYTES:
            at += 4
        elif wire == _LENGTH:
            length, at = _varint(message, at)
            if at + length <= len(message):
                yield number, message[at : at + length]
            at += length
        else:  # groups, which ONNX has not
            raise _MalformedError
    if at > len(message):
        raise _MalformedError


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise _MalformedError
