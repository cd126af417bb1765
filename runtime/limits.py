"""Limits on what is read and asked for, in one place: what exceeds them is refused before memory is gone."""

from __future__ import annotations

import stat
from pathlib import Path

from ufuser.runtime.errors import InputError

LARGEST_TEXT = 64 << 20
"""Bytes of a settings, result or list file."""
LARGEST_PICTURE = 1 << 30
"""Bytes of a picture file."""
MOST_PIXELS = 1 << 26
"""Pixels of a picture, 67 million: fused in float32, each takes about 200 bytes."""
MOST_THREADS = 1024
"""CPU threads, and worker processes."""


def read_picture_file(path: Path) -> bytes:
    """The bytes of a regular file. Raises InputError for another kind of file, which may never end, and OSError."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a device, pipe or socket"
        raise InputError(f"{path} is {kind}: expected a picture file")
    if about.st_size > LARGEST_PICTURE:
        raise InputError(f"{path} has {about.st_size} bytes: expected a picture of at most {LARGEST_PICTURE}")
    return path.read_bytes()


def require_pixels(path: Path, data: bytes) -> None:
    """Raise InputError for a picture whose header claims more than `MOST_PIXELS`: before it is decoded."""
    size = claimed_size(data)
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        raise InputError(
            f"{path} is {size[0]}x{size[1]}, {size[0] * size[1] / 1e6:.0f} megapixels: expected at most "
            f"{MOST_PIXELS / 1e6:.0f}; scale it down"
        )


def require_threads(count: int, argument: str = "threads") -> None:
    """Raise InputError unless the number of threads can be started."""
    if not 1 <= count <= MOST_THREADS:
        raise InputError(f"{argument}={count}: expected 1 to {MOST_THREADS}", argument)


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a PNG, JPEG, BMP, PNM or TIFF; None where it does not tell."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if data.startswith(b"BM") and len(data) >= 26:
        width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
        return abs(width), abs(height)
    if data[:1] == b"P" and data[1:2] in b"123456":
        numbers = [word for word in data[2:200].split() if word.isdigit()]
        return (int(numbers[0][:9]), int(numbers[1][:9])) if len(numbers) > 1 else None
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(data)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the frame header (ITU-T T.81, B.2.2), which stands before any entropy-coded data."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """From the entries ImageWidth and ImageLength of the first directory."""
    order = "little" if data[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]

    first = number(4, 4)
    found = {}
    for at in range(first + 2, first + 2 + 12 * number(first, 2), 12):
        if number(at, 2) in (256, 257):
            found[number(at, 2)] = number(at + 8, 2 if number(at + 2, 2) == 3 else 4)
    return (found[256], found[257]) if len(found) == 2 else None
