"""Visible pictures in a size that the engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.engines.profiles import Profile, nearest_size
from ufuser.runtime.errors import InputError
from ufuser.runtime.streaming.camera_worker import CAMERA_NAMES
from ufuser.runtime.streaming.context import StreamContext


class Fitting:
    """Scales pictures to the engine's profiles if that is wanted, and else refuses those that do not fit.

    Args:
        profiles: of the engine; none takes every size.
        scale: scale pictures that do not fit, with their aspect ratio kept.
        context: of the stream; an event tells of a size that is scaled.
    """

    def __init__(self, profiles: Sequence[Profile], scale: bool, context: StreamContext) -> None:
        self._profiles, self._scale, self._context = profiles, scale, context
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}
        """Those that were seen, and what they become; width and height."""

    def __call__(self, picture: NDArray[Any]) -> NDArray[Any]:
        """The picture, scaled if need be. Raises InputError if it does not fit."""
        own = picture.shape[1], picture.shape[0]
        if own not in self._sizes:
            self._sizes[own] = self._fitting(*own)
        size = self._sizes[own]
        if size == own:
            return picture
        shrinks = size[0] < own[0]
        return np.asarray(
            cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        )

    def _fitting(self, width: int, height: int) -> tuple[int, int]:
        fitting = nearest_size(self._profiles, width, height)
        if fitting == (width, height):
            return fitting
        taken = " or ".join(
            f"{p.low.width}x{p.low.height} to {p.high.width}x{p.high.height}" for p in self._profiles
        )
        nearest = f"{fitting[0]}x{fitting[1]}"
        if not self._scale:
            raise InputError(
                f"the visible camera gives {width}x{height}, the engine takes {taken}: open the camera with "
                f"size={nearest}, let the stream scale (`scale`), or rebuild the engine for {width}x{height}"
            )
        self._context.event(
            "info",
            CAMERA_NAMES["vi"],
            f"{width}x{height} scaled to {nearest}: the engine takes {taken}",
        )
        return fitting
