"""Point pairs from a CSV or JSON file."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from ufuser.runtime.alignment import Points, Size
from ufuser.runtime.errors import InputError
from ufuser.runtime.structs import load_json, read_text

COLUMNS = ("vi_x", "vi_y", "ir_x", "ir_y")
_EXPECTED = f"expected CSV with the columns {','.join(COLUMNS)}, or JSON: [[vi_x, vi_y, ir_x, ir_y], ...]"
_Number = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
_Row = tuple[_Number, _Number, _Number, _Number]


def read_points(path: Path) -> tuple[Points, Points]:
    """Read point pairs: JSON from `.json`, else CSV with or without a heading.

    Returns:
        Visible and infrared pixels, (N, 2) each.

    Raises:
        InputError: no such file, or not point pairs.
    """
    rows = load_json(path, list[_Row]) if path.suffix.lower() == ".json" else _from_csv(path)
    if not rows:
        raise InputError(f"{path} holds no points: {_EXPECTED}")
    numbers = np.asarray(rows, np.float64)
    return numbers[:, :2], numbers[:, 2:]


def require_inside(points: Points, size: Size, side: str) -> None:
    """Raise InputError if a point lies outside a picture of this size: most likely the sides are mixed up."""
    outside = ((points < -0.5) | (points > np.asarray(size) - 0.5)).any(axis=1)
    if outside.any():
        x, y = points[int(np.argmax(outside))]
        raise InputError(
            f"{side} point ({x:g}, {y:g}) lies outside of {size[0]}x{size[1]}: expected pixels of that picture"
        )


def _from_csv(path: Path) -> list[list[float]]:
    try:
        lines = [
            (number, [cell.strip() for cell in row])
            for number, row in enumerate(csv.reader(read_text(path, "CSV").splitlines()), 1)
            if row and not row[0].startswith("#")
        ]
    except csv.Error as e:
        raise InputError(f"{path} is not a table of points ({e}): {_EXPECTED}") from None
    order = list(range(4))
    if lines and set(COLUMNS) <= set(lines[0][1]):
        heading = lines.pop(0)[1]
        order = [heading.index(name) for name in COLUMNS]
    rows = []
    for number, cells in lines:
        try:
            row = [float(cells[k]) for k in order]
        except (IndexError, ValueError):
            row = [math.nan]
        if not all(map(math.isfinite, row)):
            raise InputError(f"{path}, line {number}: {cells} is not four numbers; {_EXPECTED}")
        rows.append(row)
    return rows
