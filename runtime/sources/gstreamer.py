"""GStreamer pipelines, by OpenCV: `gst:PIPELINE`, and the cameras of a Jetson as `csi://0`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from ufuser.runtime import uri as uris
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.sources.source import TIMEOUT, Reading, SourceContext, Status, failed
from ufuser.runtime.sources.stamps import StampMap
from ufuser.runtime.uri import Uri, mask

_READ_TIMEOUT_MS = 1000
_SILENT = 3
"""Reads without a frame before the pipeline counts as broken."""
APPSINK = "appsink drop=true max-buffers=2 sync=false"
_CSI_OPTIONS: dict[str, Callable[[str], Any]] = {
    "size": uris.size,
    "fps": uris.number,
    "flip": uris.whole,
    "mode": uris.whole,
}


def csi_pipeline(uri: Uri) -> str:
    """The pipeline of `csi://0?size=1280x720&fps=30&flip=2&mode=0` on a Jetson.

    Args:
        uri: the address is the sensor's number; `flip` is nvvidconv's flip-method, `mode` the sensor's.

    Raises:
        InputError: the address is no number, or a bad option.
    """
    options = uri.read(_CSI_OPTIONS)
    if not uri.address.isdecimal():
        raise InputError(f"{uri.name}: expected a sensor's number, such as csi://0")
    caps = "video/x-raw(memory:NVMM)"
    if "size" in options:
        caps += f",width={options['size'][0]},height={options['size'][1]}"
    if "fps" in options:
        caps += f",framerate={round(options['fps'])}/1"
    mode = f" sensor-mode={options['mode']}" if "mode" in options else ""
    flip = f" flip-method={options['flip']}" if "flip" in options else ""
    return (
        f"nvarguscamerasrc sensor-id={uri.address}{mode} ! {caps} ! nvvidconv{flip} ! video/x-raw,format=BGRx ! "
        f"videoconvert ! video/x-raw,format=BGR ! {APPSINK}"
    )


def complete(pipeline: str) -> str:
    """The pipeline, with an appsink for BGR that keeps the newest frames if it has none."""
    if "appsink" in pipeline:
        return pipeline
    return f"{pipeline.rstrip(' !')} ! videoconvert ! video/x-raw,format=BGR ! {APPSINK}"


class GStreamerCamera:
    """A pipeline that ends in an appsink of BGR, GRAY8 or GRAY16_LE.

    Args:
        name: URI with credentials masked.
        pipeline: in the syntax of gst-launch.
        clock: of the stream.

    Raises:
        InputError: this OpenCV has no GStreamer, or the pipeline does not start.
    """

    live, length = True, None

    def __init__(self, name: str, pipeline: str, clock: Clock) -> None:
        # OpenCV's build information is not reliable about this.
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise InputError(
                f"{name}: this OpenCV has no GStreamer (wheels have none): expected a build with it, such as the "
                f"system package on a Jetson or Debian's python3-opencv"
            )
        self.name, self._clock = name, clock
        self._capture = self._opened(complete(pipeline))
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(
                f"{name}: the pipeline does not start: check it with `gst-launch-1.0 {mask(pipeline)}`"
            )
        # Decoders are called avdec_h264, nvjpegdec, nvv4l2decoder, decodebin, …
        self.repeats = re.search("dec|playbin", pipeline) is None
        self._stamps, self._sequence, self._silent = StampMap(), 0, 0

    @staticmethod
    def _opened(pipeline: str) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(
            pipeline, cv2.CAP_GSTREAMER, [cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT_MS]
        )
        if capture.isOpened():
            return capture
        # OpenCV 4.6 opens nothing with a time-out. Without one, a silent pipeline blocks longer.
        capture.release()
        return cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)

    def read(self, timeout: float) -> Reading:
        if not self._capture.grab():
            self._silent += 1
            return failed(f"{self.name}: the pipeline has stopped") if self._silent >= _SILENT else TIMEOUT
        self._silent = 0
        arrival = self._clock.now()
        done, image = self._capture.retrieve()
        if not done or image is None:
            return failed(f"{self.name}: a frame could not be taken from the pipeline")
        if image.ndim == 3 and image.shape[2] == 1:
            image = np.ascontiguousarray(image[..., 0])
        stamp = self._stamps.map(float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000, arrival)
        sequence, self._sequence = self._sequence, self._sequence + 1
        return Reading(Status.FRAME, Frame(image, stamp, sequence, self.name, arrival=arrival))

    def close(self) -> None:
        self._capture.release()


def open_gst(uri: Uri, context: SourceContext) -> GStreamerCamera:
    """Open `gst:PIPELINE`. Raises InputError."""
    return GStreamerCamera(uri.name, uri.address, context.clock)


def open_csi(uri: Uri, context: SourceContext) -> GStreamerCamera:
    """Open `csi://0`. Raises InputError."""
    return GStreamerCamera(uri.name, csi_pipeline(uri), context.clock)
