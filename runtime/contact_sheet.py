"""A contact sheet: rows of pictures under column titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.images import as_uint8

_PAPER, _TITLE, _CAPTION = (26, 24, 23), (235, 235, 235), (165, 165, 165)
"""BGR."""
_OVERSAMPLING = 4
"""Text is drawn this much larger and averaged down, because OpenCV's small letters are ragged."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Measures in pixels."""

    tile_width: int = 480
    gap: int = 10
    margin: int = 24
    head: int = 44
    """Height of the titles above the columns."""
    caption: int = 26
    """Height of the line under a row."""
    spacing: int = 14
    """Between a caption and the next row."""


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures side by side with a caption."""

    images: tuple[NDArray[Any], ...]
    """Grey or BGR; uint8, uint16 or float32 in [0, 1]."""
    caption: str


def contact_sheet(
    titles: Sequence[str], rows: Sequence[Row], layout: Layout | None = None
) -> NDArray[np.uint8]:
    """Lay out the rows below one another.

    Args:
        titles: one per column.
        rows: at least one. All pictures have the aspect ratio of the first and are scaled to the tile's width.
        layout: measures; None for the defaults.

    Returns:
        H×W×3 uint8 BGR.
    """
    at = layout or Layout()
    height, width = rows[0].images[0].shape[:2]
    tile = (at.tile_width, max(1, round(at.tile_width * height / width)))
    columns, pitch = len(titles), tile[1] + at.caption + at.spacing
    sheet = np.empty(
        (
            at.margin + at.head + len(rows) * pitch - at.spacing + at.margin,
            2 * at.margin + columns * tile[0] + (columns - 1) * at.gap,
            3,
        ),
        np.uint8,
    )
    sheet[:] = _PAPER
    lefts = [at.margin + column * (tile[0] + at.gap) for column in range(columns)]
    for left, title in zip(lefts, titles, strict=True):
        _write(sheet, title, left, at.margin, at.head - 12, 0.62, _TITLE)
    for number, row in enumerate(rows):
        top = at.margin + at.head + number * pitch
        for left, image in zip(lefts, row.images, strict=True):
            sheet[top : top + tile[1], left : left + tile[0]] = _tile(image, tile)
        _write(sheet, row.caption, at.margin, top + tile[1], at.caption, 0.45, _CAPTION)
    return sheet


def _tile(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    level: NDArray[Any] = as_uint8(image)
    if level.ndim == 2:
        level = cv2.cvtColor(level, cv2.COLOR_GRAY2BGR)
    shrinks = level.shape[1] > size[0]
    return np.asarray(
        cv2.resize(level, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC), np.uint8
    )


def _write(
    sheet: NDArray[np.uint8],
    text: str,
    left: int,
    top: int,
    height: int,
    scale: float,
    ink: tuple[int, int, int],
) -> None:
    """Write one line from `left`, centred between `top` and `top + height`, cut off at the sheet's edge."""
    font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(1.15 * _OVERSAMPLING))
    (_, capital), _ = cv2.getTextSize("H", font, scale * _OVERSAMPLING, thick)
    width = sheet.shape[1] - left
    cover = np.zeros((height * _OVERSAMPLING, width * _OVERSAMPLING), np.uint8)
    baseline = (height * _OVERSAMPLING + capital) // 2
    cv2.putText(cover, text, (0, baseline), font, scale * _OVERSAMPLING, (255,), thick, cv2.LINE_AA)
    alpha = cv2.resize(cover, (width, height), interpolation=cv2.INTER_AREA)[..., None] / np.float32(255)
    place = sheet[top : top + height, left:]
    place[:] = np.rint(place * (1 - alpha) + np.asarray(ink, np.float32) * alpha).astype(np.uint8)
