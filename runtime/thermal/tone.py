"""Tone mapping. Limits and tables are smoothed over time, pixels are not."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.thermal.config import ThermalConfig

Raw = NDArray[np.uint8] | NDArray[np.uint16]
Toned = NDArray[np.uint8]

_STRIDE = 2
"""Rows and columns between samples: a quarter of the pixels gives the same percentiles."""
_BINS = 64
_CUT = 0.5
"""Scene cut: share of the pixels that changed bins (total variation of the histograms)."""
_LEVELS = 256
"""Bins of the plateau's histogram between black and white. Finer ones hold too few pixels: clipping them turns noise
into flicker."""
_RICH = 4.0
"""Multiple of `min_span` between black and white from which the plateau's table is used without blending."""
_SLOWER = 4.0
"""Factor on the time constant of the plateau's table: where many pixels share one count, the table's rounding shifts
them all by one level at once."""
_LONGEST = 0.15
"""Largest time step, seconds, so that levels do not jump after a freeze or a gap."""
_TILES = (8, 8)


class ToneMapper:
    """Maps one camera's frames, all of one size and type, to 8 bits.

    Args:
        config: its `mode` must not be "auto".
    """

    def __init__(self, config: ThermalConfig) -> None:
        self._config = config
        self._limits: tuple[float, float] | None = None
        self._shares: NDArray[np.float64] | None = None
        """Histogram of the previous frame, see `_binned`."""
        self._table: NDArray[np.float32] | None = None
        """The plateau's level, 0 to 255, of every count."""
        self._clahe = cv2.createCLAHE(config.clahe_clip, _TILES) if config.mode == "clahe" else None

    def adapt(self, image: Raw, seconds: float | None) -> bool:
        """Update limits and table from a frame.

        Args:
            image: H×W uint8 or uint16.
            seconds: since the previous frame; None to restart.

        Returns:
            Whether there was a scene cut, so that limits and table come from this frame alone.
        """
        if self._config.mode == "fixed":
            return False
        counts = np.bincount(image[::_STRIDE, ::_STRIDE].ravel(), minlength=np.iinfo(image.dtype).max + 1)
        below = np.cumsum(counts)
        limits = self._wanted(below)
        cut = seconds is not None and self._is_cut(below)
        share = 1.0 if seconds is None or cut or self._limits is None else self._share_of(seconds)
        old = self._limits or limits
        self._limits = (old[0] + share * (limits[0] - old[0]), old[1] + share * (limits[1] - old[1]))
        if self._config.mode == "plateau":
            table = self._equalised(below)
            slow = share if share == 1.0 else self._share_of(seconds or 0.0, _SLOWER)
            self._table = (
                table if self._table is None else self._table + np.float32(slow) * (table - self._table)
            )
        self._shares = self._binned(below)
        return cut

    def tone(self, image: Raw) -> Toned:
        """The frame at 8 bits by the current limits and table: H×W uint8, a new array or the image itself."""
        toned = self._levels(image)
        return np.asarray(cv2.bitwise_not(toned), np.uint8) if self._config.black_hot else toned

    def _levels(self, image: Raw) -> Toned:
        limits = self._config.fixed if self._config.mode == "fixed" else self._limits
        if limits is None:  # fixed without limits: keep the camera's levels
            return np.asarray(image, np.uint8)
        if self._table is not None:
            return np.take(np.rint(self._table).astype(np.uint8), image)
        low, scale = limits[0], 255.0 / (limits[1] - limits[0])
        if low > np.iinfo(image.dtype).max:  # fixed limits of another camera: all pixels are black
            return np.zeros(image.shape, np.uint8)
        # Clip to black first, because convertScaleAbs takes absolute values.
        floored = np.maximum(image, image.dtype.type(max(math.ceil(low), 0)))
        toned = cv2.convertScaleAbs(floored, alpha=scale, beta=-low * scale)
        return np.asarray(toned if self._clahe is None else self._clahe.apply(toned), np.uint8)

    def _wanted(self, below: NDArray[np.int64]) -> tuple[float, float]:
        """Black and white of this frame alone, at least `min_span` apart."""
        total = below[-1]
        low, high = (
            float(np.searchsorted(below, percent / 100 * total, side="left"))
            for percent in (self._config.low_percent, self._config.high_percent)
        )
        missing = self._config.min_span - (high - low)
        return (low - missing / 2, high + missing / 2) if missing > 0 else (low, high)

    def _share_of(self, seconds: float, slower: float = 1.0) -> float:
        """Weight of the new limits: a first-order low pass, independent of the frame rate."""
        if self._config.smoothing_s == 0:
            return 1.0
        return 1.0 - math.exp(-min(max(seconds, 0.0), _LONGEST) / (slower * self._config.smoothing_s))

    def _is_cut(self, below: NDArray[np.int64]) -> bool:
        if self._shares is None:
            return False
        return 0.5 * float(np.abs(self._binned(below) - self._shares).sum()) > _CUT

    def _binned(self, below: NDArray[np.int64]) -> NDArray[np.float64]:
        """Shares of the pixels in equal bins over twice the range of the limits, and beyond both ends."""
        low, high = self._limits or (0.0, 1.0)
        edges = np.linspace(low - (high - low) / 2, high + (high - low) / 2, _BINS - 1)
        at = np.clip(np.rint(edges), 0, len(below) - 1).astype(np.int64)
        cumulative = np.concatenate(([0], below[at], [below[-1]])) / below[-1]
        return np.asarray(np.diff(cumulative))

    def _equalised(self, below: NDArray[np.int64]) -> NDArray[np.float32]:
        """The plateau equalisation of one frame between the smoothed limits: the level of every count."""
        low, high = self._limits or (0.0, 1.0)
        # Interpolate: limits move by fractions of a count, and whole counts would jump between bins.
        edges = np.linspace(low, high, _LEVELS + 1)
        first, last = max(math.ceil(low), 0), min(math.floor(high), len(below) - 1)
        near = np.arange(max(first - 2, 0), min(last + 3, len(below)))
        histogram = np.diff(np.interp(edges, near + 0.5, below[near]))
        clipped = np.minimum(histogram, self._config.plateau * histogram.sum() / _LEVELS)
        cumulative = np.concatenate(([0.0], np.cumsum(clipped)))
        table = np.zeros(len(below), np.float32)
        counts = np.arange(first, last + 1)
        levels = np.interp(counts, edges, cumulative) / max(cumulative[-1], 1e-9)
        # In a nearly blank scene the most frequent counts are noise, which must not be equalised.
        rich = min(max(((high - low) / self._config.min_span - 1) / (_RICH - 1), 0.0), 1.0)
        table[first : last + 1] = 255.0 * (rich * levels + (1 - rich) * (counts - low) / (high - low))
        table[last + 1 :] = 255.0
        return table
