"""The contract of inference engines, and opening one by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.engines.operators import require_no_control_flow
from ufuser.runtime.engines.profiles import Profile
from ufuser.runtime.errors import InputError
from ufuser.runtime.limits import require_threads

Image = NDArray[np.float32]

CPU_ENGINES = ("onnxruntime", "openvino")
GPU_ENGINES = ("tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt")
ENGINES = CPU_ENGINES + GPU_ENGINES
AUTO = "auto"
"""The fastest engine that is installed, see `fastest_installed`."""
SMALL = 1 << 20
"""Bytes of a model file below which ONNX Runtime is faster (docs/lite.md): a call of OpenVINO costs some milliseconds
more, which its faster convolutions must save."""
INPUTS, OUTPUT = ("ir", "vi"), "fused"


class EngineFailureError(InputError):
    """An engine refused a call that should have worked, such as for lack of memory; its reason is in the message."""


class Engine(Protocol):
    """Runs one fusion network, for one thread at a time."""

    @property
    def name(self) -> str:
        """The engine with its version and device."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Of the model file."""

    def bind(self, height: int, width: int, batch: int = 1) -> tuple[Image, Image, Image]:
        """Buffers (ir, vi, fused), each height×width float32, that `run` reads and writes.

        For a batch of more than one pair they are batch×height×width. Height and width must be multiples of the
        model's `shape_multiple`. Calls with the same shape return the same buffers.
        """

    def run(self) -> None:
        """Fuse the bound ir and vi into the bound fused. Raises EngineFailureError."""

    def close(self) -> None:
        """Free the network and its buffers, from any thread; a second call does nothing.

        Afterwards `bind` and `run` must not be called, and the bound arrays must not be used.
        """


@runtime_checkable
class HasProfiles(Protocol):
    """An engine that takes some shapes only."""

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The ranges of shapes that it takes."""


def pictures(array: Image) -> Image:
    """A network's batch×1×height×width array as `Engine.bind` returns it: without the channel, nor a batch of 1."""
    return array[0, 0] if len(array) == 1 else array[:, 0]


def check_signature(model: Path, found: Mapping[str, tuple[str, Sequence[int | str]]], kind: str) -> None:
    """Reject a model whose inputs and outputs are not those of a fusion network.

    Args:
        model: the file, for the message.
        found: element type and shape of every input and output by name; dynamic axes as text.
        kind: the engine's name of float32.

    Raises:
        InputError: naming both signatures.
    """
    fits = set(found) == {*INPUTS, OUTPUT} and all(
        element == kind
        and len(shape) == 4
        and shape[1] == 1
        and all(isinstance(side, str) for side in shape[2:])
        for element, shape in found.values()
    )
    if not fits:
        listed = ", ".join(f"{name} {element} {list(shape)}" for name, (element, shape) in found.items())
        raise InputError(
            f"{model} is no fusion model: it has {listed}; expected inputs ir, vi and output fused, float, "
            f"[batch, 1, height, width] with dynamic height and width, as `ufuser export` writes them"
        )


def fastest_installed(model: Path) -> str:
    """The engine that `auto` selects: TensorRT for its engine files; else OpenVINO, or ONNX Runtime for small networks.

    It never selects a GPU provider: that one is installed does not mean that it starts.
    """
    if model.suffix == ".engine":
        return "tensorrt"
    small = model.is_file() and model.stat().st_size < SMALL
    if small and find_spec("onnxruntime"):
        return "onnxruntime"
    return "openvino" if find_spec("openvino") else "onnxruntime"


def open_engine(
    name: str, model: Path, threads: int | None, cpu_precision: str = "fp32", shared: bool = False
) -> Engine:
    """Load a model file into an engine.

    Args:
        name: one of `ENGINES`, or `auto`.
        model: ONNX file of `ufuser export`; for `tensorrt` also an engine file of `ufuser build`.
        threads: CPU threads; None leaves the choice to the engine.
        cpu_precision: arithmetic for a float32 graph: `fp32`, or `bf16` with OpenVINO on a CPU that has it.
        shared: other threads need the CPU at the same time. ONNX Runtime's threads then sleep while they wait for
            work, instead of spinning: a tenth slower alone, a tenth faster beside a decoder and an encoder.

    Raises:
        InputError: the engine is unknown, it or its provider is not installed, or it cannot load the file.
    """
    if threads is not None:
        require_threads(threads)
    if name == AUTO:
        name = fastest_installed(model)
    if cpu_precision != "fp32" and name != "openvino":
        raise InputError(
            f"cpu_precision={cpu_precision!r}: only OpenVINO has it, not {name}", "cpu_precision"
        )
    if name in ENGINES and name != "tensorrt" and model.suffix == ".engine":
        raise InputError(f"engine={name!r}: {model} is a TensorRT engine, expected tensorrt", "engine")
    if name in ENGINES and name != "tensorrt" and model.is_file():
        require_no_control_flow(model)
    if name.startswith("onnxruntime") and name in ENGINES:
        from ufuser.runtime.engines.onnxruntime import PROVIDERS, OnnxRuntimeEngine

        return OnnxRuntimeEngine(model, threads, PROVIDERS[name], shared)
    if name == "tensorrt":
        from ufuser.runtime.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(model, threads)
    if name == "openvino":
        from ufuser.runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model, threads, cpu_precision)
    raise InputError(f"unknown engine '{name}': expected one of {', '.join((AUTO, *ENGINES))}")
