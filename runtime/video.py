"""The one video encoder, by PyAV: for files and streams, at a constant rate or at the frames' own moments."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError
from ufuser.runtime.remedies import how_to_install
from ufuser.runtime.uri import mask

CODECS = {".mp4": ("h264",), ".mkv": ("ffv1", "h264", "mjpeg"), ".avi": ("mjpeg",)}
"""Codecs of each suffix, the default first."""
_MILLISECOND = Fraction(1, 1000)
_NOMINAL, _AVI = Fraction(25), Fraction(60)
"""Nominal frames per second of a container where the rate varies. An AVI has no stamps: its frames are rounded to
multiples of 1/60 s."""
_BT601, _LIMITED = 6, 1
"""ITU-T H.273: matrix coefficients of SMPTE 170M; video range, Y from 16 to 235."""
_LUMA = np.array([[24.966, 128.553, 65.481, 16 * 255]]) / 255
_CHROMA = np.array([[112.0, -74.203, -37.797, 128 * 255], [-18.214, -93.786, 112.0, 128 * 255]]) / 255
"""BT.601 from (B, G, R, 1), all 0..255."""


class EncoderError(Exception):
    """The video cannot be written; the message is the reason, credentials masked."""


def require_video_suffix(path: Path) -> None:
    """Raise InputError unless the path's suffix names a format of `CODECS`."""
    if path.suffix.lower() not in CODECS:
        given = f"suffix '{path.suffix}'" if path.suffix else "no suffix"
        raise InputError(
            f"cannot write {path}: {given}, expected a video's: .mp4 (H.264), .mkv (FFV1, lossless) or "
            f".avi (MJPEG)"
        )


def import_av(name: str) -> Any:
    """PyAV. Raises InputError if it is not installed."""
    try:
        import av
    except ImportError:
        raise InputError(
            f"cannot write {name}: PyAV is not installed, which writes video: {how_to_install('av')}"
        ) from None
    return av


class Encoder:
    """One video in a file or at a URL.

    The first frame sets size and layout. Later ones of another size or layout are converted to it. H.264 and Motion
    JPEG need even sides: an odd width or height grows by one column or row, a copy of the last.

    Args:
        target: file or URL.
        codec: "h264" (4:2:0, BT.601), "ffv1" (lossless in BGR or grey) or "mjpeg".
        image: the first frame, H×W or H×W×3 BGR, uint8. It is not written yet.
        rate: constant frames per second. None writes each frame at its own moment and without delay, for live video.
        crf: quality of H.264, 0 to 51, lower is better.
        container: FFmpeg's name of the container; None chooses by the suffix.
        options: of the container.
        timeout: seconds to connect and to send, for a URL.

    Raises:
        EncoderError: it cannot be opened.
    """

    def __init__(
        self,
        target: str,
        codec: str,
        image: NDArray[Any],
        *,
        rate: Fraction | None = None,
        crf: int = 20,
        container: str | None = None,
        options: Mapping[str, str] | None = None,
        timeout: tuple[float, float] | None = None,
    ) -> None:
        self._av = import_av(mask(target))
        self._target, self._codec, self._rate = target, codec, rate
        self._grey, self._shape = image.ndim == 2, image.shape[:2]
        self._last = -1
        self.frames = 0
        """Frames given to `write`."""
        self._packets = self._bytes = 0
        self._broken = False
        try:
            self._container: Any = self._av.open(
                target, "w", format=container, options=dict(options or {}), timeout=timeout
            )
            try:
                self._stream = self._add_stream(crf)
            except BaseException:
                self._container.close()
                raise
        except (OSError, ValueError, self._av.FFmpegError) as e:
            raise self._failed(e) from None

    def _add_stream(self, crf: int) -> Any:
        timed = self._container.format.name != "avi"
        nominal = self._rate or (_NOMINAL if timed else _AVI)
        self._base = _MILLISECOND if timed and self._rate is None else 1 / nominal
        name, pixels, options = {
            "h264": ("libx264", "yuv420p", {"crf": str(crf), "preset": "fast"}),
            # Slices with checksums: damage is noticed, and costs a part of a frame.
            "ffv1": ("ffv1", "gray" if self._grey else "bgr0", {"slicecrc": "1"}),
            "mjpeg": ("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "4"}),
        }[self._codec]
        if self._codec == "h264" and self._rate is None:
            # Without look-ahead every frame is in the file at once: a kill must not lose it.
            options |= {"preset": "veryfast", "tune": "zerolatency", "g": "50"}
        stream = self._container.add_stream(name, nominal, options=options)
        stream.pix_fmt = pixels
        height, width = (side + (side % 2 if self._codec != "ffv1" else 0) for side in self._shape)
        stream.width, stream.height = width, height
        if self._codec == "h264":
            # The conversion of `yuv420`, stated in the file so that players need not guess it from the size.
            stream.codec_context.colorspace, stream.codec_context.color_range = _BT601, _LIMITED
        if self._base == _MILLISECOND:
            stream.codec_context.time_base = _MILLISECOND
        return stream

    def write(self, image: NDArray[Any], seconds: float = 0.0) -> None:
        """Encode one frame.

        Args:
            image: H×W or H×W×3 BGR, uint8.
            seconds: from the first frame; without meaning at a constant rate.

        Raises:
            EncoderError: it cannot be written, for example on a full disk.
        """
        if image.shape[:2] != self._shape:
            image = np.asarray(cv2.resize(image, self._shape[::-1], interpolation=cv2.INTER_AREA))
        if self._grey != (image.ndim == 2):
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if self._grey else cv2.COLOR_GRAY2BGR)
        frame = self._picture(image)
        self._last = max(self._last + 1, 0 if self._rate else round(seconds / self._base))
        frame.pts, frame.time_base = self._last, self._base
        self.frames += 1
        self._encode(frame)

    def _encode(self, frame: Any) -> None:
        """Encode a frame; None flushes the encoder."""
        try:
            for packet in self._stream.encode(frame):
                self._packets, self._bytes = self._packets + 1, self._bytes + packet.size
                self._container.mux(packet)
        except (OSError, ValueError, self._av.FFmpegError) as e:
            self._broken = True
            raise self._failed(e) from None

    def _picture(self, image: NDArray[Any]) -> Any:
        new = self._av.VideoFrame.from_ndarray
        if self._codec == "ffv1":
            return new(np.ascontiguousarray(image), "gray" if self._grey else "bgr24")
        if self._codec == "h264":
            return new(yuv420(even(image)), "yuv420p")
        bgr = even(image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
        return new(np.ascontiguousarray(bgr), "bgr24")

    def close(self) -> None:
        """Flush the encoder, end the file, and check its size.

        Does nothing more than `abort` after a write has failed, and nothing at all after the first call.

        Raises:
            EncoderError: anything is missing. The file is closed in any case.
        """
        if self._container is None:
            return
        if self._broken:
            self.abort()
            return
        try:
            self._encode(None)
        except EncoderError:
            self.abort()
            raise
        container, self._container = self._container, None
        try:
            container.close()
        except (OSError, ValueError, self._av.FFmpegError) as e:
            raise self._failed(e) from None
        if self._packets != self.frames:
            raise EncoderError(f"{self._packets} of {self.frames} frames were encoded")
        path = Path(self._target)
        if path.is_file() and path.stat().st_size < self._bytes:
            raise EncoderError(f"{path.stat().st_size} of {self._bytes} bytes are in the file")

    def abort(self) -> None:
        """Close the file or connection without its end."""
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except (OSError, ValueError, self._av.FFmpegError):
                return  # there is an error already

    def _failed(self, error: Exception) -> EncoderError:
        return EncoderError(mask(str(getattr(error, "strerror", None) or error)))


def require_frames(path: Path, frames: int) -> None:
    """Raise EncoderError unless the file can be opened and holds this number of video frames.

    Reads the packets without decoding them: about as fast as the file can be read.
    """
    av = import_av(str(path))
    try:
        with av.open(str(path)) as container:
            found = sum(packet.size > 0 for packet in container.demux(video=0))
    except (OSError, ValueError, IndexError, av.FFmpegError) as e:
        raise EncoderError(f"the file cannot be read again: {getattr(e, 'strerror', None) or e}") from None
    if found != frames:
        raise EncoderError(f"{found} of {frames} frames are in the file")


def yuv420(image: NDArray[Any]) -> NDArray[np.uint8]:
    """A uint8 picture of even sides, H×W or H×W×3 BGR, as BT.601 planes Y, U, V: (3·H/2)×W uint8.

    Rounded to nearest, chroma averaged over 2×2: FFmpeg's own conversion rounds down, which turns grey greenish, and
    OpenCV's takes one pixel of four.
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
    """The picture with its last row or column repeated where a side is odd."""
    height, width = image.shape[:2]
    if not (height % 2 or width % 2):
        return image
    return cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
