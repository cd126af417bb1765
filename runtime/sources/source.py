"""The protocol of all sources: a read answers with a status and does not block for long."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.schemes import as_input_error

_POLL = 0.2
"""Seconds that `frames` waits per read, so that an interrupt is noticed."""


class Status(Enum):
    """Result of a read. All of these are ordinary events, so none is an exception."""

    FRAME = "frame"
    TIMEOUT = "timeout"
    """No frame yet: read again."""
    END = "end"
    """No more frames, as at the end of a file."""
    ERROR = "error"
    """The device or connection has failed: closing and opening it again may help."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Answer of a source."""

    status: Status
    frame: Frame | None = None
    """With FRAME only. In a stream, `timestamp` is the capture and `arrival` the reception, on the stream's clock."""
    detail: str = ""
    """With ERROR, the reason; with END, what says that a file is not whole. Credentials are masked."""
    late: int = 0
    """Frames that a simulated or played camera skipped before this one because it was read too late."""


TIMEOUT = Reading(Status.TIMEOUT)
END = Reading(Status.END)


def failed(detail: str) -> Reading:
    """An ERROR with its reason."""
    return Reading(Status.ERROR, detail=detail)


class Source(Protocol):
    """An open source of frames, read and closed by one thread."""

    @property
    def name(self) -> str:
        """URI or path with credentials masked."""

    @property
    def live(self) -> bool:
        """Whether frames come at their own pace; False for a file that is read as fast as possible."""

    @property
    def length(self) -> int | None:
        """Number of frames; None if endless or unknown. A video's container may be wrong about it."""

    @property
    def repeats(self) -> bool:
        """Whether two bit-identical frames mean that the camera repeated itself, as in a flat-field correction.

        False behind a lossy codec, which makes frames of a still scene identical.
        """

    def read(self, timeout: float) -> Reading:
        """The next frame, or why there is none.

        Args:
            timeout: seconds to wait at most. Drivers without a time-out may take up to two seconds longer.

        Raises:
            InputError: the frame cannot be read; from a live source the same as ERROR.
        """

    def close(self) -> None:
        """Release the device, file or connection. A second call does nothing."""


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source may need to know of its surroundings; argument of every opener."""

    clock: Clock = field(default_factory=Clock)
    """Clock of the stream: stamps, arrivals and time-outs."""
    side: str = "vi"
    """Which camera it is: "ir" or "vi"."""
    live: bool = False
    """Play files and simulated cameras at their own pace. False: give every frame, as fast as it is read."""
    origin: float = 0.0
    """Time on the clock at which played and simulated cameras start."""
    shared: dict[Hashable, Any] = field(default_factory=dict)
    """For objects that both cameras and later openings share, such as a simulated scene."""


def frames(source: Source) -> Iterator[Frame]:
    """Every frame up to the end. Raises InputError for any failure of the source."""
    while True:
        try:
            reading = source.read(_POLL)
        except InputError:
            raise
        except Exception as e:  # a plug-in may raise anything
            raise as_input_error(e, source.name) from e
        if reading.frame is not None:
            yield reading.frame
        elif reading.status is Status.END:
            return
        elif reading.status is Status.ERROR:
            raise InputError(reading.detail)
