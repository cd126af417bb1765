"""The CUDA device through PyCUDA: its properties, its primary context, page-locked buffers that grow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.board import Jetson
from ufuser.runtime.engines import EngineFailureError
from ufuser.runtime.engines.manifest import DeviceFacts
from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.remedies import how_to_install

if TYPE_CHECKING:
    import pycuda.driver as cuda

_FLOAT = 4
"""Bytes of a float32."""


class Device:
    """CUDA's first visible device and its primary context, which other CUDA users of the process share.

    `CUDA_VISIBLE_DEVICES` selects another device.

    Raises:
        InputError: PyCUDA, the driver or a GPU is missing.
    """

    def __init__(self) -> None:
        require_pycuda()
        import pycuda.driver as cuda

        self._error = cuda.Error
        try:
            cuda.init()
            device = cuda.Device(0)
            self._context = device.retain_primary_context()
        except cuda.Error as e:
            raise InputError(
                f"no CUDA device can be used ({first_line(e)}): expected an NVIDIA GPU and its driver; "
                f"`ufuser doctor` shows what is missing"
            ) from None
        capability = device.compute_capability()
        self.name: str = device.name()
        self.compute_capability = f"{capability[0]}.{capability[1]}"
        self.integrated = bool(device.get_attribute(cuda.device_attribute.INTEGRATED))
        """Whether CPU and GPU share memory, as on a Jetson."""

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current on the calling thread, and restore the former one afterwards.

        PyCUDA frees memory only under a current context: drop what holds device memory in here too.

        Raises:
            EngineFailureError: PyCUDA raised an error inside.
        """
        try:
            self._context.push()
            try:
                yield
            finally:
                self._context.pop()
        except self._error as e:
            raise EngineFailureError(f"CUDA failed on {self.name}: {first_line(e)}") from None

    def facts(self, tensorrt: str) -> DeviceFacts:
        """The properties of this machine that an engine depends on, given TensorRT's version."""
        import pycuda.driver as cuda

        number = cuda.get_driver_version()
        board = Jetson.find()
        return DeviceFacts(
            tensorrt=tensorrt,
            gpu=self.name,
            compute_capability=self.compute_capability,
            cuda=".".join(str(part) for part in cuda.get_version()),
            driver=f"{number // 1000}.{number % 1000 // 10}",
            l4t=board.l4t if board else "",
        )


class Buffer:
    """One float32 tensor on host and device, which grows and never shrinks.

    On an integrated GPU the page-locked host memory is mapped: the device reads and writes it in place, without
    copies. Use it, and drop it, inside `Device.current`.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._elements = 0
        self._host: NDArray[np.float32] = np.empty(0, np.float32)
        self._memory: cuda.DeviceAllocation | None = None
        self.address = 0
        """On the device."""

    def reserve(self, elements: int) -> None:
        """Grow to a number of elements. Growing loses the content and makes earlier views stale."""
        if elements <= self._elements:
            return
        import pycuda.driver as cuda

        mapped = self._device.integrated
        flags = cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        host: NDArray[np.float32] = cuda.pagelocked_empty(elements, np.float32, mem_flags=flags)
        host[:] = 0
        if mapped:
            pinned = cast("cuda.PagelockedHostAllocation", host.base)
            self.address = int(pinned.get_device_pointer())
        else:
            self._memory = cuda.mem_alloc(elements * _FLOAT)
            self.address = int(self._memory)
        self._host, self._elements = host, elements

    def view(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The first elements on the host in this shape."""
        return self._host[: int(np.prod(shape))].reshape(shape)

    def upload(self, array: NDArray[np.float32], stream: cuda.Stream) -> None:
        """Enqueue the copy of a view to the device."""
        if self._memory is not None:
            import pycuda.driver as cuda

            cuda.memcpy_htod_async(self._memory, array, stream)

    def download(self, array: NDArray[np.float32], stream: cuda.Stream) -> None:
        """Enqueue the copy from the device into a view."""
        if self._memory is not None:
            import pycuda.driver as cuda

            cuda.memcpy_dtoh_async(array, self._memory, stream)


def require_pycuda() -> None:
    """Raise InputError, with the command that installs it, if `pycuda.driver` cannot be imported."""
    try:
        import_module("pycuda.driver")
    except ImportError as e:
        raise InputError(
            f"PyCUDA cannot be imported ({first_line(e)}): {how_to_install('pycuda')}; pip compiles it and needs "
            f"a compiler and the CUDA toolkit's headers (CUDA_ROOT)"
        ) from None


def require_tensorrt() -> None:
    """Raise InputError, with the command that installs it, if `tensorrt` cannot be imported."""
    try:
        import_module("tensorrt")
    except (ImportError, OSError) as e:  # OSError: one of its libraries is missing
        raise InputError(
            f"TensorRT cannot be imported ({first_line(e)}): {how_to_install('tensorrt')}"
        ) from None
