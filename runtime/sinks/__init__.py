"""Where fused frames go.

Pictures, folders and videos that appear whole or not at all, as `ufuser fuse` writes them; and, in
`ufuser.runtime.sinks.opening`, what `ufuser stream` writes to for weeks.
"""

from __future__ import annotations

from ufuser.runtime.sinks.files import FolderSink, ImageSink, Sink, VideoSink

__all__ = ["FolderSink", "ImageSink", "Sink", "VideoSink"]
