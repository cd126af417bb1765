"""A test double of `pycuda.driver` on the CPU, strict about what real CUDA is strict about.

Work enqueued on a stream is done when the stream is synchronised, not before. Calls that need a current context
fail without one. Device memory is accessible only through copies. Every call is written into `_state.journal`.
As in PyCUDA, what is freed without a current context, on another thread than the context's, is leaked: `_state.leaked`
counts it. Only names that PyCUDA has are public; a test compares them with the real module.
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
        self.fail = ""  # a call that fails, with an error of several lines
        self.leaked: list[str] = []  # what was freed where PyCUDA cannot free it
        self.memory: dict[int, Any] = {}  # address → array, device and mapped host memory
        self.streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self.clock = 0.0  # milliseconds of device time
        self.contexts = threading.local()
        self.balance = 0  # contexts pushed and not popped

    def stack(self) -> list[Any]:
        if not hasattr(self.contexts, "stack"):
            self.contexts.stack = []
        return self.contexts.stack

    def freed_with(self, owner: Any, nbytes: int = 0, address: int = 0) -> None:
        """Once an object of the current context is dropped: free its memory if PyCUDA can, else note a leak."""
        memory, thread, kind = self.memory, self.stack()[-1]._thread, type(owner).__name__

        def free() -> None:
            if self.memory is not memory:  # of an earlier test
                return
            if not self.stack() and threading.get_ident() != thread:
                self.leaked.append(kind)
                return
            self.used -= nbytes
            memory.pop(address, None)

        weakref.finalize(owner, free).atexit = False

    def require_context(self, what: str) -> None:
        if not self.stack():
            raise LogicError(f"{what} failed: invalid device context")
        if what == self.fail:
            raise LogicError(f"{what} failed: unspecified launch failure\nsecond line")
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
    def __init__(self) -> None:
        self._thread = threading.get_ident()

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


class _Dependent:
    """An object of the current context."""

    def __init__(self) -> None:
        _state.require_context(type(self).__name__)
        _state.freed_with(self)


class Stream(_Dependent):
    def __init__(self, flags: int = 0) -> None:
        super().__init__()
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


class Event(_Dependent):
    def __init__(self, flags: int = 0) -> None:
        super().__init__()
        self._at: float | None = None

    def record(self, stream: Stream | None = None) -> Event:
        _state.require_context("record")
        assert stream is not None
        stream._work.append(lambda: setattr(self, "_at", _state.clock))
        return self

    def time_since(self, event: Event) -> float:
        _state.require_context("time_since")
        if self._at is None or event._at is None:
            raise LogicError("cuEventElapsedTime failed: invalid resource handle")
        return self._at - event._at


class DeviceAllocation:
    def __init__(self, array: Any) -> None:
        self._array = array
        address = array.ctypes.data
        _state.memory[address] = array
        _state.freed_with(self, array.nbytes, address)

    def __int__(self) -> int:
        return int(self._array.ctypes.data)


class PagelockedHostAllocation:
    def __init__(self, size: int, mapped: bool) -> None:
        self._bytes, self._mapped = np.empty(size, np.uint8), mapped
        _state.freed_with(self)
        self.__array_interface__ = self._bytes.__array_interface__

    def get_device_pointer(self) -> int:
        if not self._mapped:
            raise LogicError("cuMemHostGetDevicePointer failed: invalid argument")
        address = int(self._bytes.ctypes.data)
        _state.memory[address] = self._bytes.view(np.float32)
        return address


class _PagelockedArray(np.ndarray):
    """As in PyCUDA, its base is the allocation, which lives as long as an array or a view of it."""

    def __array_finalize__(self, source: Any) -> None:
        self._allocation = getattr(source, "_allocation", None)

    @property
    def base(self) -> Any:
        return self._allocation


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
    _state.require_context("pagelocked_empty")
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    allocation = PagelockedHostAllocation(size, bool(mem_flags & host_alloc_flags.DEVICEMAP))

    array = allocation._bytes.view(dtype).reshape(shape, order=order).view(_PagelockedArray)
    array._allocation = allocation
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
