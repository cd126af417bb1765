"""A test double of `pycuda.driver` on the CPU, strict about what real CUDA is strict about.

Work enqueued on a stream is done when the stream is synchronised, not before. Calls that need a current context
fail without one. Device memory cannot be read but by copies. Everything is written into `_state.journal`.
Only names that PyCUDA has are public; a test holds them against the real module.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np


class Error(Exception):
    pass


class LogicError(Error):
    pass


class RuntimeError(Error):
    pass


class MemoryError(Error):
    pass


class _State:
    """What a test may set and look at."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.journal: list[str] = []
        self.no_device = False
        self.integrated = False
        self.gpu, self.capability = "Double GPU", (8, 9)
        self.room = 1 << 30  # bytes of device memory
        self.used = 0
        self.memory: dict[int, Any] = {}  # address → array, device and mapped host memory
        self.streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self.clock = 0.0  # milliseconds of device time
        self.contexts = threading.local()
        self.balance = 0  # contexts pushed and not popped

    def stack(self) -> list[Any]:
        if not hasattr(self.contexts, "stack"):
            self.contexts.stack = []
        return self.contexts.stack

    def require_context(self, what: str) -> None:
        if not self.stack():
            raise LogicError(f"{what} failed: invalid device context")
        self.journal.append(what)


_state = _State()


class host_alloc_flags:  # noqa: N801 - PyCUDA's names
    PORTABLE, DEVICEMAP, WRITECOMBINED = 1, 2, 4


class device_attribute:  # noqa: N801
    INTEGRATED = "INTEGRATED"


def init(flags: int = 0) -> None:
    if _state.no_device:
        raise RuntimeError("cuInit failed: no CUDA-capable device is detected")


def get_version() -> tuple[int, int, int]:
    return (12, 6, 0)


def get_driver_version() -> int:
    return 12060


class Context:
    def push(self) -> None:
        _state.stack().append(self)
        _state.balance += 1

    @staticmethod
    def pop() -> None:
        if not _state.stack():
            raise LogicError("cuCtxPopCurrent failed: invalid device context")
        _state.stack().pop()
        _state.balance -= 1


class Device:
    def __init__(self, number: int) -> None:
        self._primary = Context()

    def name(self) -> str:
        return _state.gpu

    def compute_capability(self) -> tuple[int, int]:
        return _state.capability

    def get_attribute(self, attr: Any) -> int:
        return int(_state.integrated) if attr == device_attribute.INTEGRATED else 0

    def retain_primary_context(self) -> Context:
        return self._primary


class Stream:
    def __init__(self, flags: int = 0) -> None:
        _state.require_context("Stream")
        self._work: list[Callable[[], None]] = []
        _state.streams[id(self)] = self

    @property
    def handle(self) -> int:
        return id(self)

    def synchronize(self) -> None:
        _state.require_context("synchronize")
        work, self._work = self._work, []
        for job in work:
            job()


class Event:
    def __init__(self, flags: int = 0) -> None:
        _state.require_context("Event")
        self._at: float | None = None

    def record(self, stream: Stream | None = None) -> Event:
        _state.require_context("record")
        assert stream is not None
        stream._work.append(lambda: setattr(self, "_at", _state.clock))
        return self

    def time_since(self, event: Event) -> float:
        if self._at is None or event._at is None:
            raise LogicError("cuEventElapsedTime failed: invalid resource handle")
        return self._at - event._at


class DeviceAllocation:
    def __init__(self, array: Any) -> None:
        self._array = array
        address = array.ctypes.data
        _state.memory[address] = array
        weakref.finalize(self, DeviceAllocation._gone, address, array.nbytes)

    @staticmethod
    def _gone(address: int, size: int) -> None:
        _state.used -= size
        _state.memory.pop(address, None)

    def __int__(self) -> int:
        return int(self._array.ctypes.data)


class PagelockedHostAllocation:
    def __init__(self, size: int, mapped: bool) -> None:
        self._bytes, self._mapped = np.empty(size, np.uint8), mapped
        self.__array_interface__ = self._bytes.__array_interface__

    def get_device_pointer(self) -> int:
        if not self._mapped:
            raise LogicError("cuMemHostGetDevicePointer failed: invalid argument")
        address = int(self._bytes.ctypes.data)
        _state.memory[address] = self._bytes.view(np.float32)
        return address


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
    _state.require_context("pagelocked_empty")
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    allocation = PagelockedHostAllocation(size, bool(mem_flags & host_alloc_flags.DEVICEMAP))

    class _View(np.ndarray):
        base = allocation  # as in PyCUDA, where the array's base is the allocation

    array = allocation._bytes.view(dtype).reshape(shape, order=order).view(_View)
    array[...] = np.nan  # page-locked memory is not cleared
    return array


def mem_alloc(size: int) -> DeviceAllocation:
    _state.require_context("mem_alloc")
    if _state.used + size > _state.room:
        raise MemoryError("cuMemAlloc failed: out of memory")
    _state.used += size
    return DeviceAllocation(np.full(size // 4, np.nan, np.float32))


def memcpy_htod_async(dest: DeviceAllocation, src: Any, stream: Stream | None = None) -> None:
    _state.require_context("memcpy_htod_async")
    assert stream is not None
    assert src.flags.c_contiguous

    def job() -> None:
        dest._array[: src.size] = src.ravel()
        _state.clock += 0.25

    stream._work.append(job)


def memcpy_dtoh_async(dest: Any, src: DeviceAllocation, stream: Stream | None = None) -> None:
    _state.require_context("memcpy_dtoh_async")
    assert stream is not None
    assert dest.flags.c_contiguous

    def job() -> None:
        dest[...] = src._array[: dest.size].reshape(dest.shape)
        _state.clock += 0.25

    stream._work.append(job)
