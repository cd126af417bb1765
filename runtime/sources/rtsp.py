"""Network cameras over RTSP, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.remedies import how_to_install
from ufuser.runtime.sources.source import Reading, SourceContext, Status, failed
from ufuser.runtime.sources.stamps import StampMap
from ufuser.runtime.uri import Uri, mask

_OPEN_TIMEOUT, _READ_TIMEOUT = 5.0, 3.0
"""Seconds. A network camera that is silent for longer is opened again."""
_OPTIONS = {
    "rtsp_transport": "tcp",  # UDP loses packets silently, and firewalls drop it
    "fflags": "nobuffer",
    "flags": "low_delay",
}


class RtspCamera:
    """`rtsp://user:password@host/path`, or `rtsps://`.

    Raises InputError: PyAV not installed, no answer, wrong credentials, or nothing to decode. No message contains the
    password.
    """

    live, length, repeats = True, None, False

    def __init__(self, uri: Uri, clock: Clock) -> None:
        try:
            import av
        except ImportError:
            raise InputError(
                f"{uri.name}: PyAV is not installed, which reads RTSP: {how_to_install('av')}"
            ) from None
        self.name, self._clock, self._av = uri.name, clock, av
        try:
            self._container = av.open(uri.text, options=_OPTIONS, timeout=(_OPEN_TIMEOUT, _READ_TIMEOUT))
        except (OSError, av.FFmpegError) as e:
            raise InputError(f"{uri.name}: {self._why(e)}") from None
        if not self._container.streams.video:
            self._container.close()
            raise InputError(f"{uri.name}: the camera sends no video")
        stream = self._container.streams.video[0]
        # Frame threads would delay every frame by their number.
        stream.thread_type = "SLICE"
        self._frames: Iterator[Any] = self._container.decode(stream)
        self._stamps, self._sequence = StampMap(), 0

    def read(self, timeout: float) -> Reading:
        try:
            picture = next(self._frames, None)
        except (OSError, self._av.FFmpegError) as e:
            return failed(f"{self.name}: {self._why(e)}")
        if picture is None:
            return failed(f"{self.name}: the camera ended the stream")
        arrival = self._clock.now()
        layout = "gray16le" if picture.format.name.startswith("gray1") else "bgr24"
        image = picture.to_ndarray(format=layout)
        stamp = arrival if picture.time is None else self._stamps.map(picture.time, arrival)
        sequence, self._sequence = self._sequence, self._sequence + 1
        return Reading(Status.FRAME, Frame(image, stamp, sequence, self.name, arrival=arrival))

    def close(self) -> None:
        self._container.close()

    def _why(self, error: Exception) -> str:
        errors = self._av.error
        if isinstance(error, (errors.HTTPUnauthorizedError, errors.HTTPForbiddenError)):
            return "the camera refused user name or password"
        if isinstance(error, errors.HTTPNotFoundError):
            return "the camera knows no such path"
        if isinstance(error, (errors.ExitError, TimeoutError)):
            return f"no answer within {_OPEN_TIMEOUT:g} s of opening or {_READ_TIMEOUT:g} s of reading"
        return mask(str(getattr(error, "strerror", None) or error))


def open_rtsp(uri: Uri, context: SourceContext) -> RtspCamera:
    """Open `rtsp://` or `rtsps://`. Raises InputError."""
    return RtspCamera(uri, context.clock)
