"""Checks of an ONNX file before a TensorRT build, without TensorRT and without a GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import onnx

from ufuser.export.onnx_file import load_onnx, metadata_of
from ufuser.export.tensorrt_operators import unsupported
from ufuser.export.tensorrt_plan import BuildFlags, Plan, cached_path
from ufuser.runtime.engines import INPUTS, OUTPUT
from ufuser.runtime.engines.manifest import engine_key
from ufuser.runtime.engines.profiles import Profile, check_profiles
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable

_QUANTIZED_ZERO = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.INT8: "int8"}


def make_plan(onnx_file: Path, profiles: Sequence[Profile], flags: BuildFlags, out: Path | None) -> Plan:
    """Check everything that can be checked without a GPU.

    Args:
        onnx_file: written by `ufuser export`.
        profiles: one or more.
        flags: build options.
        out: the engine file; None puts it into the user's cache folder, named by its key.

    Raises:
        InputError: a file that is no fusion model or is quantized for a CPU, an operator or a type that TensorRT's
            parser is not known to accept; profiles out of order; a file that cannot be written.
    """
    flags.check()
    content, model = load_onnx(onnx_file)
    _check_inputs(onnx_file, model)
    _check_quantization(onnx_file, model)
    _check_operators(onnx_file, model)
    remarks = check_profiles(profiles)
    digest = hashlib.sha256(content).hexdigest()
    if out is None:
        out = cached_path(onnx_file, engine_key(digest, {}, tuple(profiles), asdict(flags)))
    elif out.suffix != ".engine":
        raise InputError(f"out={str(out)!r}: expected a name that ends in .engine", argument="out")
    else:
        require_writable(out)
    return Plan(onnx_file, digest, metadata_of(model), tuple(profiles), flags, out, tuple(remarks))


def _check_inputs(path: Path, model: onnx.ModelProto) -> None:
    initializers = {t.name for t in model.graph.initializer}
    found = {
        value.name: (
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            [d.dim_value or d.dim_param or "?" for d in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
        if value.name not in initializers
    }
    fits = set(found) == {*INPUTS, OUTPUT} and all(
        kind == "FLOAT" and len(shape) == 4 and shape[1] == 1 and all(isinstance(s, str) for s in shape[2:])
        for kind, shape in found.values()
    )
    if not fits:
        described = ", ".join(f"{name} {kind} {shape}" for name, (kind, shape) in found.items())
        raise InputError(
            f"{path} is no fusion model: it has {described}; expected inputs ir, vi and output fused, FLOAT, "
            f"[batch, 1, height, width] with dynamic height and width, as in files of `ufuser export`"
        )


def _check_quantization(path: Path, model: onnx.ModelProto) -> None:
    """TensorRT quantizes symmetrically: it accepts only int8 with a zero point of 0."""
    tensors = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        zero = tensors.get(node.input[2])
        if zero is None:
            continue
        if zero.data_type != onnx.TensorProto.INT8 or onnx.numpy_helper.to_array(zero).any():
            kind = _QUANTIZED_ZERO.get(zero.data_type, "another type")
            raise InputError(
                f"{path} is quantized for a CPU ({node.name}: {kind}, or a zero point other than 0), which "
                f"TensorRT does not accept: export it with --precision int8 --int8-for tensorrt"
            )


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    objections = unsupported(model)
    if objections:
        more = f" and {len(objections) - 4} more" if len(objections) > 4 else ""
        raise InputError(
            f"TensorRT's ONNX parser is not known to accept {path}: {', '.join(objections[:4])}{more}; "
            f"expected a graph of `ufuser export`"
        )
