"""Parallax that a single homography leaves between two cameras side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

DISTANCES = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)
"""Metres."""


def parallax(focal: float, baseline: float, distance: float, met: float) -> float:
    """Pixels between the two pictures of an object: f·B·|1/Z − 1/Z0|.

    Args:
        focal: pixels.
        baseline: metres between the cameras.
        distance: of the object, metres.
        met: distance at which the pictures meet, metres; may be infinite.
    """
    return focal * baseline * abs(1 / distance - 1 / met)


def table(focal: float, baseline: float, met: float, distances: Sequence[float] = DISTANCES) -> str:
    """Two lines: the distances, and the parallax at each."""
    wanted = sorted({*distances, met} - {math.inf})
    cells = [(f"{z:g} m", f"{parallax(focal, baseline, z, met):.1f} px") for z in wanted]
    widths = [max(map(len, cell)) for cell in cells]
    return "\n".join(
        f"  {name:<9}" + "  ".join(cell[row].rjust(width) for cell, width in zip(cells, widths, strict=True))
        for row, name in ((0, "distance"), (1, "parallax"))
    )
