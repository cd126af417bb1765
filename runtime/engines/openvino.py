"""OpenVINO on the CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ufuser.runtime.engines import INPUTS, OUTPUT, EngineFailureError, Image, check_signature, pictures
from ufuser.runtime.errors import InputError
from ufuser.runtime.remedies import how_to_install

_KEPT = 4
"""Shapes whose compiled network and buffers are kept; each takes a second or two to compile."""
_HINTS = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's name of each arithmetic in which a CPU may compute a float32 graph."""


@dataclass(slots=True)
class _Shape:
    """One shape in use."""

    buffers: tuple[Image, Image, Image]
    """(ir, vi, fused), which the request reads and writes in place."""
    request: Any
    """Inference request: of the network with dynamic shape at first, of one for this shape from its second use on."""
    own: bool = False
    """Whether the request is of a network compiled for this shape."""


class OpenVinoEngine:
    """An `Engine` (see `ufuser.runtime.engines`) that compiles the network for every shape that is used twice.

    A fixed shape runs a sixth faster than a dynamic one, but takes a second or two to compile. That pays off for
    the frames of a camera, not for a folder of pictures of different sizes.
    """

    def __init__(self, model: Path, threads: int | None, precision: str = "fp32") -> None:
        try:
            import openvino
        except ImportError:
            raise InputError(f"openvino is not installed: {how_to_install('openvino')}") from None
        self._openvino = openvino
        self._core: Any = openvino.Core()
        self._precision = self._supported(precision)
        # By default OpenVINO uses bfloat16 where the CPU has it.
        self._options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._path = model
        network = self._read()
        try:
            found = {
                port.any_name: (
                    port.element_type.get_type_name(),
                    [d.get_length() if d.is_static else "dynamic" for d in port.partial_shape],
                )
                for port in (*network.inputs, *network.outputs)
            }
            self._metadata = _metadata(network)
        except UnicodeDecodeError:
            raise InputError(
                f"{model} holds names that are not UTF-8: expected a file of `ufuser export`"
            ) from None
        check_signature(model, found, "f32")
        self._any_shape: Any = None
        """The request with dynamic shape, for shapes used once."""
        self._shapes: OrderedDict[tuple[int, int, int], _Shape] = OrderedDict()
        self._current: _Shape | None = None
        self._size: list[int] = []
        """Of the bound network input."""

    @property
    def name(self) -> str:
        precision = "" if self._precision == "fp32" else f" in {self._precision}"
        return f"OpenVINO {self._openvino.__version__.split('-')[0]}, CPU{precision}"

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._metadata

    def bind(self, height: int, width: int, batch: int = 1) -> tuple[Image, Image, Image]:
        key = batch, height, width
        shape = self._shapes.get(key)
        if shape is None:
            arrays = (np.zeros((batch, 1, height, width), np.float32) for _ in range(3))
            ir, vi, fused = map(pictures, arrays)
            if batch > 1:  # batches come from benchmarks, which repeat the shape
                shape = _Shape((ir, vi, fused), self._compile(batch, height, width), True)
            else:
                if self._any_shape is None:
                    self._any_shape = self._compile(1, -1, -1)
                shape = _Shape((ir, vi, fused), self._any_shape)
            self._shapes[key] = shape
            if len(self._shapes) > _KEPT:
                self._shapes.popitem(last=False)
        elif not shape.own:
            # The shape repeats, as in a stream: free the network with dynamic shape.
            self._any_shape = None
            self._shapes = OrderedDict((k, v) for k, v in self._shapes.items() if v.own)
            shape.request = None
            shape.request, shape.own = self._compile(batch, height, width), True
            self._shapes[key] = shape
        self._shapes.move_to_end(key)
        with _failures(f"OpenVINO cannot bind pictures of {width}x{height}"):
            for name, array in zip((*INPUTS, OUTPUT), shape.buffers, strict=True):
                whole = array.reshape(batch, 1, height, width)
                shape.request.set_tensor(name, self._openvino.Tensor(whole, shared_memory=True))
        self._current, self._size = shape, [batch, 1, height, width]
        return shape.buffers

    def run(self) -> None:
        if self._current is None:
            raise EngineFailureError("OpenVINO cannot run: no shape is bound")
        with _failures("OpenVINO failed"):
            self._current.request.infer()
            given = list(self._current.request.get_tensor(OUTPUT).shape)
        if given != self._size:  # OpenVINO takes any shape that fits into the buffer
            raise EngineFailureError(f"{self._path}: its output has the shape {given}, expected {self._size}")

    def close(self) -> None:
        self._any_shape = self._current = self._core = None
        self._shapes.clear()

    def _supported(self, precision: str) -> str:
        if precision not in _HINTS:
            raise InputError(f"cpu_precision={precision!r}: expected {' or '.join(_HINTS)}", "cpu_precision")
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in capabilities:
            raise InputError(
                "cpu_precision='bf16': this CPU has no bfloat16 arithmetic (AVX-512 BF16 or AMX), expected fp32",
                "cpu_precision",
            )
        return precision

    def _read(self) -> Any:
        try:
            return self._core.read_model(str(self._path))
        except Exception as e:  # the bindings raise plain RuntimeErrors and classes of their own
            raise InputError(
                f"{self._path} is not an ONNX file that OpenVINO can load: {_last_line(e)}"
            ) from None

    def _compile(self, batch: int, height: int, width: int) -> Any:
        """An inference request of the network for one shape; −1 makes an axis dynamic."""
        network = self._read()
        with _failures(f"OpenVINO cannot compile {self._path}"):
            network.reshape({name: [batch, 1, height, width] for name in INPUTS})
            return self._core.compile_model(network, "CPU", self._options).create_infer_request()


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn OpenVINO's errors, plain RuntimeErrors and classes of its own, into ours."""
    try:
        yield
    except Exception as e:
        raise EngineFailureError(f"{what}: {_last_line(e)}") from None


def _last_line(error: BaseException) -> str:
    """The reason in OpenVINO's errors, behind the places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]


def _metadata(network: Any) -> dict[str, str]:
    """The ONNX file's metadata, which OpenVINO keeps under "framework" in its runtime information."""
    section: Mapping[str, Any] = dict(network.get_rt_info().items()).get("framework", {})
    return {key: str(value.value) for key, value in section.items()}
