"""`rtsp://`: pushes H.264 to a media server (RTSP ANNOUNCE/RECORD), and reconnects."""

from __future__ import annotations

from ufuser.runtime.clock import Clock
from ufuser.runtime.frame import Frame
from ufuser.runtime.sinks.sink import SinkContext, SinkDown
from ufuser.runtime.uri import Uri
from ufuser.runtime.video import Encoder, EncoderError, import_av

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
"""Seconds before the next attempt to connect; each further pause is twice as long."""
_TIMEOUT = (5.0, 3.0)
"""Seconds to connect, and to send a frame."""


class RtspPush:
    """Connects with the first frame, whose size the video has.

    A server that is unreachable, or refuses, does not end the stream: the sink tries again.

    Raises InputError if PyAV is not installed.
    """

    every_frame, in_main_thread = False, False

    def __init__(self, uri: Uri, clock: Clock) -> None:
        self.name, self._url, self._clock = uri.name, uri.text, clock
        import_av(self.name)
        self._encoder: Encoder | None = None
        self._shape: tuple[int, ...] = ()
        self._first = 0.0
        self._pause, self._again = _FIRST_PAUSE, float("-inf")
        self._why = ""

    def write(self, frame: Frame) -> None:
        if self._encoder is not None and frame.image.shape != self._shape:
            self.close()  # receivers learn a new size only by a new connection
        if self._clock.now() < self._again:
            raise SinkDown(self._why)
        try:
            if self._encoder is None:
                self._encoder = Encoder(
                    self._url,
                    "h264",
                    frame.image,
                    container="rtsp",
                    options={"rtsp_transport": "tcp"},
                    timeout=_TIMEOUT,
                )
                self._shape, self._first = frame.image.shape, frame.timestamp
            self._encoder.write(frame.image, frame.timestamp - self._first)
        except EncoderError as e:
            self._why = str(e)
            self._again = self._clock.now() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self.close()
            raise SinkDown(self._why) from None
        self._pause = _FIRST_PAUSE

    def close(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.abort()  # a server that is away needs no end of the stream

    def abort(self) -> None:
        self.close()


def open_push(uri: Uri, context: SinkContext) -> RtspPush:
    """Open `rtsp://` or `rtsps://`. Raises InputError."""
    return RtspPush(uri, context.clock)
