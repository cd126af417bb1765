"""Raw frames of a thermal camera → steady 8-bit pictures: dead pixels replaced, freezes flagged, tone mapped.

    pipeline = ThermalPipeline(ThermalConfig.from_text("plateau"))
    frame = pipeline(frame)          # uint8, with "frozen" in its flags during a flat-field correction

Uses arrays and stamps only, no clock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.color import luma
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.thermal.config import MODES, ThermalConfig
from ufuser.runtime.thermal.dead import DeadPixels
from ufuser.runtime.thermal.freeze import FreezeDetector
from ufuser.runtime.thermal.tone import ToneMapper

__all__ = ["FROZEN", "MODES", "SCENE_CUT", "ThermalConfig", "ThermalPipeline"]

FROZEN, SCENE_CUT = "frozen", "scene-cut"
"""Flags: the camera repeats an older picture during a flat-field correction; the tone mapping restarted at this frame
because the scene changed abruptly."""


class ThermalPipeline:
    """Converts one camera's frames to 8 bits. It keeps state, so only one thread may use it.

    It restarts when the frames change their size or type.

    Args:
        config: tone mapping and dead pixels.
        repeats: an identical frame means that the camera sent its picture again (see `Source.repeats`). Where it
            does not, as behind a lossy codec that smooths the noise of a still scene away, no freeze is detected.
    """

    def __init__(self, config: ThermalConfig | None = None, repeats: bool = True) -> None:
        self.config = config or ThermalConfig()
        self._repeats = repeats
        self._kind: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        self._stamp: float | None = None
        self._start()

    @property
    def dead_pixels(self) -> list[tuple[int, int]]:
        """Column and row of each pixel that is replaced now."""
        return self._dead.places

    def __call__(self, frame: Frame) -> Frame:
        """Process one frame.

        Args:
            frame: image H×W, or H×W×3 of which the luma is taken; uint8 or uint16 of any number of bits.

        Returns:
            The frame with an H×W uint8 image; warm is bright unless `black_hot`. Flags may gain "frozen" and
            "scene-cut". While frozen, nothing adapts: the picture stays as it is.

        Raises:
            InputError: another dtype or layout; mode "fixed" without limits for raw counts.
        """
        image = self._checked(frame)
        kind = (image.shape, image.dtype)
        if kind != self._kind:
            self._start(image.dtype)
            self._kind, self._stamp = kind, None
        repeat = self._repeats and self._freeze.is_repeat(image)
        flags = set(frame.flags)
        if repeat and self._freeze.frozen:
            flags.add(FROZEN)
        if not repeat:
            if self.config.heal:
                self._dead.watch(image)
            healed = self._dead.heal(image)
            since = None if self._stamp is None else frame.timestamp - self._stamp
            if self._tone.adapt(healed, since):
                flags.add(SCENE_CUT)
            self._stamp = frame.timestamp
            self._toned = self._tone.tone(healed)
        return replace(frame, image=self._toned, flags=frozenset(flags))

    def _start(self, dtype: np.dtype[Any] | None = None) -> None:
        config = self.config
        if config.mode == "auto":
            config = replace(config, mode="fixed" if dtype == np.uint8 else "plateau", fixed=None)
        self._freeze, self._dead, self._tone = FreezeDetector(), DeadPixels(), ToneMapper(config)
        self._toned = np.empty((0, 0), np.uint8)

    def _checked(self, frame: Frame) -> NDArray[Any]:
        image = frame.image
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise InputError(f"{frame.source}: thermal frame of shape {image.shape}, expected H×W or H×W×3")
        if image.dtype not in (np.uint8, np.uint16):
            raise InputError(f"{frame.source}: thermal frame of {image.dtype}, expected uint8 or uint16")
        if self.config.mode == "fixed" and self.config.fixed is None and image.dtype != np.uint8:
            raise InputError(
                f"agc='fixed': {frame.source} gives raw counts, expected limits for them (fixed:LOW:HIGH), or "
                f"linear, plateau, clahe",
                "agc",
            )
        return luma(image)
