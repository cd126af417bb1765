"""Still pictures of a thermal camera: raw counts become 8 bits, by the tone mapping of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.frame import Frame
from ufuser.runtime.images import read_grey
from ufuser.runtime.thermal import ThermalPipeline

RAW_BELOW = 65536 // 4
"""A 16-bit picture without higher values most likely holds raw counts of a 14-bit camera."""


def is_raw(image: NDArray[Any]) -> bool:
    """Whether a picture holds raw counts rather than levels up to the full scale."""
    return image.dtype == np.uint16 and bool(image.max() < RAW_BELOW)


def tone_mapped(image: NDArray[Any]) -> NDArray[Any]:
    """Raw counts as uint8, as the first frame of a stream (`ThermalPipeline`); any other picture as it is."""
    return ThermalPipeline()(Frame(image, 0.0, 0, "picture")).image if is_raw(image) else image


def read_infrared(path: Path) -> NDArray[Any]:
    """An infrared picture, H×W, 8 or 16 bits; raw counts are tone mapped. Raises InputError as `read_grey` does."""
    return tone_mapped(read_grey(path))
