"""Video encoders behind one small contract, chosen by a file's suffix."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError

if TYPE_CHECKING:
    from av.video.stream import VideoStream

SUFFIXES = (".mp4", ".mkv", ".avi")

_BT601, _LIMITED = 6, 1
"""ITU-T H.273: matrix coefficients of SMPTE 170M; video range, Y from 16 to 235."""
_LUMA = np.array([[24.966, 128.553, 65.481, 16 * 255]]) / 255
_CHROMA = np.array([[112.0, -74.203, -37.797, 128 * 255], [-18.214, -93.786, 112.0, 128 * 255]]) / 255
"""BT.601 from (B, G, R, 1), all 0..255."""


class VideoWriter(Protocol):
    """Appends uint8 frames, H×W or H×W×3 BGR, of one size."""

    def write(self, image: NDArray[Any]) -> None:
        """Encode one frame. Raises InputError where the system refuses, such as a full disk."""

    def close(self, finish: bool) -> None:
        """Let go of the file; `finish` writes what the encoder still holds."""


def require_video_suffix(path: Path) -> None:
    """Raise InputError unless `open_writer` knows the format that the path's suffix names."""
    if path.suffix.lower() not in SUFFIXES:
        given = f"suffix '{path.suffix}'" if path.suffix else "no suffix"
        raise InputError(
            f"cannot write {path}: {given}, expected a video's: .mp4 (H.264), .mkv (FFV1, lossless) or "
            f".avi (MJPEG)"
        )


def open_writer(path: Path, size: tuple[int, int], fps: float) -> VideoWriter:
    """An encoder for a suffix of `SUFFIXES`; what each does is told at `ufuser.runtime.sinks.VideoSink`.

    Args:
        path: file to write, not moved or removed by the writer.
        size: width and height, pixels.
        fps: frames per second.

    Raises:
        InputError: another suffix, PyAV not installed, or the file cannot be written.
    """
    require_video_suffix(path)
    if path.suffix.lower() == ".avi":
        return _Mjpeg(path, size, fps)
    return _PyAv(path, size, fps, lossless=path.suffix.lower() == ".mkv")


class _PyAv:
    """H.264, or lossless FFV1."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float, lossless: bool) -> None:
        try:
            import av
        except ImportError:
            raise InputError(
                f'PyAV is not installed, which writes {path.suffix}: pip install "ufuser[cpu]", or write .avi'
            ) from None
        self._av, self._suffix, self._size, self._lossless = av, path.suffix, size, lossless
        # Television's rates are such fractions: 29.97 is 30000/1001.
        self._rate = Fraction(fps).limit_denominator(1001)
        self._stream: VideoStream | None = None
        self._count = 0
        try:
            self._container = av.open(str(path), "w")
        except (OSError, av.FFmpegError) as e:
            raise self._failed(e) from None

    def write(self, image: NDArray[Any]) -> None:
        # Only the first frame tells grey from colour.
        stream = self._stream = self._stream or self._add_stream(image)
        if self._lossless:
            layout = "gray" if image.ndim == 2 else "bgr24"
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), layout)
        else:
            frame = self._av.VideoFrame.from_ndarray(yuv420(even(image)), "yuv420p")
        frame.pts, frame.time_base = self._count, 1 / self._rate
        self._count += 1
        try:
            self._container.mux(stream.encode(frame))
        except (OSError, self._av.FFmpegError) as e:
            raise self._failed(e) from None

    def close(self, finish: bool) -> None:
        try:
            if finish and self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        except (OSError, self._av.FFmpegError) as e:
            if finish:
                raise self._failed(e) from None

    def _add_stream(self, image: NDArray[Any]) -> VideoStream:
        width, height = self._size
        if self._lossless:
            # Slices with checksums: a damaged place is noticed, and costs a part of a frame.
            stream = self._container.add_stream("ffv1", self._rate, options={"slicecrc": "1"})
            stream.pix_fmt = "gray" if image.ndim == 2 else "bgr0"
        else:
            quality = {"crf": "18", "preset": "fast"}
            stream = self._container.add_stream("libx264", self._rate, options=quality)
            stream.pix_fmt = "yuv420p"
            # What `yuv420` does, said in the file so that players need not guess from the size.
            stream.codec_context.colorspace = _BT601
            stream.codec_context.color_range = _LIMITED
            width, height = width + width % 2, height + height % 2
        stream.width, stream.height = width, height
        return stream

    def _failed(self, error: Exception) -> InputError:
        reason = getattr(error, "strerror", None) or error
        return InputError(f"cannot write the {self._suffix} video: {reason}")


def yuv420(image: NDArray[Any]) -> NDArray[np.uint8]:
    """A uint8 picture of even sides, H×W or H×W×3 BGR, as BT.601 planes Y, U, V: (3·H/2)×W uint8.

    Rounded to nearest, chroma averaged over 2×2: FFmpeg's own conversion rounds down, which turns grey
    greenish, and OpenCV's takes one pixel of four.
    """
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    planes = np.empty((height * 3 // 2, width), np.uint8)
    planes[:height] = cv2.transform(image, _LUMA)
    u, v = cv2.split(cv2.transform(small, _CHROMA))
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    chroma[0], chroma[1] = u, v
    return planes


def even(image: NDArray[Any]) -> NDArray[Any]:
    """The picture with the last row or column repeated where it is odd."""
    height, width = image.shape[:2]
    if not (height % 2 or width % 2):
        return image
    return cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


class _Mjpeg:
    """Motion JPEG by OpenCV, which would cut odd sides."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._writer = cv2.VideoWriter(
            str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (size[0] + size[0] % 2, size[1] + size[1] % 2)
        )
        if not self._writer.isOpened():
            raise InputError(f"cannot write the {path.suffix} video: this OpenCV has no Motion JPEG encoder")

    def write(self, image: NDArray[Any]) -> None:
        self._writer.write(even(image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)))

    def close(self, finish: bool) -> None:
        self._writer.release()
