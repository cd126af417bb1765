"""What every live source is: asked for a frame, it answers with a status and never blocks for long."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ufuser.runtime.frame import Frame


class Status(Enum):
    """What came of asking a camera for a frame. None of it is exceptional, so none is an exception."""

    FRAME = "frame"
    TIMEOUT = "timeout"
    """Nothing yet; asking again is right."""
    END = "end"
    """Nothing will come any more, as it should be: the end of a file."""
    ERROR = "error"
    """The device or connection has failed: closing and opening it anew may help."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer."""

    status: Status
    frame: Frame | None = None
    """With FRAME only; its `timestamp` is capture, its `arrival` reception, on the stream's clock."""
    detail: str = ""
    """With ERROR, what went wrong; credentials masked."""
    late: int = 0
    """Frames a simulated camera had to leave out before this one because it was asked too late."""


TIMEOUT = Reading(Status.TIMEOUT)
END = Reading(Status.END)


def failed(detail: str) -> Reading:
    """An ERROR with what went wrong."""
    return Reading(Status.ERROR, detail=detail)


class Camera(Protocol):
    """An open live source, read by one thread."""

    @property
    def name(self) -> str:
        """URI with credentials masked."""

    @property
    def live(self) -> bool:
        """Whether frames come at their own pace; False for a file read as fast as it is asked."""

    @property
    def fps(self) -> float | None:
        """Frames per second it claims; None if it does not say."""

    def read(self, timeout: float) -> Reading:
        """The next frame, or why there is none.

        Args:
            timeout: seconds to wait at most. Drivers that cannot be told may take up to two seconds more.
        """

    def close(self) -> None:
        """Let go of the device, file or connection; a second call does nothing."""
