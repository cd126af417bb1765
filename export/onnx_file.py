"""ONNX files: reading with one-line errors, metadata."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ufuser.runtime.errors import InputError


def load_onnx(path: Path) -> tuple[bytes, onnx.ModelProto]:
    """A file's bytes and model. Raises InputError for anything but an ONNX file."""
    try:
        content = path.read_bytes()
    except OSError as e:
        raise InputError(
            f"cannot read {path}: {e.strerror}; expected an .onnx file of `ufuser export`"
        ) from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise InputError(
            f"{path} is not an ONNX file, or not a whole one: expected one of `ufuser export`"
        ) from None
    if not model.graph.node:
        raise InputError(f"{path} is not an ONNX file with a network in it: expected one of `ufuser export`")
    return content, model


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """The metadata properties by key."""
    return {p.key: p.value for p in model.metadata_props}


def add_metadata(model: onnx.ModelProto, notes: dict[str, str]) -> None:
    """Add properties, or replace those of the same key."""
    onnx.helper.set_model_props(model, metadata_of(model) | notes)
