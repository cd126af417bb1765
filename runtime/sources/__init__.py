"""Sources of frames by URI or path: pictures, folders, videos, devices, network cameras, and plug-ins.

`Cameras` opens a pair by the table of `ufuser.runtime.schemes`.
"""

from __future__ import annotations

from ufuser.runtime.sources.files import (
    VIDEOS,
    ImagesSource,
    VideoSource,
    kind_of,
    pictures_in,
)
from ufuser.runtime.sources.opening import Cameras, open_source
from ufuser.runtime.sources.source import Reading, Source, SourceContext, Status, frames

__all__ = [
    "VIDEOS",
    "Cameras",
    "ImagesSource",
    "Reading",
    "Source",
    "SourceContext",
    "Status",
    "VideoSource",
    "frames",
    "kind_of",
    "open_source",
    "pictures_in",
]
