"""What a stream's `--out` means."""

from __future__ import annotations

import difflib
from pathlib import Path

from ufuser.runtime import uri as uris
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.sinks.page import PageSink, page_address
from ufuser.runtime.sinks.push import RtspPush
from ufuser.runtime.sinks.recording import CODECS, Recording
from ufuser.runtime.sinks.simple import Nothing, PictureFolder, Window
from ufuser.runtime.sinks.stream import StreamSink
from ufuser.runtime.uri import Uri
from ufuser.runtime.web.server import Access

SCHEMES = ("window", "file", "folder", "mjpeg", "rtsp", "rtsps", "null")


def open_sink(text: str, clock: Clock, access: Access) -> StreamSink:
    """Open one output.

    Args:
        text: `window:`, a video file, `folder:DIR`, `mjpeg://127.0.0.1:8080`, `rtsp://host/path`, `null:`.
        clock: of the stream.
        access: who may look at a page.

    Raises:
        InputError: unknown scheme or suffix; it cannot be written, shown or served there.
    """
    scheme = uris.scheme_of(text)
    if scheme and scheme not in SCHEMES:
        close = difflib.get_close_matches(scheme, SCHEMES, 1)
        near = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(
            f"{uris.mask(text)}: unknown scheme '{scheme}', expected {', '.join(SCHEMES)} or a path{near}"
        )
    uri = uris.split(text, with_options=scheme not in ("rtsp", "rtsps"))
    if scheme == "null":
        return Nothing(uri.name)
    if scheme == "window":
        return Window(uri)
    if scheme == "mjpeg":
        return PageSink(uri.name, page_address(uri, access), access)
    if scheme in ("rtsp", "rtsps"):
        return RtspPush(uri, clock)
    return _by_path(uri)


def _by_path(uri: Uri) -> StreamSink:
    path = Path(uri.address)
    if uri.scheme == "folder" or path.is_dir() or uri.address.endswith("/"):
        return PictureFolder(uri)
    if path.suffix.lower() not in CODECS:
        raise InputError(
            f"cannot write {uri.name}: expected a video (.mp4 H.264, .mkv FFV1, .avi Motion JPEG), folder:DIR, "
            f"window:, mjpeg://127.0.0.1:8080, rtsp://… or null:"
        )
    return Recording(uri)
