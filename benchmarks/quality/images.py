"""Input checks of the metrics: grey 8-bit pictures."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Image: TypeAlias = npt.NDArray[Any]
Grey: TypeAlias = npt.NDArray[np.uint8]
Float: TypeAlias = npt.NDArray[np.float64]

BLACK, WHITE = 0, 255


def as_grey(image: Image, name: str) -> Grey:
    """Check a picture and return it as H×W uint8, rounded to the nearest grey level.

    uint8 passes unchanged. Other numeric types must hold finite values that round into 0..255. A float picture
    with fractional values up to 1 is refused, because it is in [0, 1] and rounding would make it black and white.

    Raises ValueError, which names the picture by ``name``, for NaN, infinity, a third axis or no pixels.
    """
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"{name} has shape {image.shape}; a grey picture H×W is expected: convert it first")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "iuf":
        raise ValueError(
            f"{name} has type {image.dtype}; uint8 or float in 0..255 is expected: convert it first"
        )
    if not np.isfinite(image).all():
        raise ValueError(
            f"{name} holds NaN or infinite values; finite grey levels in 0..255 are expected: mask or"
            " fill them first"
        )
    rounded = np.rint(image)
    lowest, highest = float(image.min()), float(image.max())
    if rounded.min() < BLACK or rounded.max() > WHITE:
        raise ValueError(
            f"{name} spans {lowest:g}..{highest:g}; grey levels in 0..255 are expected: scale or clip"
            " it first"
        )
    if highest <= 1 and bool((rounded != image).any()):
        raise ValueError(
            f"{name} spans {lowest:g}..{highest:g}; grey levels in 0..255 are expected, this looks like"
            " [0, 1]: multiply it by 255 first"
        )
    return rounded.astype(np.uint8)


def as_pair(first: Image, second: Image, first_name: str, second_name: str) -> tuple[Grey, Grey]:
    """Check two pictures of the same size; see :func:`as_grey`. Raises ValueError."""
    a, b = as_grey(first, first_name), as_grey(second, second_name)
    if a.shape != b.shape:
        raise ValueError(
            f"{first_name} is {a.shape} and {second_name} is {b.shape} (height, width); one size is"
            " expected: register and resize them first"
        )
    return a, b


def as_triple(ir: Image, vi: Image, fused: Image) -> tuple[Grey, Grey, Grey]:
    """Check infrared, visible and fused pictures of the same size; see :func:`as_grey`. Raises ValueError."""
    infrared, visible = as_pair(ir, vi, "ir", "vi")
    _, result = as_pair(infrared, fused, "ir", "fused")
    return infrared, visible, result


def require_side(image: Grey, side: int, metric: str) -> None:
    """Raise ValueError if a picture is too small for ``metric`` to filter without padding."""
    if min(image.shape) < side:
        raise ValueError(
            f"{metric} was given {image.shape} (height, width); it needs at least {side} pixels per side:"
            " give a larger picture"
        )


def stretch(image: Grey) -> Grey:
    """Stretch a picture linearly to 0..255, as EMMA's test script does; a constant picture stays unchanged.

    Stretching alone raises SD and SF by a quarter, so a table must hold either stretched pictures only or none.
    """
    lowest, highest = int(image.min()), int(image.max())
    if lowest == highest:
        return image
    return np.rint((image.astype(np.float64) - lowest) * (WHITE / (highest - lowest))).astype(np.uint8)
