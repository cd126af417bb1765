"""The protocol of all sinks: one thread writes to a sink and closes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from ufuser.runtime.clock import Clock
from ufuser.runtime.frame import FusedFrame

if TYPE_CHECKING:  # imports an HTTP server, which only a page needs
    from ufuser.runtime.web.server import Access


class SinkDown(Exception):  # noqa: N818 - an ordinary event: a server is unreachable at the moment
    """This frame could not be delivered; a later one may be. The stream waits longer after each such frame in a row."""


class EndWanted(Exception):  # noqa: N818 - an ordinary event: a window was closed
    """The user at the sink wants the stream to end."""


class Sink(Protocol):
    """Takes fused frames. One thread writes and closes; no other may call `close` or `abort` meanwhile."""

    @property
    def name(self) -> str:
        """URI or path with credentials masked."""

    @property
    def every_frame(self) -> bool:
        """Whether every frame counts, as for a file. False: only the newest does, as for a window."""

    @property
    def in_main_thread(self) -> bool:
        """Whether it must be called in the main thread, as a window must."""

    def write(self, frame: FusedFrame) -> None:
        """Take one frame.

        Raises:
            InputError: the sink has failed for good, for example on a full disk.
            SinkDown: this frame is lost, a later one may be delivered.
            EndWanted: the user wants the stream to end.
        """

    def close(self) -> None:
        """Finish and publish the output. Raises InputError where that fails. A second call does nothing."""

    def abort(self) -> None:
        """Clean up after an error: remove an unfinished file, or keep it where a part of it is useful.

        Does nothing after `close`.
        """


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What a sink may need to know of its surroundings; argument of every opener."""

    clock: Clock = field(default_factory=Clock)
    """Clock of the stream."""
    access: Access | None = None
    """Who may connect to a page; None lets this machine alone."""


AnySink = TypeVar("AnySink", bound=Sink)


@contextmanager
def finished(sink: AnySink) -> Iterator[AnySink]:
    """Close the sink at the end of the block; abort it after an exception."""
    try:
        yield sink
    except BaseException:
        sink.abort()
        raise
    sink.close()
