"""OpenVINO on the CPU, compiled for the shapes in use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.engines import INPUTS, OUTPUT, Image, check_signature
from runtime.errors import InputError

_KEPT = 4
"""Shapes whose compiled network and buffers are kept; a second or two of compiling each."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The network for one shape, with the buffers it reads and writes in place."""

    request: Any
    buffers: tuple[Image, Image, Image]


class OpenVinoEngine:
    """An `Engine` (see `runtime.engines`) that compiles the network anew for every shape it meets.

    A fixed shape runs faster than a dynamic one. Many sizes in one folder are better served by ONNX Runtime.
    """

    def __init__(self, model: Path, threads: int | None) -> None:
        try:
            import openvino
        except ImportError:
            raise InputError('openvino is not installed: pip install "ufuser[openvino]"') from None
        self._openvino = openvino
        self._core = openvino.Core()
        # Where a CPU has bfloat16, OpenVINO would take it without a word.
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._path = model
        network = self._read()
        found = {
            port.any_name: (
                port.element_type.get_type_name(),
                [d.get_length() if d.is_static else "dynamic" for d in port.partial_shape],
            )
            for port in (*network.inputs, *network.outputs)
        }
        check_signature(model, found, "f32")
        self._metadata = _metadata(network)
        self._compiled: OrderedDict[tuple[int, int], _Compiled] = OrderedDict()
        self._current: _Compiled

    @property
    def name(self) -> str:
        return f"OpenVINO {self._openvino.__version__.split('-')[0]}, CPU"

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._metadata

    def bind(self, height: int, width: int) -> tuple[Image, Image, Image]:
        shape = height, width
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(height, width)
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(shape)
        self._current = self._compiled[shape]
        return self._current.buffers

    def run(self) -> None:
        self._current.request.infer()

    def _read(self) -> Any:
        try:
            return self._core.read_model(str(self._path))
        except Exception as e:  # the bindings raise plain RuntimeErrors and their own
            lines = [line.strip() for line in str(e).splitlines() if line.strip()]
            reason = (lines[-1] if lines else type(e).__name__)[:200]
            raise InputError(f"{self._path} is not an ONNX file that OpenVINO can load: {reason}") from None

    def _compile(self, height: int, width: int) -> _Compiled:
        network = self._read()
        network.reshape({name: [1, 1, height, width] for name in INPUTS})
        request = self._core.compile_model(network, "CPU", self._options).create_infer_request()
        ir, vi, fused = (np.zeros((1, 1, height, width), np.float32) for _ in range(3))
        for name, array in ((INPUTS[0], ir), (INPUTS[1], vi), (OUTPUT, fused)):
            request.set_tensor(name, self._openvino.Tensor(array, shared_memory=True))
        return _Compiled(request, (ir[0, 0], vi[0, 0], fused[0, 0]))


def _metadata(network: Any) -> dict[str, str]:
    """The ONNX file's metadata, which OpenVINO keeps under "framework" in its runtime information."""
    section: Mapping[str, Any] = dict(network.get_rt_info().items()).get("framework", {})
    return {key: str(value.value) for key, value in section.items()}
