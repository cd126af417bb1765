"""TensorRT on an NVIDIA GPU: runs an engine file built by `ufuser build`, with PyCUDA."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ufuser.runtime.engines import INPUTS, OUTPUT, EngineFailureError, Image, check_signature, pictures
from ufuser.runtime.engines.cuda import Buffer, Device, require_tensorrt
from ufuser.runtime.engines.manifest import VERSION_COMPATIBLE, Manifest, check_engine, find_engine
from ufuser.runtime.engines.profiles import Extent, Profile, choose_profile, listed
from ufuser.runtime.errors import InputError

if TYPE_CHECKING:
    import tensorrt as trt

_WARM_UP = 2
"""Runs after a change of shape or profile: the first loads kernels and takes many times as long."""


class TensorRtEngine:
    """An `Engine` (see `ufuser.runtime.engines`) over one execution context on its own stream.

    Buffers are page-locked; on a Jetson they are mapped, so nothing is copied. They grow and are reused: arrays of an
    earlier `bind` are stale after one that grew. Works from any thread, one at a time.

    Args:
        model: an engine file with its manifest beside it, or an ONNX file for which `ufuser build` keeps an engine
            for this machine.
        threads: must be None: the CPU does not compute.

    Raises:
        InputError: TensorRT or PyCUDA is not installed, there is no GPU or no engine, or the engine is damaged or of
            another machine.
    """

    _session: _Session | None = None

    def __init__(self, model: Path, threads: int | None) -> None:
        if threads is not None:
            raise InputError(f"threads {threads}: TensorRT runs on the GPU, expected None")
        require_tensorrt()
        import tensorrt as trt

        self._device = Device()
        here = self._device.facts(trt.__version__)
        path = find_engine(model, here) if model.suffix == ".onnx" else model
        self._manifest = Manifest.read(path)
        try:
            content = path.read_bytes()
        except OSError as e:
            raise InputError(f"cannot read {path}: {e.strerror}") from None
        check_engine(path, content, self._manifest, here)
        self.name = f"TensorRT {here.tensorrt}, {here.gpu}"
        with self._device.current():
            self._session = _Session(self._device, path, content, self._manifest)

    def __del__(self) -> None:
        with suppress(EngineFailureError):  # while Python shuts down, CUDA may be gone
            self.close()

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._manifest.metadata

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The ranges of shapes that it takes."""
        return self._manifest.profiles

    @property
    def gpu_ms(self) -> float:
        """Milliseconds of the last `run` by CUDA events: copies and network, without the CPU's part."""
        return self._open().gpu_ms

    def bind(self, height: int, width: int, batch: int = 1) -> tuple[Image, Image, Image]:
        with self._device.current():
            return self._open().bind(Extent(batch, height, width))

    def run(self) -> None:
        with self._device.current():
            self._open().run()

    def close(self) -> None:
        if self._session is not None:
            with self._device.current():
                self._session = None

    def _open(self) -> _Session:
        if self._session is None:
            raise EngineFailureError(f"{self.name}: the engine is closed")
        return self._session


class _Session:
    """The objects that hold memory of the GPU. Create, use and drop it inside `Device.current`."""

    def __init__(self, device: Device, path: Path, content: bytes, manifest: Manifest) -> None:
        import pycuda.driver as cuda
        import tensorrt as trt

        self._profiles = manifest.profiles
        self._log = collecting_logger()
        runtime = trt.Runtime(self._log)
        if manifest.flags.get(VERSION_COMPATIBLE):
            runtime.engine_host_code_allowed = True  # it brings its own lean runtime
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise InputError(
                f"{path} cannot be loaded by TensorRT ({self._log.last()}): rebuild it: {manifest.rebuild}"
            )
        check_signature(path, _signature(engine), "FLOAT")
        found = engine_profiles(path, engine)
        if found != self._profiles:
            raise InputError(
                f"{path} has the profiles {listed(found)}; its manifest names {listed(self._profiles)}: rebuild it: "
                f"{manifest.rebuild}"
            )
        context = engine.create_execution_context()
        if context is None:
            raise InputError(
                f"the GPU does not have the {engine.device_memory_size_v2 >> 20} MiB that {path} needs "
                f"({self._log.last()}): rebuild it with a smaller largest shape"
            )
        # The context keeps the engine alive, but neither the runtime nor its logger.
        self._runtime, self._engine, self._context = runtime, engine, context
        self._stream = cuda.Stream()
        self._started = cuda.Event()
        self._ended = cuda.Event()
        self._buffers = {name: Buffer(device) for name in (*INPUTS, OUTPUT)}
        self._profile = -1
        self._bound: Extent | None = None
        self._views: tuple[Image, Image, Image]
        self.gpu_ms = 0.0

    def bind(self, extent: Extent) -> tuple[Image, Image, Image]:
        """See `Engine.bind`."""
        if extent != self._bound:
            self._bound = None  # if a step fails, the next call starts over
            self._select_profile(choose_profile(self._profiles, extent))
            for name in INPUTS:
                self._check(self._context.set_input_shape(name, extent.shape), f"{name} of shape {extent}")
            self._reserve(extent)
            for _ in range(_WARM_UP):
                self._enqueue()
            self._bound = extent
        return self._views

    def run(self) -> None:
        """See `Engine.run`."""
        self._enqueue()
        self.gpu_ms = float(self._ended.time_since(self._started))

    def _select_profile(self, profile: int) -> None:
        if profile != self._profile:
            self._profile = -1
            self._check(
                self._context.set_optimization_profile_async(profile, self._stream.handle),
                f"the change to profile {profile}",
            )
            self._profile = profile

    def _reserve(self, extent: Extent) -> None:
        import pycuda.driver as cuda

        elements = extent.batch * extent.height * extent.width
        try:
            for buffer in self._buffers.values():
                buffer.reserve(elements)
        except cuda.MemoryError:
            raise EngineFailureError(
                f"the GPU has no memory left for pictures of {extent} (batch x height x width): expected "
                f"{3 * elements * 4 >> 20} MiB; fuse a smaller picture, or free memory of the GPU"
            ) from None
        for name, buffer in self._buffers.items():
            self._check(self._context.set_tensor_address(name, buffer.address), f"the address of {name}")
        ir, vi, fused = (pictures(buffer.view(extent.shape)) for buffer in self._buffers.values())
        self._views = ir, vi, fused

    def _enqueue(self) -> None:
        """Copy in, run, copy out, and wait for it."""
        stream = self._stream
        try:
            self._started.record(stream)
            for name, view in zip(INPUTS, self._views[:2], strict=True):
                self._buffers[name].upload(view, stream)
            self._check(self._context.execute_async_v3(stream.handle), "the network")
            self._buffers[OUTPUT].download(self._views[2], stream)
            self._ended.record(stream)
        finally:
            # After a failure too: the caller may change the pictures only when no copy reads them any more.
            stream.synchronize()

    def _check(self, succeeded: bool, what: str) -> None:
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


def engine_profiles(path: Path, engine: trt.ICudaEngine) -> tuple[Profile, ...]:
    """The optimization profiles of an engine. Raises InputError if the profiles of its inputs differ."""
    profiles = []
    for index in range(engine.num_optimization_profiles):
        ranges = [[list(dims) for dims in engine.get_tensor_profile_shape(name, index)] for name in INPUTS]
        if ranges[0] != ranges[1]:
            raise InputError(
                f"{path}: profile {index} takes ir of {ranges[0]}, vi of {ranges[1]}: expected the same for both"
            )
        profiles.append(Profile(*(Extent(batch, height, width) for batch, _, height, width in ranges[0])))
    return tuple(profiles)


def collecting_logger() -> Any:
    """A logger that keeps TensorRT's errors instead of printing them; `last()` returns the latest."""
    import tensorrt as trt

    class Collecting(trt.ILogger):  # type: ignore[misc]  # Any where TensorRT is not installed
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.messages.append(" ".join(msg.split()))

        def last(self) -> str:
            return self.messages[-1][:300] if self.messages else "it gave no reason"

    return Collecting()
