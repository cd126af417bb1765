"""A URI or path → frames.

`open_source` and `open_pair` read pictures, folders and videos to their end, as `ufuser fuse` does;
`Cameras` opens what `ufuser stream` takes: devices, network cameras, and files and simulations played live.
"""

from __future__ import annotations

from ufuser.runtime.sources.camera import Camera, Reading, Status
from ufuser.runtime.sources.files import (
    SCHEMES,
    VIDEOS,
    ImagesSource,
    SimSource,
    Source,
    VideoSource,
    kind_of,
    open_pair,
    open_source,
    pictures_in,
    scheme_of,
)

__all__ = [
    "SCHEMES",
    "VIDEOS",
    "Camera",
    "ImagesSource",
    "Reading",
    "SimSource",
    "Source",
    "Status",
    "VideoSource",
    "kind_of",
    "open_pair",
    "open_source",
    "pictures_in",
    "scheme_of",
]
