"""From two cameras' frames to what can be fused: thermal tone, pairs, alignment, and who is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.clock import Clock
from ufuser.runtime.color import luma
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import as_uint8
from ufuser.runtime.pairing import SIDES, FramePair, Pairer, PairingConfig, Side
from ufuser.runtime.streaming.flow import Closed, Lanes, Queue
from ufuser.runtime.streaming.intake import CALLED
from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.thermal import ThermalPipeline

_GLANCE = 0.05
"""Real seconds between two looks at whether a camera is lost."""
_REPEAT = 0.5
"""Seconds between two repetitions of the last frame while both are lost."""


class Aligner(Protocol):
    """Brings infrared pictures onto the visible camera's."""

    def warp(
        self, image: NDArray[Any], size: tuple[int, int], under: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """The picture as the visible camera of this width and height sees it, over `under` where infrared sees
        nothing. Raises InputError if it does not fit the calibration."""


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
    """Runs in a thread of its own.

    Args:
        inbox: frames by side; None is the end of a side.
        out: what can be fused.
        live: frames come from cameras. Of files, which lane is read is the pairing's choice, and no time counts.
        pairing, thermal, aligner: how it is done. Without an aligner infrared is scaled to the visible's size.
        grey: leave out the visible picture's colour.
        duration: seconds after which it ends; None for never.
        clock, telemetry: of the stream.
        say: takes a line about what happened.
    """

    def __init__(
        self,
        inbox: Lanes[Frame | None],
        out: Queue[Prepared],
        live: bool,
        pairing: PairingConfig,
        thermal: ThermalPipeline,
        aligner: Aligner | None,
        grey: bool,
        duration: float | None,
        clock: Clock,
        telemetry: Telemetry,
        say: Callable[[str], None],
    ) -> None:
        self._inbox, self._out, self._live = inbox, out, live
        self._pairing = pairing if live else pairing.offline()
        self._pairer = Pairer(self._pairing)
        self._thermal, self._aligner, self._grey = thermal, aligner, grey
        self._clock, self._telemetry, self._say = clock, telemetry, say
        self._began = clock.now()
        self._until = None if duration is None else self._began + duration
        self._heard: dict[Side, float] = dict.fromkeys(SIDES, self._began)
        self._stamps: dict[Side, float] = dict.fromkeys(SIDES, float("-inf"))
        self._lost: set[Side] = set()
        self._ended: set[Side] = set()
        self._size: tuple[int, int] | None = None
        """The visible picture's, width and height."""
        self._aligned_once = False
        self._noted: set[str] = set()
        self._repeated = self._began

    def run(self) -> None:
        """Prepare until the end of the sources, of the duration, or of the queues."""
        try:
            while not self._over():
                got = self._inbox.get(_GLANCE, self._lanes())
                if got is not None:
                    self._take(cast(Side, got[0]), got[1])
                if self._live:
                    self._look_for_lost()
            for pair in self._pairer.flush():
                self._send(pair)
        except Closed:
            pass
        finally:
            self._out.close()

    def _over(self) -> bool:
        if self._until is not None and self._clock.now() >= self._until:
            return True
        if self._live:
            return bool(self._ended)
        # What one file still has may belong to frames of the other that wait.
        turns: tuple[tuple[Side, Side], ...] = (("ir", "vi"), ("vi", "ir"))
        return bool(self._ended) and all(
            side in self._ended or self._stamps[side] > self._stamps[other] + self._pairing.max_skew_s
            for side, other in turns
        )

    def _lanes(self) -> tuple[Side, ...] | None:
        """Of files, the side that is behind and that the pairing has room for."""
        if self._live:
            return None
        open_sides = [side for side in SIDES if side not in self._ended]
        wanted = [side for side in open_sides if self._pairer.wants(side)]
        return (min(wanted or open_sides, key=self._stamps.__getitem__),)

    def _take(self, side: Side, frame: Frame | None) -> None:
        if frame is None:
            self._ended.add(side)
            return
        self._heard[side], self._stamps[side] = frame.arrival, frame.timestamp
        if side in self._lost:
            self._lost.discard(side)
            self._say(f"{CALLED[side]} is back")
        if side == "ir":
            with self._telemetry.stage("thermal"):
                frame = self._thermal(frame)
            self._telemetry.toned(frame)
        with self._telemetry.stage("pair"):
            pairs = self._pairer.push(side, frame)
        for (where, reason), total in self._pairer.stats.dropped.items():
            self._telemetry.set_drops(where, reason, total)
        for pair in pairs:
            self._send(pair)

    def _look_for_lost(self) -> None:
        now = self._clock.now()
        for side in SIDES:
            if side not in self._lost and now - self._heard[side] > self._pairing.lost_after_s:
                self._lost.add(side)
                self._telemetry.state(side, "stalled")
                other = CALLED["vi" if side == "ir" else "ir"]
                both = len(self._lost) == 2
                then = "the last frame is repeated" if both else f"{other} goes out alone"
                self._say(f"{CALLED[side]} is lost: no frame for {self._pairing.lost_after_s:g} s; {then}")
                for pair in self._pairer.lost(side):
                    self._send(pair)
        if len(self._lost) == 2 and now - self._repeated >= _REPEAT:
            self._repeated = now
            self._put(Prepared(None, now, now - max(self._heard.values())))

    def _send(self, pair: FramePair) -> None:
        ir, vi = pair.ir, pair.vi
        if vi is not None:
            picture = as_uint8(vi.image)
            vi = replace(vi, image=luma(picture) if self._grey else picture)
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
        """Infrared on the visible's pixels, over its luma; None, and noted, where a new size forbids it."""
        here, size = (image.shape[1], image.shape[0]), self._size
        if size is None:  # the visible camera has not been seen yet
            return image
        if self._aligner is not None:
            try:
                warped = np.asarray(self._aligner.warp(image, size, under))
            except InputError as e:
                if not self._aligned_once:  # the user's mistake; later it is the camera's doing
                    raise
                self._telemetry.drop("ir", "not-aligned")
                self._note(str(e))
                return None
            self._aligned_once = True
            return warped
        if here == size:
            return image
        self._note(
            f"infrared is {here[0]}x{here[1]}, visible {size[0]}x{size[1]}: scaled, without --calibration not aligned"
        )
        shrinks = here[0] * here[1] > size[0] * size[1]
        mode = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, size, interpolation=mode), np.uint8)

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._say(text)
