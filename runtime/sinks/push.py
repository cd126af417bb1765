"""`rtsp://`: pushes H.264 to a media server (RTSP ANNOUNCE/RECORD), and reconnects."""

from __future__ import annotations

from ufuser.runtime.frame import Frame
from ufuser.runtime.sinks.sink import SinkContext, SinkDown
from ufuser.runtime.uri import Uri
from ufuser.runtime.video import Encoder, EncoderError, import_av

_TIMEOUT = (5.0, 3.0)
"""Seconds to connect, and to send a frame."""


class RtspPush:
    """Connects with the first frame, whose size the video has.

    A server that is unreachable, or refuses, is SinkDown: the next frame connects again.

    Raises InputError if PyAV is not installed.
    """

    every_frame, in_main_thread = False, False

    def __init__(self, uri: Uri) -> None:
        self.name, self._url = uri.name, uri.text
        import_av(self.name)
        self._encoder: Encoder | None = None
        self._shape: tuple[int, ...] = ()
        self._first = 0.0

    def write(self, frame: Frame) -> None:
        if self._encoder is not None and frame.image.shape != self._shape:
            self.close()  # receivers learn a new size only by a new connection
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
            self.close()
            raise SinkDown(str(e)) from None

    def close(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.abort()  # a server that is away needs no end of the stream

    def abort(self) -> None:
        self.close()


def open_push(uri: Uri, context: SinkContext) -> RtspPush:
    """Open `rtsp://` or `rtsps://`. Raises InputError."""
    return RtspPush(uri)
