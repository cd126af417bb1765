"""What every sink of a stream is: called in one thread, never waited for."""

from __future__ import annotations

from typing import Protocol

from ufuser.runtime.frame import FusedFrame


class SinkDown(Exception):  # noqa: N818 - an ordinary event: a server is not there at the moment
    """This frame could not be delivered; a later one may."""


class EndWanted(Exception):  # noqa: N818 - an ordinary event: a window was closed
    """Whoever sits before the sink wants the stream to end."""


class StreamSink(Protocol):
    """Takes a stream's frames, in one thread."""

    @property
    def name(self) -> str:
        """URI with credentials masked."""

    @property
    def every_frame(self) -> bool:
        """Whether each frame matters, as to a file; else only the newest does, as to a window."""

    @property
    def in_main_thread(self) -> bool:
        """Whether it must be called in the main thread, as a window must."""

    def write(self, frame: FusedFrame) -> None:
        """Take one frame. Raises InputError where it is over, such as a full disk; SinkDown to go on without this
        frame; EndWanted."""

    def close(self) -> None:
        """Finish: what was taken is complete afterwards. A second call does nothing."""
