"""Opens a sink by its URI or path."""

from __future__ import annotations

from pathlib import Path

from ufuser.runtime import schemes
from ufuser.runtime.errors import InputError
from ufuser.runtime.names import require_path
from ufuser.runtime.sinks.files import FolderSink
from ufuser.runtime.sinks.recording import Recording
from ufuser.runtime.sinks.sink import Sink, SinkContext
from ufuser.runtime.uri import Uri
from ufuser.runtime.video import CODECS


def open_sink(text: str, context: SinkContext) -> Sink:
    """Open one output.

    Args:
        text: `window:`, a video file, `folder:DIR`, `mjpeg://127.0.0.1:8080`, `rtsp://host/path`, `null:`, or
            the URI of a plug-in.
        context: clock, and who may connect.

    Raises:
        InputError: unknown scheme or suffix; it cannot be written, shown or served there.
    """
    scheme = schemes.find(schemes.SINKS, text)
    sink: Sink = scheme.open(scheme.parse(text), context)
    return sink


def open_path(uri: Uri, context: SinkContext) -> Sink:
    """Open `file:PATH`, `folder:DIR` or a path: a video by its suffix, or a folder of pictures. Raises InputError."""
    require_path(uri.address)
    path = Path(uri.address)
    if uri.scheme == "folder" or path.is_dir() or uri.address.endswith("/"):
        uri.read({})
        return FolderSink(path, name=uri.name)
    if path.suffix.lower() not in CODECS:
        raise InputError(
            f"cannot write {uri.name}: expected a video (.mp4 H.264, .mkv FFV1, .avi Motion JPEG), folder:DIR, "
            f"window:, mjpeg://127.0.0.1:8080, rtsp://… or null:"
        )
    return Recording(uri)
