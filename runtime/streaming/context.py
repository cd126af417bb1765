"""What all threads of a stream share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ufuser.runtime.clock import Clock
from ufuser.runtime.credentials import KNOWN
from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.telemetry.events import Event, OnEvent, Severity


@dataclass(frozen=True, slots=True)
class StreamContext:
    """Clock, telemetry, events and the stop signal of one stream."""

    clock: Clock
    telemetry: Telemetry
    on_event: OnEvent | None = None
    """Also takes every event, from several threads."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the stream ends."""

    def event(self, severity: Severity, subject: str, text: str) -> None:
        """Record an event and pass it on."""
        event = Event(self.telemetry.seconds(), severity, KNOWN.clean(subject), KNOWN.clean(text))
        self.telemetry.event(event)
        if self.on_event is not None:
            self.on_event(event)
