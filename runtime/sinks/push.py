"""`rtsp://`: pushes H.264 to a media server (RTSP ANNOUNCE/RECORD), and again after it was away."""

from __future__ import annotations

from typing import Any

from ufuser.runtime.clock import Clock
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.sinks.recording import Encoder, import_av
from ufuser.runtime.sinks.stream import SinkDown
from ufuser.runtime.uri import Uri, mask

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
"""Seconds before connecting again; each further try waits twice as long."""
_TIMEOUT = (5.0, 3.0)
"""Seconds to connect, and to send a frame."""


class RtspPush:
    """Connects with the first frame, whose size the video has.

    A server that is away, or refuses, does not end the stream: it is asked again.

    Raises InputError if PyAV is not installed.
    """

    every_frame, in_main_thread = False, False

    def __init__(self, uri: Uri, clock: Clock) -> None:
        self.name, self._url, self._clock = uri.name, uri.text, clock
        self._av = import_av(self.name)
        self._container: Any = None
        self._encoder: Encoder | None = None
        self._shape: tuple[int, ...] = ()
        self._first = 0.0
        self._pause, self._again = _FIRST_PAUSE, float("-inf")
        self._why = ""

    def write(self, frame: FusedFrame) -> None:
        if self._encoder is not None and frame.image.shape != self._shape:
            self.close()  # receivers learn a new size by a new connection only
        if self._clock.now() < self._again:
            raise SinkDown(self._why)
        try:
            if self._encoder is None:
                self._connect(frame)
            assert self._encoder is not None
            self._encoder.write(frame.image, frame.timestamp - self._first)
        except (OSError, self._av.FFmpegError) as e:
            self._why = mask(str(getattr(e, "strerror", None) or e))
            self._again = self._clock.now() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self.close()
            raise SinkDown(self._why) from None
        self._pause = _FIRST_PAUSE

    def _connect(self, frame: FusedFrame) -> None:
        options = {"rtsp_transport": "tcp"}
        self._container = self._av.open(self._url, "w", format="rtsp", options=options, timeout=_TIMEOUT)
        self._encoder = Encoder(self._av, self._container, "h264", frame.image)
        self._shape, self._first = frame.image.shape, frame.timestamp

    def close(self) -> None:
        container, self._container, self._encoder = self._container, None, None
        if container is not None:
            try:
                container.close()
            except (OSError, self._av.FFmpegError):
                return  # the server is away: there is nobody to say good-bye to
