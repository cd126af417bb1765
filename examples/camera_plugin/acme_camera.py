"""A camera and an output as a plug-in: `ufuser stream --ir acme://0 --vi acme://1 --out brightness:log.txt`."""

import time
from pathlib import Path

import numpy as np

from ufuser import InputError
from ufuser.runtime.frame import Frame, FusedFrame
from ufuser.runtime.sinks import SinkContext
from ufuser.runtime.sources import Reading, SourceContext, Status
from ufuser.runtime.uri import Uri, number


class AcmeCamera:
    """`acme://SERIAL?fps=25`. Random pictures stand in for the vendor's SDK."""

    live, length, repeats = True, None, True

    def __init__(self, uri: Uri, context: SourceContext) -> None:
        self.name, self._context = uri.name, context
        self._period = 1 / uri.read({"fps": number}).get("fps", 25.0)
        if not uri.address.isdecimal():
            raise InputError(f"{self.name}: expected a serial number, such as acme://0")
        self._rng, self._sequence = np.random.default_rng(int(uri.address)), 0

    def read(self, timeout: float) -> Reading:
        time.sleep(self._period)  # an SDK waits here for `timeout` seconds at most; TIMEOUT without a frame
        now = self._context.clock.now()
        image = self._rng.integers(0, 256, (120, 160), np.uint8)
        frame = Frame(image, now, self._sequence, self.name, arrival=now)
        self._sequence += 1
        return Reading(Status.FRAME, frame)

    def close(self) -> None:
        pass  # release the device here


class BrightnessLog:
    """`brightness:FILE`: a line with time and mean level for each fused frame."""

    every_frame, in_main_thread = True, False

    def __init__(self, uri: Uri, context: SinkContext) -> None:
        self.name = uri.name
        self._file = Path(uri.address).open("w", encoding="utf-8")  # noqa: SIM115 - `close` closes it

    def write(self, frame: FusedFrame) -> None:
        self._file.write(f"{frame.timestamp:.3f} {frame.image.mean():.1f}\n")

    def close(self) -> None:
        self._file.close()

    abort = close
