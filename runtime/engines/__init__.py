"""One contract for every inference engine, and how to open one by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError

Image = NDArray[np.float32]

ENGINES = ("onnxruntime",)


class Engine(Protocol):
    """Runs one fusion network. Not thread-safe: one engine a thread."""

    @property
    def name(self) -> str:
        """What runs it, with version and device."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The model file's metadata."""

    def bind(self, height: int, width: int) -> tuple[Image, Image, Image]:
        """Buffers (ir, vi, fused), each height×width float32, that `run` reads and writes.

        Both sides must be multiples of the model's `shape_multiple`. The same shape gives the same buffers again.
        """

    def run(self) -> None:
        """Fuse what lies in the bound ir and vi into the bound fused."""


def open_engine(name: str, model: Path, threads: int | None) -> Engine:
    """Load a model file into an engine.

    Args:
        name: one of `ENGINES`.
        model: ONNX file written by `export/to_onnx.py`.
        threads: CPU threads; None leaves the choice to the engine.

    Raises:
        InputError: unknown engine, engine not installed, or a file that it can't load.
    """
    if name == "onnxruntime":
        from runtime.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(model, threads)
    raise InputError(f"unknown engine '{name}': expected one of {', '.join(ENGINES)}")
