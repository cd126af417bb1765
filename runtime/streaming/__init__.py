"""Two cameras in, one fused stream out, for weeks: threads, queues, and recovery from failures of a camera or sink."""

from __future__ import annotations

from ufuser.runtime.streaming.stream import Stream, StreamConfig

__all__ = ["Stream", "StreamConfig"]
