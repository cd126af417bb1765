"""Sinks of fused frames: pictures, folders, videos, recordings, windows, pages, media servers, and plug-ins.

`ufuser fuse` writes to the file sinks; `ufuser.runtime.sinks.opening.open_sink` opens any sink by its URI.
"""

from __future__ import annotations

from ufuser.runtime.sinks.files import FolderSink, ImageSink, VideoSink
from ufuser.runtime.sinks.sink import Sink, SinkContext, finished

__all__ = ["FolderSink", "ImageSink", "Sink", "SinkContext", "VideoSink", "finished"]
