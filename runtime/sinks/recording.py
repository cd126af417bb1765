"""A video file that a stream writes for hours: whole at any moment, whatever ends the program."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime import uri as uris
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.uri import Uri
from ufuser.runtime.video import even, yuv420

CODECS = {".mp4": ("h264",), ".mkv": ("ffv1", "h264", "mjpeg"), ".avi": ("mjpeg",)}
"""By suffix, the usual one first."""
_BASE = Fraction(1, 1000)
_NOMINAL, _AVI = Fraction(25), Fraction(60)
"""Frames per second a container is told. The frames carry their own moments; in an AVI, rounded to that."""
_LITTLE_AT_A_TIME = {
    ".mp4": {"movflags": "empty_moov+default_base_moof+frag_keyframe", "frag_duration": "500000"},
    ".mkv": {"cluster_time_limit": "500"},
}
"""Half a second reaches the disk at once (microseconds, milliseconds): no more than that is lost by a kill."""
_BT601, _LIMITED = 6, 1
"""ITU-T H.273, as in `ufuser.runtime.video`."""


def _codec(text: str) -> str:
    if text not in ("h264", "ffv1", "mjpeg"):
        raise ValueError("expected h264, ffv1 or mjpeg")
    return text


_OPTIONS: dict[str, Callable[[str], Any]] = {"codec": _codec, "crf": uris.whole}


class Encoder:
    """One video stream in a container, frames at their own moments.

    Args:
        container: PyAV's, open for writing.
        codec: "h264", "ffv1" or "mjpeg".
        image: the first frame: its size and layout are those of the video.
        crf: H.264's quality, 0 to 51, lower is better.
    """

    def __init__(self, av: Any, container: Any, codec: str, image: NDArray[Any], crf: int = 20) -> None:
        self._av, self._container, self._codec = av, container, codec
        self._grey = image.ndim == 2
        self._shape = image.shape[:2]
        self.last = -1
        name = {"h264": "libx264", "ffv1": "ffv1", "mjpeg": "mjpeg"}[codec]
        options = {
            # Without look-ahead every frame is in the file at once, which a kill must not lose.
            "h264": {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency", "g": "50"},
            "ffv1": {"slicecrc": "1"},
            "mjpeg": {"qmin": "2", "qmax": "4"},
        }[codec]
        self._timed = container.format.name != "avi"
        rate = _NOMINAL if self._timed else _AVI
        stream = container.add_stream(name, rate, options=options)
        height, width = (side + side % 2 if codec != "ffv1" else side for side in self._shape)
        stream.width, stream.height = width, height
        if codec == "ffv1":
            stream.pix_fmt = "gray" if self._grey else "bgr0"
        else:
            stream.pix_fmt = "yuv420p" if codec == "h264" else "yuvj420p"
        if codec == "h264":
            stream.codec_context.colorspace, stream.codec_context.color_range = _BT601, _LIMITED
        if self._timed:
            stream.codec_context.time_base = _BASE
        self._base = _BASE if self._timed else 1 / rate
        self._stream = stream

    def write(self, image: NDArray[Any], seconds: float) -> None:
        """Encode one frame, uint8, at so many seconds from the first; another size is scaled to the video's."""
        if image.shape[:2] != self._shape:
            image = np.asarray(cv2.resize(image, self._shape[::-1], interpolation=cv2.INTER_AREA))
        if self._grey != (image.ndim == 2):
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if self._grey else cv2.COLOR_GRAY2BGR)
        frame = self._picture(image)
        self.last = max(self.last + 1, round(seconds / self._base))
        frame.pts, frame.time_base = self.last, self._base
        self._container.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode(None))

    def _picture(self, image: NDArray[Any]) -> Any:
        new = self._av.VideoFrame.from_ndarray
        if self._codec == "ffv1":
            return new(np.ascontiguousarray(image), "gray" if self._grey else "bgr24")
        if self._codec == "h264":
            return new(yuv420(even(image)), "yuv420p")
        bgr = even(image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
        return new(np.ascontiguousarray(bgr), "bgr24")


def import_av(name: str) -> Any:
    """PyAV. Raises InputError if it is not installed."""
    try:
        import av
    except ImportError:
        raise InputError(
            f'{name}: PyAV is not installed, which writes video: pip install "ufuser[cpu]"'
        ) from None
    return av


class Recording:
    """`fused.mp4` (H.264, `?crf=20`), `fused.mkv` (FFV1, lossless; `?codec=h264` or `mjpeg`), `fused.avi` (Motion
    JPEG).

    Frames carry their own moments, so the rate may vary; in an AVI they are rounded to 1/60 s. The first frame
    sets size and layout. The file begins with the first frame, under its own name, in fragments: what is written
    can be played even if the program is killed, which a temporary name would hide. `%Y%m%d-%H%M%S` in the name is
    the time of the first frame, so that a service that starts again keeps its older recordings; a file of the
    same name is replaced.

    Raises:
        InputError: another suffix or codec, PyAV not installed, or nothing can be written there.
    """

    every_frame, in_main_thread = True, False

    def __init__(self, uri: Uri) -> None:
        options = uri.read(_OPTIONS)
        self.name, self._path = uri.name, Path(uri.address)
        suffix = self._path.suffix.lower()
        known = CODECS[suffix]
        self._codec = str(options.get("codec", known[0]))
        self._crf = int(options.get("crf", 20))
        if self._codec not in known:
            raise InputError(f"{self.name}: {suffix} with {self._codec}: expected {' or '.join(known)}")
        if self._crf > 51:
            raise InputError(f"{self.name}: crf={self._crf}: expected 0 to 51")
        self._av = import_av(self.name)
        require_writable(self._named())
        self._container: Any = None
        self._encoder: Encoder | None = None
        self._first = 0.0

    def _named(self) -> Path:
        name = self._path.name
        return self._path.with_name(time.strftime(name)) if "%" in name else self._path

    def write(self, frame: FusedFrame) -> None:
        try:
            if self._encoder is None:
                options = {"flush_packets": "1", **_LITTLE_AT_A_TIME.get(self._path.suffix.lower(), {})}
                self._container = self._av.open(str(self._named()), "w", options=options)
                self._encoder = Encoder(self._av, self._container, self._codec, frame.image, self._crf)
                self._first = frame.timestamp
            self._encoder.write(frame.image, frame.timestamp - self._first)
        except (OSError, self._av.FFmpegError) as e:
            raise self._failed(e) from None

    def close(self) -> None:
        container, self._container = self._container, None
        if container is None:
            return
        try:
            try:
                if self._encoder is not None:
                    self._encoder.flush()
            finally:
                container.close()
        except (OSError, self._av.FFmpegError) as e:
            raise self._failed(e) from None

    def _failed(self, error: Exception) -> InputError:
        return InputError(f"cannot write {self._path}: {getattr(error, 'strerror', None) or error}")
