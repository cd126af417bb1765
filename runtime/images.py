"""The one reader and writer of picture files: depth and colour are kept, truncation is an error, writing is atomic.

A truncated JPEG or PNG is refused everywhere, also for training: OpenCV fills the missing part with grey and reports
nothing.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes
from ufuser.runtime.limits import read_picture_file, require_pixels
from ufuser.runtime.quiet import NATIVE
from ufuser.runtime.structs import read_text

READABLE = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm")
WRITABLE = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_DEPTHS: dict[str, tuple[type, ...]] = {
    ".png": (np.uint8, np.uint16),
    ".tif": (np.uint8, np.uint16, np.float32),
    ".tiff": (np.uint8, np.uint16, np.float32),
}
_JPEG_QUALITY = 95


def read_names(path: Path) -> list[str]:
    """Stems of a text file, one per line; the suffix of a picture is dropped, empty lines are skipped.

    Raises InputError for a file that cannot be read, is too large or is no text.
    """
    lines = (line.strip() for line in read_text(path, "text").splitlines())
    return [Path(line).stem if Path(line).suffix.lower() in READABLE else line for line in lines if line]


def read_image(path: Path, grey: bool = False) -> NDArray[Any]:
    """A picture as it is stored: H×W if the file is grey, else H×W×3 BGR (alpha is dropped).

    uint8, uint16 or, from a float TIFF, float32. `grey` takes the luma (BT.601) of a colour picture, H×W, from the
    decoder: a JPEG stores it.

    Raises:
        InputError: no such file, not a picture, a truncated or damaged one, or one over `ufuser.runtime.limits`.
    """
    try:
        data = read_picture_file(path)
    except FileNotFoundError:
        raise InputError(f"no file {path}: expected a picture ({', '.join(READABLE)})") from None
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}") from None
    if _truncated(data):
        raise InputError(f"{path} is truncated or damaged ({len(data)} bytes): expected a complete picture")
    require_pixels(path, data)
    image: NDArray[Any] | None = None
    if data:
        mode = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_ANYCOLOR)
        try:
            with NATIVE.muted():
                image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
        except cv2.error:  # e.g. a header that claims more pixels than OpenCV allows
            image = None
    if image is None:
        raise InputError(
            f"{path} cannot be read as a picture ({len(data)} bytes): expected a complete {', '.join(READABLE)} file"
        )
    return image


def read_grey(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The luma of a picture (BT.601), H×W, 8 or 16 bits, as the decoder gives it: of a JPEG, the stored one.

    It may differ by rounding from `ufuser.runtime.color.luma`, by which `Fuser` fuses. Training results depend on
    every bit of it.

    Raises:
        InputError: as `read_image` does, or a picture of floats.
    """
    image = read_image(path, grey=True)
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path} holds {image.dtype} values: expected a picture of 8 or 16 bits")
    return image


def as_float(image: NDArray[Any]) -> NDArray[np.float32]:
    """A uint8 or uint16 picture as float32, full scale at 1; a float one as it is."""
    if image.dtype.kind == "f":
        scaled: NDArray[np.float32] = image.astype(np.float32, copy=False)
    else:
        scaled = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return scaled


def require_image_suffix(path: Path) -> None:
    """Raise InputError unless `write_image` knows the format that the path's suffix names."""
    if path.suffix.lower() not in WRITABLE:
        given = f"suffix '{path.suffix}'" if path.suffix else "no suffix"
        raise InputError(f"cannot write {path}: {given}, expected one of {', '.join(WRITABLE)} for a picture")


def depth_kept(path: Path, dtype: np.dtype[Any]) -> bool:
    """Whether the format of this suffix stores the dtype without conversion."""
    return dtype.type in _DEPTHS.get(path.suffix.lower(), (np.uint8,))


def write_image(path: Path, image: NDArray[Any], durable: bool = True) -> None:
    """Write a picture, H×W or H×W×3 BGR; uint8, uint16 or float32 in [0, 1]. The suffix names the format.

    If the format does not store this depth (see `depth_kept`), the picture is scaled to the deepest that it does store,
    full scale to full scale: PNG holds 8 and 16 bits, TIFF floats as well, JPEG and BMP 8 bits.

    `durable`: see `Unfinished.publish`.

    Raises:
        InputError: unknown suffix, or the file cannot be written there.
    """
    require_image_suffix(path)
    suffix = path.suffix.lower()
    if not depth_kept(path, image.dtype):
        image = _rescaled(image, _DEPTHS.get(suffix, (np.uint8,))[-1])
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else []
    done, data = cv2.imencode(suffix, image, options)
    if not done:
        raise InputError(f"cannot write {path}: OpenCV cannot encode {image.shape} {image.dtype} as {suffix}")
    write_bytes(path, data.tobytes(), durable)


def as_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """A uint8, uint16 or float picture in [0, 1] at 8 bits, full scale to full scale; uint8 as it is."""
    return image if image.dtype == np.uint8 else _rescaled(image, np.uint8)


def _rescaled(image: NDArray[Any], dtype: type) -> NDArray[Any]:
    """Full scale to full scale, rounded to nearest."""
    full = 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)
    return np.rint(image * (np.iinfo(dtype).max / full)).astype(dtype)


def _truncated(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end, or a PNG fails its checksums; other formats are left to OpenCV."""
    if data.startswith(b"\xff\xd8"):
        return not _jpeg_ends(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return not _png_ends(data)
    return False


_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""A marker within entropy-coded data: neither a stuffed zero nor a restart."""
_JPEG_END = 0xD9


def _jpeg_ends(data: bytes) -> bool:
    """Whether the JPEG's own end marker is reached, segment by segment (ITU-T T.81, annex B).

    A search for its two bytes would find those of an embedded thumbnail.
    """
    at = 2
    while (marker := _JPEG_MARKER.search(data, at)) is not None:
        if marker[1][0] == _JPEG_END:
            return True
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def _png_ends(data: bytes) -> bool:
    """Whether the PNG reaches its end chunk, and the checksums of all critical chunks are right."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        critical = kind[:1].isupper()
        if critical and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        if kind == b"IEND":
            return True
        at = end + 4
    return False
