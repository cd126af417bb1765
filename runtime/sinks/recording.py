"""A video file that a stream writes for hours: playable at any moment, even if the program is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ufuser.runtime import uri as uris
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable
from ufuser.runtime.frame import Frame
from ufuser.runtime.locks import FileLock
from ufuser.runtime.names import timed_name
from ufuser.runtime.uri import Uri
from ufuser.runtime.video import CODECS, Encoder, EncoderError, import_av

_FRAGMENTS = {
    ".mp4": {"movflags": "empty_moov+default_base_moof+frag_keyframe", "frag_duration": "500000"},
    ".mkv": {"cluster_time_limit": "500"},
}
"""Half a second is written at a time (microseconds, milliseconds): a kill loses no more than that."""


def _codec(text: str) -> str:
    if text not in ("h264", "ffv1", "mjpeg"):
        raise ValueError("expected h264, ffv1 or mjpeg")
    return text


_OPTIONS: dict[str, Callable[[str], Any]] = {"codec": _codec, "crf": uris.whole}


class Recording:
    """`fused.mp4` (H.264, `?crf=20`), `fused.mkv` (FFV1, lossless; `?codec=h264` or `mjpeg`), `fused.avi` (Motion
    JPEG).

    Frames carry their own moments, so the rate may vary; in an AVI they are rounded to 1/60 s. The first frame sets
    size and layout. The file begins with the first frame, under its own name, in fragments: it can be played even if
    the program is killed, which a temporary name would hide. `%Y%m%d-%H%M%S` in the name is the time of the first
    frame, so that a service that starts again keeps its older recordings; a file of the same name is replaced.

    Raises:
        InputError: another suffix or codec, PyAV not installed, or the file cannot be written there.
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
        import_av(self.name)
        require_writable(timed_name(self._path))
        self._encoder: Encoder | None = None
        self._lock: FileLock | None = None
        self._first = 0.0

    def write(self, frame: Frame) -> None:
        try:
            if self._encoder is None:
                self._begin(frame)
            else:
                self._encoder.write(frame.image, frame.timestamp - self._first)
        except EncoderError as e:
            raise InputError(f"cannot write {self._path}: {e}") from None

    def _begin(self, frame: Frame) -> None:
        path = timed_name(self._path)
        try:
            self._lock = FileLock(path)
        except OSError as e:
            raise InputError(f"cannot write {path}: {e.strerror}") from None
        options = {"flush_packets": "1", **_FRAGMENTS.get(path.suffix.lower(), {})}
        encoder = Encoder(str(path), self._codec, frame.image, crf=self._crf, options=options)
        self._encoder, self._first = encoder, frame.timestamp
        encoder.write(frame.image)

    def close(self) -> None:
        try:
            if self._encoder is not None:
                self._encoder.close()
        except EncoderError as e:
            raise InputError(f"cannot write {self._path}: {e}") from None
        finally:
            if self._lock is not None:
                self._lock.release()

    def abort(self) -> None:
        """Keep the file: a recording is useful without its end."""
        self.close()
