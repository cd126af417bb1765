"""Tone mapping with memory: limits and tables are smoothed over time, pixels never."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.thermal.config import ThermalConfig

Raw = NDArray[np.uint8] | NDArray[np.uint16]
Toned = NDArray[np.uint8]

_STRIDE = 2
"""Limits are taken from every second row and column: a quarter of the time, the same percentiles."""
_BINS = 64
_CUT = 0.5
"""Scene cut: the share of the pixels that would have to change bins (total variation of the histograms)."""
_LEVELS = 256
"""Bins of the plateau's histogram between black and white. Finer ones hold too few pixels: clipping them would
turn noise into flicker."""
_RICH = 4.0
"""Times `min_span` between black and white, from which on the plateau's table is used alone."""
_SLOWER = 4.0
"""The plateau's table follows so much slower than limits do: where much of the picture shares one count, a
table's rounding lifts all of it by one level at once."""
_LONGEST = 0.15
"""Seconds between frames that count at most: after a freeze or a gap the levels glide on instead of leaping."""
_TILES = (8, 8)


class ToneMapper:
    """Brings one camera's frames, all of one size and type, to 8 bits.

    Args:
        config: its `mode` may not be "auto" here.
    """

    def __init__(self, config: ThermalConfig) -> None:
        self._config = config
        self._limits: tuple[float, float] | None = None
        self._shares: NDArray[np.float64] | None = None
        """Histogram of the frame before, over the limits of its time."""
        self._table: NDArray[np.float32] | None = None
        """The plateau's level, 0..255, of every count."""
        self._clahe = cv2.createCLAHE(config.clahe_clip, _TILES) if config.mode == "clahe" else None

    def adapt(self, image: Raw, seconds: float | None) -> bool:
        """Let limits and table follow a frame.

        Args:
            image: H×W uint8 or uint16.
            seconds: since the frame before; None forgets what was before.

        Returns:
            Whether the scene was cut, so that limits and table were taken from this frame alone.
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
        """The frame at 8 bits, by the limits and tables of now: H×W uint8, a new array or the image itself."""
        toned = self._levels(image)
        return np.asarray(cv2.bitwise_not(toned), np.uint8) if self._config.black_hot else toned

    def _levels(self, image: Raw) -> Toned:
        limits = self._config.fixed if self._config.mode == "fixed" else self._limits
        if limits is None:  # fixed, without limits: as the camera gave it
            return np.asarray(image, np.uint8)
        if self._table is not None:
            return np.take(np.rint(self._table).astype(np.uint8), image)
        low, scale = limits[0], 255.0 / (limits[1] - limits[0])
        if low > np.iinfo(image.dtype).max:  # fixed limits for another camera: all of it lies below black
            return np.zeros(image.shape, np.uint8)
        # The absolute value taken by convertScaleAbs must not mirror what lies below black.
        floored = np.maximum(image, image.dtype.type(max(math.ceil(low), 0)))
        toned = cv2.convertScaleAbs(floored, alpha=scale, beta=-low * scale)
        return np.asarray(toned if self._clahe is None else self._clahe.apply(toned), np.uint8)

    def _wanted(self, below: NDArray[np.int64]) -> tuple[float, float]:
        """This frame's own black and white, at least `min_span` apart."""
        total = below[-1]
        low, high = (
            float(np.searchsorted(below, percent / 100 * total, side="left"))
            for percent in (self._config.low_percent, self._config.high_percent)
        )
        missing = self._config.min_span - (high - low)
        return (low - missing / 2, high + missing / 2) if missing > 0 else (low, high)

    def _share_of(self, seconds: float, slower: float = 1.0) -> float:
        """How much of the way the limits go in this time: a first-order low pass, whatever the frame rate."""
        if self._config.smoothing_s == 0:
            return 1.0
        return 1.0 - math.exp(-min(max(seconds, 0.0), _LONGEST) / (slower * self._config.smoothing_s))

    def _is_cut(self, below: NDArray[np.int64]) -> bool:
        if self._shares is None:
            return False
        return 0.5 * float(np.abs(self._binned(below) - self._shares).sum()) > _CUT

    def _binned(self, below: NDArray[np.int64]) -> NDArray[np.float64]:
        """Shares of the pixels in equal bins over the limits' whole neighbourhood, ends included."""
        low, high = self._limits or (0.0, 1.0)
        edges = np.linspace(low - (high - low) / 2, high + (high - low) / 2, _BINS - 1)
        at = np.clip(np.rint(edges), 0, len(below) - 1).astype(np.int64)
        cumulative = np.concatenate(([0], below[at], [below[-1]])) / below[-1]
        return np.asarray(np.diff(cumulative))

    def _equalised(self, below: NDArray[np.int64]) -> NDArray[np.float32]:
        """The plateau equalisation of one frame between the smoothed limits: a level for every count."""
        low, high = self._limits or (0.0, 1.0)
        # Read between the counts: limits move by fractions, and whole counts would hop from bin to bin.
        edges = np.linspace(low, high, _LEVELS + 1)
        first, last = max(math.ceil(low), 0), min(math.floor(high), len(below) - 1)
        near = np.arange(max(first - 2, 0), min(last + 3, len(below)))
        histogram = np.diff(np.interp(edges, near + 0.5, below[near]))
        clipped = np.minimum(histogram, self._config.plateau * histogram.sum() / _LEVELS)
        cumulative = np.concatenate(([0.0], np.cumsum(clipped)))
        table = np.zeros(len(below), np.float32)
        counts = np.arange(first, last + 1)
        levels = np.interp(counts, edges, cumulative) / max(cumulative[-1], 1e-9)
        # Where next to nothing is seen, the many counts in the middle are its noise.
        rich = min(max(((high - low) / self._config.min_span - 1) / (_RICH - 1), 0.0), 1.0)
        table[first : last + 1] = 255.0 * (rich * levels + (1 - rich) * (counts - low) / (high - low))
        table[last + 1 :] = 255.0
        return table
