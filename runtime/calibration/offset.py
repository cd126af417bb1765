"""The constant time offset between two cameras' stamps, from motion that both see.

Motion changes both pictures at the same time. Each camera's changes are averaged over tiles of the scene and followed
over time. The offset is the time shift at which the two histories correlate best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.alignment import Aligner
from ufuser.runtime.calibration.features import level
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.pairing import Side
from ufuser.runtime.thermal.freeze import FreezeDetector

_SMALL = (160, 120)
_TILES = (64, 48)
"""Width and height of the compared pictures, pixels, and number of tiles."""
_STEP, _NEAR = 0.002, 8
"""Seconds between two lags; number of lags on each side of the best through which a parabola is fitted."""
_BLUR = 0.6
"""Sigma of the smoothing over time, in periods of the faster camera."""
_SLOW = 0.5
"""Seconds; slower changes are removed."""
_FEWEST = 20
"""Frames, and changes, that each side must have."""
_GROUPS = 12
"""Groups of tiles for the jackknife."""
_LOWEST = 0.06
"""Correlation below which both sides do not show the same motion."""


@dataclass(frozen=True, slots=True)
class TimeOffset:
    """The offset and its quality."""

    seconds: float
    """Infrared stamps are ahead of the visible ones by this."""
    uncertainty: float
    """Seconds, one sigma, from the spread between parts of the picture."""
    agreement: float
    """Correlation of the two histories at this offset, 0 to 1."""
    frames: tuple[int, int]
    """Distinct infrared and visible frames."""


class Recording:
    """One camera's frames at a small size, with their stamps.

    Args:
        side: which camera.
        aligner: warps infrared onto the visible picture, so that tiles show the same places. Without one, both
            cameras must show the same.
        vi_size: the visible picture's width and height; only needed with an aligner.
    """

    def __init__(self, side: Side, aligner: Aligner | None = None, vi_size: tuple[int, int] = _SMALL) -> None:
        self._aligner = aligner if side == "ir" else None
        self._size = (_SMALL[0], max(round(_SMALL[0] * vi_size[1] / vi_size[0]), _TILES[1]))
        self._freeze = FreezeDetector()
        self.stamps: list[float] = []
        """Seconds, increasing."""
        self.frames: list[NDArray[np.uint8]] = []
        self.inside: NDArray[np.bool_] | None = None
        """Tiles of which infrared sees more than half; None without an aligner."""

    def push(self, frame: Frame, repeats: bool = True) -> None:
        """Add the next frame. Repeated ones, as in a flat-field correction, are left out.

        Args:
            frame: in order.
            repeats: identical frames are repeated ones; see `Source.repeats`.
        """
        repeat = (repeats and self._freeze.is_repeat(frame.image)) or "frozen" in frame.flags
        if not repeat and (not self.stamps or frame.timestamp > self.stamps[-1]):
            self.stamps.append(frame.timestamp)
            self.frames.append(np.rint(self._shrunk(frame.image) * 255).astype(np.uint8))

    @property
    def period(self) -> float:
        """Median seconds between frames. Raises InputError if there are too few."""
        if len(self.stamps) < _FEWEST:
            raise InputError(
                f"{len(self.stamps)} different frames: expected a recording of about ten seconds"
            )
        return float(np.median(np.diff(self.stamps)))

    def changes(self, span: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Change of every tile from each frame to the one `span` seconds later.

        Returns:
            The times midway between the two (N,), seconds, and the changes (N, tiles), with slow ones removed.
        """
        stamps = np.asarray(self.stamps)
        later = np.searchsorted(stamps, stamps + span - self.period / 2)
        pairs = [
            (i, j) for i, j in enumerate(later) if i < j < len(stamps) and stamps[j] - stamps[i] < 1.5 * span
        ]
        if len(pairs) < _FEWEST:
            raise InputError(f"{len(pairs)} changes without a gap: expected a recording of about ten seconds")
        tiles = np.stack([self._changed(i, j) for i, j in pairs])
        middles = stamps[np.asarray(pairs)].mean(axis=1)
        # The median is the camera's noise. Slow changes carry no timing, so they are removed.
        history = np.sqrt(np.maximum(tiles - np.median(tiles, axis=0), 0.0))
        return middles, history - _smoothed(middles, history, _SLOW)

    def _changed(self, i: int, j: int) -> NDArray[np.float64]:
        away = cv2.absdiff(self.frames[i], self.frames[j])
        tiles = cv2.resize(away.astype(np.float32), _TILES, interpolation=cv2.INTER_AREA)
        return np.asarray(tiles, np.float64).ravel()

    def _shrunk(self, image: NDArray[Any]) -> NDArray[np.float32]:
        picture = level(image)
        if self._aligner is None:
            return np.asarray(cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA), np.float32)
        height, width = picture.shape
        if self.inside is None:
            seen = self._aligner.seen((width, height), self._size).astype(np.float32)
            self.inside = np.asarray(cv2.resize(seen, _TILES, interpolation=cv2.INTER_AREA)).ravel() > 0.5
        soft = cv2.GaussianBlur(picture, (0, 0), max(0.4 * width / self._size[0], 0.3))
        return np.asarray(self._aligner.warp(np.asarray(soft), self._size), np.float32)


def find_offset(ir: Recording, vi: Recording, farthest: float = 1.0) -> TimeOffset:
    """The offset at which the two histories correlate best.

    Args:
        ir, vi: recorded at the same time, about ten seconds with motion.
        farthest: largest offset that is tried, seconds.

    Raises:
        InputError: the recordings are too short, or nothing moves in both.
    """
    # Both sides' changes span the slower camera's period: a longer span is a longer blur.
    span = max(ir.period, vi.period)
    coarse = vi if vi.period >= ir.period else ir
    fine = ir if coarse is vi else vi
    sign = 1.0 if coarse is ir else -1.0
    slow, fast = coarse.changes(span), fine.changes(span)
    common = min(slow[0][-1], fast[0][-1]) - max(slow[0][0], fast[0][0])
    if common < 3 * farthest:
        raise InputError(
            f"the recordings have {max(common, 0.0):.1f} s in common: expected at least {3 * farthest:g} s, better ten"
        )
    if ir.inside is not None:
        slow, fast = (slow[0], slow[1][:, ir.inside]), (fast[0], fast[1][:, ir.inside])
    slow, fast = _normalised(slow, fast, farthest)
    everywhere = np.arange(-farthest, farthest + _STEP / 2, span / 4)
    rough = everywhere[np.argmax(_scores(slow, fast, everywhere))]
    lags = rough + np.arange(-round(span / _STEP), round(span / _STEP) + 1) * _STEP
    products = _products(slow, fast, lags)
    scores = products.sum(axis=1)
    whole, agreement = _peak(lags, scores), float(scores.max())
    if agreement < _LOWEST or abs(whole) > farthest - span / 2:
        raise InputError(
            f"motion in infrared and in visible agrees by {agreement:.2f} only: expected a recording of about ten "
            f"seconds in which both cameras see people or cars move"
        )
    return TimeOffset(sign * whole, _uncertainty(lags, products), agreement, (len(ir.stamps), len(vi.stamps)))


_History = tuple[NDArray[np.float64], NDArray[np.float64]]


def _normalised(slow: _History, fast: _History, farthest: float) -> tuple[_History, _History]:
    """Both with mean 0 and variance 1, the slow one weighted by tile and cut to where every lag has fast frames."""
    (times, still), (stamps, moving) = slow, fast
    use = (times >= stamps[0] + farthest) & (times <= stamps[-1] - farthest)
    times, still = times[use], still[use] - still[use].mean(axis=0)
    size = np.sqrt((still**2).mean(axis=0)) * moving.std(axis=0)
    # The root limits the weight of glare, which fills whole tiles.
    weight = np.sqrt(size) / np.maximum(np.sqrt(size).sum(), 1e-12)
    still = still / np.maximum(np.sqrt((still**2).mean(axis=0)), 1e-12)
    # Interpolation between two stamps averages noise, which would favour lags between them: smooth first.
    period = float(np.median(np.diff(stamps)))
    moving = _smoothed(stamps, moving, _BLUR * period)
    moving = (moving - moving.mean(axis=0)) / np.maximum(moving.std(axis=0), 1e-12)
    return (times, still * weight), (stamps, moving)


def _scores(slow: _History, fast: _History, lags: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of `_products` over the tiles, (lags,), from one product of all frames with all frames."""
    (times, still), (stamps, moving) = slow, fast
    every, rows = still @ moving.T, np.arange(len(times))
    scores = np.empty(len(lags))
    for k, lag in enumerate(lags):
        at, share = _neighbours(stamps, times - lag)
        scores[k] = (every[rows, at - 1] * (1 - share) + every[rows, at] * share).mean()
    return scores


def _products(slow: _History, fast: _History, lags: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of every tile at every lag, (lags, tiles); the tiles of a lag sum to at most 1."""
    (times, still), (stamps, moving) = slow, fast
    out = np.empty((len(lags), still.shape[1]))
    for k, lag in enumerate(lags):
        at, share = _neighbours(stamps, times - lag)
        after = share[:, None]
        out[k] = (still * (moving[at - 1] * (1 - after) + moving[at] * after)).mean(axis=0)
    return out


def _neighbours(
    stamps: NDArray[np.float64], times: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Index and weight of the later of the two stamps around each time."""
    at = np.clip(np.searchsorted(stamps, times), 1, len(stamps) - 1)
    return at, (times - stamps[at - 1]) / (stamps[at] - stamps[at - 1])


def _smoothed(stamps: NDArray[np.float64], history: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """A history (N, tiles) smoothed over time at its own, possibly uneven, stamps."""
    kernel: NDArray[np.float64] = np.exp(-0.5 * ((stamps[:, None] - stamps) / sigma) ** 2)
    return np.asarray(kernel @ history / kernel.sum(axis=1, keepdims=True), np.float64)


def _uncertainty(lags: NDArray[np.float64], products: NDArray[np.float64]) -> float:
    """One sigma of the offset, by a jackknife over groups of tiles."""
    groups = np.arange(products.shape[1]) % _GROUPS
    left_out = [_peak(lags, products[:, groups != g].sum(axis=1)) for g in range(_GROUPS)]
    return math.sqrt((_GROUPS - 1) * float(np.var(left_out)))


def _peak(lags: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """The lag of the highest score, interpolated by a parabola."""
    k = int(np.argmax(scores))
    near = slice(max(k - _NEAR, 0), k + _NEAR + 1)
    curve, slope, _ = np.polyfit(lags[near] - lags[k], scores[near], 2)
    return (
        float(lags[k] + np.clip(-slope / (2 * curve), -_NEAR * _STEP, _NEAR * _STEP))
        if curve < 0
        else lags[k]
    )
