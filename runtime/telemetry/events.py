"""Events of a stream: what happened, to which part of it, and how serious that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened while a stream ran. Credentials are masked."""

    time: float
    """Seconds since the stream began, on the stream's clock."""
    severity: Severity
    subject: str
    """The part it is about: "infrared camera", "visible camera", "fusion", or the URI of a sink."""
    text: str

    def __str__(self) -> str:
        """One line without the time."""
        return f"{self.subject}: {self.text}"


OnEvent = Callable[[Event], None]
"""Takes an event. Called from several threads."""
