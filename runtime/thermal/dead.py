"""Dead pixels: detected over many frames, and replaced by the median of their neighbours."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_EVERY = 5
"""Frames per look: consecutive frames show almost the same."""
_LOOKS, _STILL = 12, 24
"""Looks before any pixel counts as dead; looks without any change before a pixel counts as stuck."""
_MEMORY = 0.92
"""Weight of the past at each look, so the average covers about a dozen looks."""
_DEAD, _WELL = 0.8, 0.3
"""Weighted share of the looks with an outlier, above which a pixel becomes dead and below which it recovers."""
_SIGMAS, _ALONE = 8.0, 3.0
"""An outlier differs from its neighbours by this many sigmas of the usual difference, and by this many times their own
spread: optics blur a point over several pixels."""
_SHARE = 0.01
"""Share of outliers above which they belong to the scene."""
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


class DeadPixels:
    """Dead pixels of one camera, whose frames have one size and type."""

    def __init__(self) -> None:
        self._score: NDArray[np.float32] | None = None
        self._frames = self._looks = 0
        self._before: NDArray[Any] | None = None
        self._changed: NDArray[np.bool_] | None = None
        """In the current window of `_STILL` looks."""
        self._stuck: NDArray[np.intp] = np.empty(0, np.intp)
        self._at: NDArray[np.intp] = np.empty(0, np.intp)
        """Flat indices of the dead pixels that can be replaced."""
        self._known = self._at
        self._width = 0
        self._from: NDArray[np.intp] = np.empty((8, 0), np.intp)
        """Flat indices of eight living neighbours each; repeated if there are fewer."""

    @property
    def places(self) -> list[tuple[int, int]]:
        """Column and row of each known dead pixel."""
        return [(int(at) % self._width, int(at) // self._width) for at in self._at]

    def watch(self, image: NDArray[Any]) -> None:
        """Observe a raw frame, H×W uint8 or uint16, that is not a repeated one."""
        self._frames += 1
        if self._frames % _EVERY:
            return
        if self._score is None:
            self._score, self._width = np.zeros(image.shape, np.float32), image.shape[1]
        odd = self._outliers(image)
        if odd is None:
            return
        self._looks += 1
        self._score *= np.float32(_MEMORY)
        self._score.reshape(-1)[odd] += np.float32(1 - _MEMORY)
        self._note_changes(image)
        if self._looks >= _LOOKS:
            self._settle(self._score.reshape(-1))

    def heal(self, image: NDArray[Any]) -> NDArray[Any]:
        """The frame with its dead pixels replaced; the frame itself if there are none."""
        if not self._at.size:
            return image
        healed: NDArray[Any] = image.copy()
        healed.reshape(-1)[self._at] = np.median(image.reshape(-1)[self._from], axis=0).astype(image.dtype)
        return healed

    def _outliers(self, image: NDArray[Any]) -> NDArray[np.intp] | None:
        """Flat indices of pixels that differ from their neighbours more than optics allow; None if too many.

        The difference is to the second brightest or second darkest neighbour. This ignores corners and lines but finds
        two adjacent dead pixels.
        """
        away = cv2.absdiff(image, cv2.medianBlur(image, 3))
        noise = _SIGMAS * max(1.25 * float(away[::4, ::4].mean()), 0.5)
        candidates = np.flatnonzero(away > noise)
        if candidates.size > 4 * _SHARE * image.size:
            return None
        (rows, columns), (height, width) = np.unravel_index(candidates, image.shape), image.shape
        # Mirrored at the border, so that no pixel is its own neighbour.
        places = np.stack(
            [_mirror(rows + y, height) * width + _mirror(columns + x, width) for y, x in _AROUND]
        )
        ranked = np.sort(image.reshape(-1)[places].astype(np.float32), axis=0)
        level = image.reshape(-1)[candidates].astype(np.float32)
        above, below = level - ranked[-2], ranked[1] - level
        beyond = np.maximum(above, below)
        odd = beyond > np.maximum(noise, _ALONE * (ranked[-2] - ranked[1]))
        # The end of a line has one similar neighbour, like one of two dead pixels. Only the latter is an outlier too.
        like = np.where(above > below, level - ranked[-1], ranked[0] - level) < beyond / 2
        strange = np.zeros(image.size, np.bool_)
        strange[candidates[odd]] = True
        odd = candidates[odd & (~like | strange[places].any(axis=0))]
        return odd if odd.size <= _SHARE * image.size else None

    def _note_changes(self, image: NDArray[Any]) -> None:
        """Find stuck pixels: noise changes all others."""
        if self._before is None or self._changed is None:
            self._changed = np.zeros(image.shape, np.bool_)
        else:
            self._changed |= image != self._before
        self._before = image
        if self._looks % _STILL == 0:
            stuck = np.flatnonzero(~self._changed)
            # In a saturated or noiseless picture many pixels never change.
            self._stuck = stuck if stuck.size <= _SHARE / 5 * image.size else np.empty(0, np.intp)
            self._changed[:] = False

    def _settle(self, score: NDArray[np.float32]) -> None:
        """Update the set of dead pixels."""
        # Correct the bias of running means that began at zero.
        share = score / np.float32(1.0 - _MEMORY**self._looks)
        dead = share > _DEAD
        dead[self._at] |= share[self._at] > _WELL
        dead[self._stuck] = True
        at = np.flatnonzero(dead)
        if not np.array_equal(at, self._known):
            self._known = at
            self._at, self._from = _neighbours(dead.reshape(-1, self._width))


def _mirror(places: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Rows or columns mirrored at the border."""
    return np.where(places < 0, 1, np.where(places >= size, size - 2, places))


def _neighbours(dead: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Dead pixels with living neighbours, and eight of these each, repeated if there are fewer."""
    height, width = dead.shape
    at, sources = [], []
    for row, column in np.argwhere(dead):
        for reach in (1, 2):
            rows, columns = np.mgrid[
                max(row - reach, 0) : min(row + reach + 1, height),
                max(column - reach, 0) : min(column + reach + 1, width),
            ]
            living = (rows * width + columns)[~dead[rows, columns]]
            if living.size:
                at.append(row * width + column)
                sources.append(np.resize(living, 8) if living.size < 8 else living[:8])
                break
    if not at:
        return np.empty(0, np.intp), np.empty((8, 0), np.intp)
    return np.asarray(at, np.intp), np.stack(sources, axis=1).astype(np.intp)
