"""TensorRT on an NVIDIA GPU: an engine file built by `ufuser-build`, run through PyCUDA's stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ufuser.runtime.engines import INPUTS, OUTPUT, Image, check_signature, pictures
from ufuser.runtime.engines.cuda import Buffer, Device, import_tensorrt
from ufuser.runtime.engines.manifest import VERSION_COMPATIBLE, Manifest, check_engine, find_engine
from ufuser.runtime.engines.profiles import Extent, choose_profile
from ufuser.runtime.errors import InputError

if TYPE_CHECKING:
    import pycuda.driver as cuda
    import tensorrt as trt

_WARM_UP = 2
"""Runs after a change of shape or profile: the first one loads kernels and takes many times as long."""


class EngineFailureError(RuntimeError):
    """TensorRT refused a call that should have worked; its own words are in the message."""


class TensorRtEngine:
    """An `Engine` (see `ufuser.runtime.engines`) over one execution context on one stream of its own.

    Buffers are page-locked, on a Jetson mapped, so that nothing is copied there. They grow and are reused:
    arrays of an earlier `bind` are stale after one that grew. Works from any thread, one at a time.

    Args:
        model: an engine file with its manifest beside it, or an ONNX file of which `ufuser-build` keeps an
            engine for this machine.
        threads: must be None: no CPU thread computes here.

    Raises:
        InputError: TensorRT or PyCUDA not installed, no GPU, no engine, a damaged one, or one of another
            machine.
    """

    def __init__(self, model: Path, threads: int | None) -> None:
        if threads is not None:
            raise InputError(f"threads {threads}: TensorRT runs on the GPU, expected none to be given")
        tensorrt = import_tensorrt()
        self._device = Device()
        here = self._device.facts(tensorrt.__version__)
        path = find_engine(model, here) if model.suffix == ".onnx" else model
        self._manifest = Manifest.read(path)
        try:
            content = path.read_bytes()
        except OSError as e:
            raise InputError(f"cannot read {path}: {e.strerror}") from None
        check_engine(path, content, self._manifest, here)
        self._name = f"TensorRT {here.tensorrt}, {here.gpu}"
        with self._device.current():
            self._load(tensorrt, path, content)

    def _load(self, tensorrt: Any, path: Path, content: bytes) -> None:
        self._log = collecting_logger(tensorrt)
        runtime: trt.Runtime = tensorrt.Runtime(self._log)
        if self._manifest.flags.get(VERSION_COMPATIBLE):
            runtime.engine_host_code_allowed = True  # it brings its own lean runtime
        engine: trt.ICudaEngine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise InputError(
                f"{path} cannot be loaded by TensorRT ({self._log.last()}): rebuild it: {self._manifest.rebuild}"
            )
        check_signature(path, _signature(engine), "FLOAT")
        if engine.num_optimization_profiles != len(self._manifest.profiles):
            raise InputError(
                f"{path} has {engine.num_optimization_profiles} profiles, its manifest names "
                f"{len(self._manifest.profiles)}: rebuild it: {self._manifest.rebuild}"
            )
        context: trt.IExecutionContext = engine.create_execution_context()
        if context is None:
            raise InputError(
                f"the GPU has not the {engine.device_memory_size_v2 >> 20} MiB that {path} asks for "
                f"({self._log.last()}): rebuild it with a smaller largest shape (--max)"
            )
        driver = self._device.driver
        # The context keeps the engine alive, not the runtime's logger: all of them are held.
        self._runtime, self._engine, self._context = runtime, engine, context
        self._stream: cuda.Stream = driver.Stream()
        self._started: cuda.Event = driver.Event()
        self._ended: cuda.Event = driver.Event()
        self._buffers = {name: Buffer(self._device) for name in (*INPUTS, OUTPUT)}
        self._profile = -1
        self._bound: Extent | None = None
        self._views: tuple[Image, Image, Image]
        self._gpu_ms = 0.0

    @property
    def name(self) -> str:
        return self._name

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._manifest.metadata

    @property
    def gpu_ms(self) -> float:
        """Milliseconds of the last `run` by CUDA events: copies and network, without the CPU's part."""
        return self._gpu_ms

    def bind(self, height: int, width: int, batch: int = 1) -> tuple[Image, Image, Image]:
        extent = Extent(batch, height, width)
        if extent != self._bound:
            with self._device.current():
                self._bind(extent)
        return self._views

    def _bind(self, extent: Extent) -> None:
        profile = choose_profile(self._manifest.profiles, extent)
        self._bound = None  # whatever fails from here on, the next call starts afresh
        context = self._context
        if profile != self._profile:
            self._profile = -1
            self._done(
                context.set_optimization_profile_async(profile, self._stream.handle),
                f"the change to profile {profile}",
            )
            self._profile = profile
        for name in INPUTS:
            self._done(context.set_input_shape(name, extent.shape), f"{name} of shape {extent}")
        elements = extent.batch * extent.height * extent.width
        try:
            for buffer in self._buffers.values():
                buffer.reserve(elements)
        except self._device.driver.MemoryError:
            raise InputError(
                f"the GPU has no memory left for pictures of {extent} (batch x height x width): expected "
                f"{3 * elements * 4 >> 20} MiB; fuse a smaller picture, or free the GPU"
            ) from None
        for name, buffer in self._buffers.items():
            self._done(context.set_tensor_address(name, buffer.address), f"the address of {name}")
        ir, vi, fused = (pictures(self._buffers[name].view(extent.shape)) for name in (*INPUTS, OUTPUT))
        self._views = ir, vi, fused
        for _ in range(_WARM_UP):
            self._enqueue()
        self._bound = extent

    def run(self) -> None:
        with self._device.current():
            self._enqueue()
            self._gpu_ms = float(self._ended.time_since(self._started))

    def _enqueue(self) -> None:
        """Copy in, run, copy out, and wait for it."""
        stream = self._stream
        try:
            self._started.record(stream)
            for name, view in zip(INPUTS, self._views[:2], strict=True):
                self._buffers[name].upload(view, stream)
            self._done(self._context.execute_async_v3(stream.handle), "the network")
            self._buffers[OUTPUT].download(self._views[2], stream)
            self._ended.record(stream)
        finally:
            # After a failure too: nothing may still be reading the pictures when the caller changes them.
            stream.synchronize()

    def _done(self, succeeded: bool, what: str) -> None:
        if not succeeded:
            raise EngineFailureError(f"TensorRT refused {what}: {self._log.last()}")


def _signature(engine: trt.ICudaEngine) -> dict[str, tuple[str, list[int | str]]]:
    """Element type and shape of each input and output; dynamic axes as text."""
    found: dict[str, tuple[str, list[int | str]]] = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = [int(d) if d >= 0 else "dynamic" for d in engine.get_tensor_shape(name)]
        found[name] = engine.get_tensor_dtype(name).name, shape
    return found


def collecting_logger(tensorrt: Any) -> Any:
    """A logger that keeps TensorRT's errors instead of printing them; `last()` gives the latest."""

    class Collecting(tensorrt.ILogger):  # type: ignore[misc]  # known when TensorRT is
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
                self.messages.append(" ".join(msg.split()))

        def last(self) -> str:
            return self.messages[-1][:300] if self.messages else "it gave no reason"

    return Collecting()
