"""Opens both cameras of a stream by their URIs, and again after they failed."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ufuser.runtime import uri as uris
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.pairing import SIDES, Side
from ufuser.runtime.sources.camera import Camera
from ufuser.runtime.sources.gstreamer import GStreamerCamera, csi_pipeline
from ufuser.runtime.sources.playback import FileReader, Player, open_file, open_sim
from ufuser.runtime.sources.rtsp import RtspCamera
from ufuser.runtime.sources.v4l2 import V4l2Camera
from ufuser.runtime.uri import Uri
from ufuser.simulation import Scene

SCHEMES = ("v4l2", "csi", "gst", "rtsp", "rtsps", "file", "folder", "sim")
_DEVICES = ("v4l2", "csi", "gst", "rtsp", "rtsps", "sim")
"""What comes at its own pace; the rest is files, unless they are played live."""


class Cameras:
    """The two cameras of a stream.

    If either is live, both are: a file beside a camera is played at its pace.

    Args:
        ir, vi: URIs or paths.
        clock: of the stream.

    Raises:
        InputError: unknown scheme, or both are the same device.
    """

    def __init__(self, ir: str, vi: str, clock: Clock) -> None:
        self._clock, self._origin = clock, clock.now()
        self._uris: dict[str, Uri] = {"ir": parse(ir), "vi": parse(vi)}
        if _identity(self._uris["ir"]) == _identity(self._uris["vi"]):
            raise InputError(
                f"--ir {self._uris['ir'].name} and --vi {self._uris['vi'].name} are the same device: expected two"
            )
        self.live = any(u.scheme in _DEVICES or u.options.get("live") == "1" for u in self._uris.values())
        self._scenes: dict[tuple[int, int, int], Scene] = {}
        self._open: dict[Side, Camera] = {}

    def start(self) -> None:
        """Time 0 of simulated and played cameras is now."""
        self._origin = self._clock.now()

    def name(self, side: Side) -> str:
        """The URI of a side with credentials masked."""
        return self._uris[side].name

    def check(self) -> None:
        """Open both, to be kept until `open` asks for them. Raises InputError where that fails."""
        for side in SIDES:
            camera = self.open(side)
            if isinstance(camera, (Player, FileReader)):
                camera.close()  # their time begins with the stream
            else:
                self._open[side] = camera

    def close(self) -> None:
        """Let go of what nobody asked for after `check`."""
        while self._open:
            self._open.popitem()[1].close()

    def open(self, side: Side) -> Camera:
        """Open one side, for the first time or again. Raises InputError where that fails."""
        if side in self._open:
            return self._open.pop(side)
        uri = self._uris[side]
        if uri.scheme == "v4l2":
            return V4l2Camera(uri, self._clock)
        if uri.scheme in ("csi", "gst"):
            pipeline = csi_pipeline(uri) if uri.scheme == "csi" else uri.address
            return GStreamerCamera(uri.name, pipeline, self._clock)
        if uri.scheme in ("rtsp", "rtsps"):
            return RtspCamera(uri, self._clock)
        if uri.scheme == "sim":
            return open_sim(uri, self._clock, self._origin, self._scenes)
        return open_file(uri, side == "ir", self._clock, self._origin, self.live)


def parse(text: str) -> Uri:
    """A source's URI in its parts. Raises InputError for an unknown scheme."""
    scheme = uris.scheme_of(text)
    if scheme and scheme not in SCHEMES:
        close = difflib.get_close_matches(scheme, SCHEMES, 1)
        near = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(
            f"{uris.mask(text)}: unknown scheme '{scheme}', expected {', '.join(SCHEMES)} or a path{near}"
        )
    return uris.split(text, with_options=scheme not in ("rtsp", "rtsps", "gst"))


def _identity(uri: Uri) -> object:
    """Equal for two URIs that mean one device or file, whatever their options."""
    if uri.scheme == "v4l2":
        # Links such as /dev/v4l/by-id/… lead to the same node.
        try:
            return "device", os.stat(uri.address).st_rdev
        except OSError:
            return "device", os.path.realpath(uri.address)
    if uri.scheme in ("", "file", "folder"):
        return "file", os.path.realpath(Path(uri.address))
    if uri.scheme == "sim":
        return "sim", uri.address.rstrip("/"), tuple(sorted(uri.options.items()))
    return uri.scheme, uri.address
