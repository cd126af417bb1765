"""From two cameras' frames to pairs that can be fused: tone mapping, pairing, alignment, detection of lost cameras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.color import luma
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import as_uint8
from ufuser.runtime.pairer import Pairer
from ufuser.runtime.pairing import SIDES, FramePair, PairingConfig, Side
from ufuser.runtime.streaming.camera_worker import CAMERA_NAMES
from ufuser.runtime.streaming.context import StreamContext
from ufuser.runtime.streaming.queues import Closed, MultiQueue, Queue
from ufuser.runtime.streaming.states import CameraLifecycle, CameraState
from ufuser.runtime.thermal import ThermalPipeline

_POLL = 0.05
"""Real seconds between two checks for lost cameras."""
_REPEAT = 0.5
"""Seconds between two repetitions of the last frame while both cameras are lost."""


class Aligner(Protocol):
    """Maps infrared pictures onto the visible camera's."""

    def warp(
        self, image: NDArray[Any], size: tuple[int, int], under: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """The picture as the visible camera of this width and height sees it, over `under` where infrared sees
        nothing. Raises InputError if it does not fit the calibration."""


@dataclass(frozen=True, slots=True)
class PrepareConfig:
    """What is done to frames before the fusion."""

    live: bool
    """Frames come from cameras. From files, the pairing decides which side is read next, and time does not count."""
    pairing: PairingConfig
    grey: bool = False
    """Leave out the visible picture's colour."""
    duration: float | None = None
    """End after so many seconds; None for never."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What goes to the fusion."""

    pair: FramePair | None
    """Pictures uint8 and, where both are there, of one size; None asks for the last frame again."""
    arrival: float
    """When the later of its frames was received, seconds on the stream's clock."""
    lost_for: float = 0.0
    """Without a pair: seconds since the last frame of either camera."""


class Preparation:
    """Runs in its own thread.

    Args:
        inbox: frames by side; None is the end of a side.
        out: pairs for the fusion.
        config: see there.
        thermal: tone mapping of the infrared frames.
        fit: brings visible pictures into a size that the engine takes, or raises InputError.
        aligner: without one, infrared is scaled to the visible's size.
        cameras: their states; a live camera without frames becomes silent.
        context: of the stream.
    """

    def __init__(
        self,
        inbox: MultiQueue[Frame | None],
        out: Queue[Prepared],
        config: PrepareConfig,
        thermal: ThermalPipeline,
        fit: Callable[[NDArray[Any]], NDArray[Any]],
        aligner: Aligner | None,
        cameras: Mapping[Side, CameraLifecycle],
        context: StreamContext,
    ) -> None:
        self._inbox, self._out, self._config = inbox, out, config
        self._pairing = config.pairing if config.live else config.pairing.offline()
        self._pairer = Pairer(self._pairing)
        self._thermal, self._fit, self._aligner = thermal, fit, aligner
        self._cameras, self._context = cameras, context
        self._telemetry = context.telemetry
        began = context.clock.now()
        self._until = None if config.duration is None else began + config.duration
        self._arrivals: dict[Side, float] = dict.fromkeys(SIDES, began)
        self._stamps: dict[Side, float] = dict.fromkeys(SIDES, float("-inf"))
        self._lost: set[Side] = set()
        self._ended: set[Side] = set()
        self._size: tuple[int, int] | None = None
        """The visible picture's, width and height."""
        self._aligned_once = False
        self._warned: set[str] = set()
        self._repeated = began

    def run(self) -> None:
        """Prepare until the sources end, the duration is over, or a queue is closed."""
        try:
            while not self._over():
                got = self._inbox.get(_POLL, self._sides_to_read())
                if got is not None:
                    self._take(cast(Side, got[0]), got[1])
                if self._config.live:
                    self._find_lost()
            for pair in self._pairer.flush():
                self._send(pair)
        except Closed:
            pass
        finally:
            self._out.close()

    def _over(self) -> bool:
        if self._until is not None and self._context.clock.now() >= self._until:
            return True
        if self._config.live:
            return bool(self._ended)
        # The rest of one file may still belong to frames of the other that wait.
        both_ways: tuple[tuple[Side, Side], ...] = (("ir", "vi"), ("vi", "ir"))
        return bool(self._ended) and all(
            side in self._ended or self._stamps[side] > self._stamps[other] + self._pairing.max_skew_s
            for side, other in both_ways
        )

    def _sides_to_read(self) -> tuple[Side, ...] | None:
        """Of files, the side that is behind and that the pairing has room for; of cameras, both."""
        if self._config.live:
            return None
        open_sides = [side for side in SIDES if side not in self._ended]
        wanted = [side for side in open_sides if self._pairer.wants(side)]
        return (min(wanted or open_sides, key=self._stamps.__getitem__),)

    def _take(self, side: Side, frame: Frame | None) -> None:
        if frame is None:
            self._ended.add(side)
            return
        self._arrivals[side], self._stamps[side] = frame.arrival, frame.timestamp
        if side in self._lost:
            self._lost.discard(side)
            self._context.event("info", CAMERA_NAMES[side], "gives frames again")
        if side == "ir":
            with self._telemetry.stage("thermal"):
                frame = self._thermal(frame)
            self._telemetry.toned(frame)
        with self._telemetry.stage("pair"):
            pairs = self._pairer.push(side, frame)
        for (where, reason), total in self._pairer.dropped.items():
            self._telemetry.set_drops(where, reason, total)
        for pair in pairs:
            self._send(pair)

    def _find_lost(self) -> None:
        now, limit = self._context.clock.now(), self._pairing.lost_after_s
        for side in SIDES:
            if side not in self._lost and now - self._arrivals[side] > limit:
                self._lost.add(side)
                self._cameras[side].move(CameraState.SILENT, only_from=CameraState.LIVE)
                other = CAMERA_NAMES["vi" if side == "ir" else "ir"]
                both = len(self._lost) == 2
                then = "the last frame is repeated" if both else f"only the {other} is shown"
                self._context.event("warning", CAMERA_NAMES[side], f"no frame for {limit:g} s; {then}")
                for pair in self._pairer.lost(side):
                    self._send(pair)
        if len(self._lost) == 2 and now - self._repeated >= _REPEAT:
            self._repeated = now
            self._put(Prepared(None, now, now - max(self._arrivals.values())))

    def _send(self, pair: FramePair) -> None:
        ir, vi = pair.ir, pair.vi
        if vi is not None:
            picture = self._fit(as_uint8(vi.image))
            vi = replace(vi, image=luma(picture) if self._config.grey else picture)
            self._size = (picture.shape[1], picture.shape[0])
        if ir is not None:
            with self._telemetry.stage("align"):
                image = self._aligned(ir.image, None if vi is None else luma(vi.image))
            if image is None:
                return
            ir = replace(ir, image=image)
        if ir is not None and vi is not None:
            self._telemetry.paired(pair.skew_s)
        arrival = max(frame.arrival for frame in (ir, vi) if frame is not None)
        self._put(Prepared(replace(pair, ir=ir, vi=vi), arrival))

    def _put(self, prepared: Prepared) -> None:
        if self._out.put(prepared) is not None:
            self._telemetry.drop("pairs", "fusion-too-slow")

    def _aligned(self, image: NDArray[Any], under: NDArray[Any] | None) -> NDArray[np.uint8] | None:
        """Infrared on the visible's pixels, over its luma; None, with a warning, if a new size does not fit."""
        own, size = (image.shape[1], image.shape[0]), self._size
        if size is None:  # no visible frame yet
            return image
        if self._aligner is not None:
            try:
                warped = np.asarray(self._aligner.warp(image, size, under))
            except InputError as e:
                if not self._aligned_once:  # the wrong calibration; later, the camera has changed its size
                    raise
                self._telemetry.drop("ir", "not-aligned")
                self._warn_once(str(e))
                return None
            self._aligned_once = True
            return warped
        if own == size:
            return image
        self._warn_once(
            f"{own[0]}x{own[1]} scaled to the visible {size[0]}x{size[1]}: without a calibration the two are not "
            f"aligned"
        )
        shrinks = own[0] * own[1] > size[0] * size[1]
        mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, size, interpolation=mode), np.uint8)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._context.event("warning", CAMERA_NAMES["ir"], text)
