"""Point pairs from a file: CSV or JSON, as people and other tools write them."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ufuser.runtime.alignment import Points, Size
from ufuser.runtime.errors import InputError

COLUMNS = ("vi_x", "vi_y", "ir_x", "ir_y")
_EXPECTED = f"expected CSV with the columns {','.join(COLUMNS)}, or JSON: [[vi_x, vi_y, ir_x, ir_y], ...]"


def read_points(path: Path) -> tuple[Points, Points]:
    """Point pairs of a file: `.json`, anything else is CSV, with or without a heading.

    Returns:
        Visible and infrared pixels, (N, 2) each.

    Raises:
        InputError: no such file, or not point pairs.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"no file {path}: {_EXPECTED}") from None
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text: {_EXPECTED}") from None
    rows = _from_json(path, text) if path.suffix.lower() == ".json" else _from_csv(path, text)
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


def _from_json(path: Path, text: str) -> list[list[float]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not JSON: {_EXPECTED}") from None
    if not isinstance(data, list):
        raise InputError(f"{path} is no list of points: {_EXPECTED}")
    return [_row(path, number, row) for number, row in enumerate(data, 1)]


def _from_csv(path: Path, text: str) -> list[list[float]]:
    try:
        lines = [
            (n, row)
            for n, row in enumerate(csv.reader(io.StringIO(text)), 1)
            if row and not row[0].startswith("#")
        ]
    except csv.Error as e:
        raise InputError(f"{path} is no table of points ({e}): {_EXPECTED}") from None
    order = list(range(4))
    if lines and set(COLUMNS) <= {name.strip() for name in lines[0][1]}:
        heading = [name.strip() for name in lines.pop(0)[1]]
        order = [heading.index(name) for name in COLUMNS]
    try:
        return [_row(path, n, [row[k] for k in order]) for n, row in lines]
    except IndexError:
        raise InputError(f"{path} has lines of fewer than four numbers: {_EXPECTED}") from None


def _row(path: Path, number: int, row: Any) -> list[float]:
    try:
        values = [float(value) for value in row]
    except (TypeError, ValueError):
        values = []
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise InputError(f"{path}, point {number}: {row} is not four numbers; {_EXPECTED}")
    return values
