"""Antialiased patches of a picture: everything but walls, ground and sky is drawn with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.simulation.geometry import Floats

_SHIFT = 6
"""Fractional bits of coordinates in OpenCV: motion of 1/64 of a supersampled pixel is visible."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A part of a picture with coverage, wholly inside the frame."""

    x: int
    """Left column in the frame."""
    y: int
    """Top row in the frame."""
    value: Floats
    """(h, w, c) float32, already multiplied by `alpha`."""
    alpha: Floats
    """(h, w) float32 coverage in 0..1."""
    depth: float
    """Metres from the camera, for occlusion."""


def composite(picture: Floats, patch: Patch, hidden_by: Sequence[Patch] = ()) -> None:
    """Composite a patch over the picture, except where nearer patches of `hidden_by` cover it.

    `picture` is (H, W, c) float32 and is changed in place.
    """
    value, alpha = patch.value, patch.alpha
    h, w = alpha.shape
    for cover in hidden_by:
        if cover.depth >= patch.depth:
            continue
        ch, cw = cover.alpha.shape
        x0, x1 = max(patch.x, cover.x), min(patch.x + w, cover.x + cw)
        y0, y1 = max(patch.y, cover.y), min(patch.y + h, cover.y + ch)
        if x0 >= x1 or y0 >= y1:
            continue
        keep = np.ones((h, w), np.float32)
        hole = cover.alpha[y0 - cover.y : y1 - cover.y, x0 - cover.x : x1 - cover.x]
        keep[y0 - patch.y : y1 - patch.y, x0 - patch.x : x1 - patch.x] -= hole
        value, alpha = value * keep[..., None], alpha * keep
    region = picture[patch.y : patch.y + h, patch.x : patch.x + w]
    region *= 1.0 - alpha[..., None]
    region += value


class Canvas:
    """A supersampled canvas over a rectangle of the frame.

    Values and coverage are drawn together as (h, w, channels + 1) float32; `patch` averages them down.
    """

    def __init__(self, points: Floats, frame: tuple[int, int], channels: int, margin: float = 1.5) -> None:
        """A canvas around `points` ((n, 2) pixels), clipped to a frame of (width, height)."""
        low = np.floor(points.min(axis=0) - margin)
        high = np.ceil(points.max(axis=0) + margin)
        self.x0 = int(np.clip(low[0], 0, frame[0]))
        self.y0 = int(np.clip(low[1], 0, frame[1]))
        self.w = int(np.clip(high[0], 0, frame[0])) - self.x0
        self.h = int(np.clip(high[1], 0, frame[1])) - self.y0
        self.empty = self.w <= 0 or self.h <= 0
        # Small objects need a finer grid; for large ones it would be slow.
        area = max(self.w, 1) * max(self.h, 1)
        self.ss = 4 if area < 6_000 else 3 if area < 40_000 else 2
        if not self.empty:
            self.board = np.zeros((self.h * self.ss, self.w * self.ss, channels + 1), np.float32)

    def polygon(self, points: Floats, value: Sequence[float]) -> None:
        """Fill a convex polygon, (n, 2) frame pixels, with one value per channel."""
        self.fill(self.fixed(points), value)

    def fill(self, fixed: NDArray[np.int32], value: Sequence[float]) -> None:
        """`polygon` for points that `fixed` has converted, which converts many polygons at once."""
        cv2.fillConvexPoly(self.board, fixed, [*value, 1.0], cv2.LINE_8, _SHIFT)

    def shape(self, points: Floats, value: Sequence[float]) -> None:
        """Fill any simple polygon, (n, 2) frame pixels."""
        cv2.fillPoly(self.board, [self.fixed(points)], [*value, 1.0], cv2.LINE_8, _SHIFT)

    def text(self, text: str, low: Floats, high: Floats, value: Sequence[float]) -> None:
        """Letters that fill most of a rectangle from `low` (left, top) to `high` (right, bottom), pixels."""
        origin = np.asarray((self.x0, self.y0), np.float32)
        (left, top), (right, bottom) = (low - origin) * self.ss, (high - origin) * self.ss
        font = cv2.FONT_HERSHEY_DUPLEX
        (tw, th), _ = cv2.getTextSize(text, font, 1.0, 2)
        scale = float(min((right - left) * 0.84 / tw, (bottom - top) * 0.58 / th))
        at = (int((left + right - tw * scale) / 2), int((top + bottom + th * scale) / 2))
        # OpenCV writes letters on 8-bit pictures only.
        ink = np.zeros(self.board.shape[:2], np.uint8)
        cv2.putText(ink, text, at, font, scale, 255, max(1, round(2 * scale)), cv2.LINE_AA)
        cover = (ink.astype(np.float32) / 255.0)[..., None]
        self.board *= 1.0 - cover
        self.board += cover * np.asarray([*value, 1.0], np.float32)

    def fixed(self, points: Floats) -> NDArray[np.int32]:
        """Frame pixels (..., 2) as OpenCV's fixed-point coordinates on the canvas."""
        origin = np.asarray((self.x0, self.y0), np.float32)
        # OpenCV's pixel centres are at integers, those of the frame at half integers.
        grid = (points - origin) * self.ss - 0.5
        return np.asarray(np.rint(np.clip(grid, -30_000, 30_000) * (1 << _SHIFT)), np.int32)

    def patch(self, depth: float, blur: float = 0.0, strength: float = 1.0) -> Patch:
        """The drawing at frame resolution; `blur` is a Gaussian's sigma in frame pixels."""
        flat = cv2.resize(self.board, (self.w, self.h), interpolation=cv2.INTER_AREA)
        if blur > 0.3:
            flat = cv2.GaussianBlur(flat, (0, 0), blur, borderType=cv2.BORDER_CONSTANT)
        flat = np.asarray(flat, np.float32) * np.float32(strength)
        return Patch(self.x0, self.y0, flat[..., :-1], flat[..., -1], depth)
