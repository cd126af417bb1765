"""Formats of a V4L2 camera, from the kernel: OpenCV sets formats but does not list them."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ufuser.runtime.errors import InputError

_CAPTURE, _MMAP = 1, 1
"""V4L2_BUF_TYPE_VIDEO_CAPTURE, V4L2_MEMORY_MMAP."""
_FMTDESC, _FRMSIZE, _REQBUFS = "=III32sII3I", "=III6I2I", "=IIIIB3B"
"""struct v4l2_fmtdesc, v4l2_frmsizeenum, v4l2_requestbuffers of linux/videodev2.h."""
_DISCRETE = 1
_MOST = 64
"""Largest number of formats, and of sizes for each."""

Ioctl = Callable[[int, int, bytearray], Any]


def _request(number: int, layout: str) -> int:
    """`_IOWR('V', number, layout)` of asm-generic/ioctl.h."""
    return 3 << 30 | struct.calcsize(layout) << 16 | ord("V") << 8 | number


ENUM_FMT, ENUM_FRAMESIZES, REQBUFS = _request(2, _FMTDESC), _request(74, _FRMSIZE), _request(8, _REQBUFS)


def _system_ioctl(descriptor: int, request: int, buffer: bytearray) -> Any:
    import fcntl  # not on Windows

    return fcntl.ioctl(descriptor, request, buffer, True)


def require_device(path: Path) -> None:
    """Raise InputError unless the device can be opened: it is missing, no device, not permitted, or busy."""
    if not path.exists():
        there = sorted(str(p) for p in Path("/dev").glob("video*"))
        raise InputError(f"no device {path}: this machine has {', '.join(there) or 'no video device'}")
    if not path.is_char_device():
        raise InputError(f"{path} is no video device: expected one such as /dev/video0")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except OSError as e:
        raise InputError(f"cannot open {path}: {_why(e)}") from None


def _why(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "it is busy: another program is using it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission: add your user to the group 'video'"
    return error.strerror or str(error)


def is_busy(path: Path, ioctl: Ioctl = _system_ioctl) -> bool:
    """Whether another program streams from the device, so that it gives no buffers. False if it has disappeared."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as e:  # for example a device that was just unplugged
        return e.errno == errno.EBUSY
    try:
        ioctl(descriptor, REQBUFS, bytearray(struct.pack(_REQBUFS, 1, _CAPTURE, _MMAP, *[0] * 5)))
    except OSError as e:
        return e.errno == errno.EBUSY
    finally:
        os.close(descriptor)  # which also gives the buffer back
    return False


def offered(path: Path, ioctl: Ioctl = _system_ioctl) -> list[str]:
    """Formats and sizes, such as "Y16 640x512, 320x256"; empty where the driver does not list them."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        return [
            f"{fourcc.decode('ascii', 'replace').strip()} {', '.join(_sizes(descriptor, fourcc, ioctl))}".strip()
            for fourcc in _formats(descriptor, ioctl)
        ]
    finally:
        os.close(descriptor)


def _formats(descriptor: int, ioctl: Ioctl) -> list[bytes]:
    found = []
    for index in range(_MOST):
        buffer = bytearray(struct.calcsize(_FMTDESC))
        struct.pack_into("=II", buffer, 0, index, _CAPTURE)
        try:
            ioctl(descriptor, ENUM_FMT, buffer)
        except OSError:  # EINVAL after the last; ENOTTY where the driver has none
            break
        found.append(struct.pack("=I", struct.unpack(_FMTDESC, buffer)[4]))
    return found


def _sizes(descriptor: int, fourcc: bytes, ioctl: Ioctl) -> list[str]:
    found = []
    for index in range(_MOST):
        buffer = bytearray(struct.calcsize(_FRMSIZE))
        struct.pack_into("=I4s", buffer, 0, index, fourcc)
        try:
            ioctl(descriptor, ENUM_FRAMESIZES, buffer)
        except OSError:
            break
        _, _, kind, *sides = struct.unpack(_FRMSIZE, buffer)
        if kind != _DISCRETE:
            # Stepwise: smallest width, largest width, step; the same for the height.
            return [f"{sides[0]}x{sides[3]} to {sides[1]}x{sides[4]}"]
        found.append(f"{sides[0]}x{sides[1]}")
    return found
