"""Dead pixels: found by watching, healed from their neighbours."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_EVERY = 5
"""Frames between two looks: neighbouring frames tell little more than one."""
_LOOKS, _STILL = 12, 24
"""Looks before anything is called dead; looks without the least change, before a pixel is called stuck."""
_MEMORY = 0.92
"""Weight of the past at each look: about a dozen looks."""
_DEAD, _WELL = 0.8, 0.3
"""Share of the looks in which a pixel stuck out, weighted, above which it is dead and below which it is not."""
_SIGMAS, _ALONE = 8.0, 3.0
"""A pixel sticks out if it lies beyond its neighbours by so many sigmas of what pixels usually differ, and by so
many times more than these differ among themselves: optics spread a point over several pixels."""
_SHARE = 0.01
"""Of the pixels; where more stick out, it is the scene."""
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


class DeadPixels:
    """Watches one camera's raw frames, all of one size and type."""

    def __init__(self) -> None:
        self._score: NDArray[np.float32] | None = None
        self._frames = self._looks = 0
        self._before: NDArray[Any] | None = None
        self._changed: NDArray[np.bool_] | None = None
        """Since the latest window of `_STILL` looks began."""
        self._stuck: NDArray[np.intp] = np.empty(0, np.intp)
        self._at: NDArray[np.intp] = np.empty(0, np.intp)
        """Flat indices of the dead."""
        self._known = self._at
        self._width = 0
        self._from: NDArray[np.intp] = np.empty((8, 0), np.intp)
        """Flat indices of eight neighbours each to heal from; living ones, some more than once."""

    @property
    def places(self) -> list[tuple[int, int]]:
        """Column and row of each dead pixel known now."""
        return [(int(at) % self._width, int(at) // self._width) for at in self._at]

    def watch(self, image: NDArray[Any]) -> None:
        """Look at a raw frame, H×W uint8 or uint16, that is not the one before once again."""
        self._frames += 1
        if self._frames % _EVERY:
            return
        if self._score is None:
            self._score, self._width = np.zeros(image.shape, np.float32), image.shape[1]
        odd = self._sticking_out(image)
        if odd is None:
            return
        self._looks += 1
        self._score *= np.float32(_MEMORY)
        self._score.reshape(-1)[odd] += np.float32(1 - _MEMORY)
        self._note_changes(image)
        if self._looks >= _LOOKS:
            self._settle(self._score.reshape(-1))

    def heal(self, image: NDArray[Any]) -> NDArray[Any]:
        """The frame with its dead pixels replaced by the median of their living neighbours; itself if none."""
        if not self._at.size:
            return image
        healed: NDArray[Any] = image.copy()
        healed.reshape(-1)[self._at] = np.median(image.reshape(-1)[self._from], axis=0).astype(image.dtype)
        return healed

    def _sticking_out(self, image: NDArray[Any]) -> NDArray[np.intp] | None:
        """Flat indices of pixels that differ from their surroundings as no lens lets them; None if too many.

        Measured from the second brightest neighbour, or the second darkest: so corners and lines do not
        count, and two dead pixels side by side do.
        """
        away = cv2.absdiff(image, cv2.medianBlur(image, 3))
        noise = _SIGMAS * max(1.25 * float(away[::4, ::4].mean()), 0.5)
        candidates = np.flatnonzero(away > noise)
        if candidates.size > 4 * _SHARE * image.size:
            return None
        (rows, columns), (height, width) = np.unravel_index(candidates, image.shape), image.shape
        # Beyond the border the picture is mirrored: a pixel is no neighbour of itself.
        places = np.stack(
            [_mirror(rows + y, height) * width + _mirror(columns + x, width) for y, x in _AROUND]
        )
        ranked = np.sort(image.reshape(-1)[places].astype(np.float32), axis=0)
        level = image.reshape(-1)[candidates].astype(np.float32)
        above, below = level - ranked[-2], ranked[1] - level
        beyond = np.maximum(above, below)
        odd = beyond > np.maximum(noise, _ALONE * (ranked[-2] - ranked[1]))
        # The end of a line has one neighbour like itself, as one of two dead pixels has; but that one goes on.
        like = np.where(above > below, level - ranked[-1], ranked[0] - level) < beyond / 2
        strange = np.zeros(image.size, np.bool_)
        strange[candidates[odd]] = True
        odd = candidates[odd & (~like | strange[places].any(axis=0))]
        return odd if odd.size <= _SHARE * image.size else None

    def _note_changes(self, image: NDArray[Any]) -> None:
        """Where noise moves everything, a pixel that never moves is stuck, even at a likely value."""
        if self._before is None or self._changed is None:
            self._changed = np.zeros(image.shape, np.bool_)
        else:
            self._changed |= image != self._before
        self._before = image
        if self._looks % _STILL == 0:
            stuck = np.flatnonzero(~self._changed)
            # A saturated or noiseless picture stands still as well.
            self._stuck = stuck if stuck.size <= _SHARE / 5 * image.size else np.empty(0, np.intp)
            self._changed[:] = False

    def _settle(self, score: NDArray[np.float32]) -> None:
        """Decide anew who is dead."""
        # The running means began at zero: as if the past had been like what was seen since.
        share = score / np.float32(1.0 - _MEMORY**self._looks)
        dead = share > _DEAD
        dead[self._at] |= share[self._at] > _WELL
        dead[self._stuck] = True
        at = np.flatnonzero(dead)
        if not np.array_equal(at, self._known):
            self._known = at
            self._at, self._from = _neighbours(dead.reshape(-1, self._width))


def _mirror(places: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Rows or columns beyond the border, one step inside."""
    return np.where(places < 0, 1, np.where(places >= size, size - 2, places))


def _neighbours(dead: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Dead pixels, and eight living neighbours each, repeated where there are fewer; those with none stay."""
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
