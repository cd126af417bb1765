"""ONNX Runtime on the CPU, or on a GPU by its CUDA or TensorRT provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ufuser.runtime.engines import INPUTS, OUTPUT, EngineFailureError, Image, check_signature, pictures
from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.remedies import how_to_install

CPU = "CPUExecutionProvider"
PROVIDERS = {
    "onnxruntime": CPU,
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}
"""Execution provider by the engine's name."""


class OnnxRuntimeEngine:
    """An `Engine` (see `ufuser.runtime.engines`) over an ONNX Runtime session with bound buffers.

    A provider that is missing is an error: ONNX Runtime by itself would fall back to the CPU with a warning. With a
    GPU provider it still runs operators on shapes on the CPU; that is not a fallback.
    """

    def __init__(self, model: Path, threads: int | None, provider: str = CPU, shared: bool = False) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise InputError(f"onnxruntime is not installed: {how_to_install('onnxruntime')}") from None
        self._ort, self._provider = onnxruntime, provider
        if provider not in onnxruntime.get_available_providers():
            raise InputError(
                f"this ONNX Runtime {onnxruntime.__version__} has no {provider}: it has "
                f"{', '.join(onnxruntime.get_available_providers())}; {how_to_install('onnxruntime-gpu')}"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are exceptions, too
        if threads is not None:
            options.intra_op_num_threads = threads
        if shared:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # Its fallback prints, and on the CPU there is none.
            self._session: Any = onnxruntime.InferenceSession(
                str(model), options, providers=[provider], enable_fallback=int(provider != CPU)
            )
            ends = (*self._session.get_inputs(), *self._session.get_outputs())
            found = {end.name: (end.type, end.shape) for end in ends}
            self._metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        except (
            Exception
        ) as e:  # a class per status code, derived from Exception; UnicodeDecodeError for a name
            raise InputError(
                f"{model} is not an ONNX file that ONNX Runtime can load: {first_line(e)}"
            ) from None
        if self._session.get_providers()[0] != provider:
            raise InputError(
                f"ONNX Runtime could not start {provider} and would run on {self._session.get_providers()[0]}: "
                f"its CUDA, cuDNN or TensorRT libraries or the driver are missing; run `ufuser doctor`"
            )
        check_signature(model, found, "tensor(float)")
        self._binding: Any = self._session.io_binding()
        self._shape: tuple[int, int, int] | None = None
        self._buffers: tuple[Image, ...] = ()
        self._values: list[object] = []
        """Keeps the bound OrtValues alive."""

    @property
    def name(self) -> str:
        return f"ONNX Runtime {self._ort.__version__}, {self._provider.removesuffix('ExecutionProvider')}"

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._metadata

    def bind(self, height: int, width: int, batch: int = 1) -> tuple[Image, Image, Image]:
        if self._shape != (batch, height, width):
            arrays = [np.zeros((batch, 1, height, width), np.float32) for _ in (*INPUTS, OUTPUT)]
            values = [self._ort.OrtValue.ortvalue_from_numpy(array) for array in arrays]
            self._binding.clear_binding_inputs()
            self._binding.clear_binding_outputs()
            for name, value in zip(INPUTS, values[:2], strict=True):
                self._binding.bind_ortvalue_input(name, value)
            self._binding.bind_ortvalue_output(OUTPUT, values[2])
            self._values, self._buffers = values, tuple(map(pictures, arrays))
            self._shape = (batch, height, width)
        ir, vi, fused = self._buffers
        return ir, vi, fused

    def run(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as e:  # as in the constructor
            raise EngineFailureError(f"ONNX Runtime failed: {first_line(e)}") from None

    def close(self) -> None:
        self._session = self._binding = self._shape = None
        self._values, self._buffers = [], ()
