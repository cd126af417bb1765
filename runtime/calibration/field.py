"""The smooth displacement that maximises the sum of the matching scores of many patches.

Not a least-squares problem: scores are bounded and have several peaks. SciPy's trust-region methods ended farther from
the truth than the damped Newton steps here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.alignment import Points, Size
from ufuser.runtime.calibration.features import Floats

_BLURS = (4.0, 2.0, 1.0, 0.5)
"""Sigmas, in pixels, of the blur of the scores, coarse to fine."""
_TERMS = {1: 4, 2: 6, 3: 8, 4: 9}
_AROUND = np.asarray(
    [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1], [1, -1], [-1, 1]], np.float64
)
"""A place and its neighbours: x, y."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A smooth displacement of the visible plane, as a small change of a calibration causes it."""

    centre: NDArray[np.float64]
    """Centre of the lens distortion, roughly; pixels."""
    size: Size
    degree: int
    """1 translation, rotation and scale; 2 affine; 3 homography; 4 also the infrared lens's k1."""

    def basis(self, points: Points) -> NDArray[np.float64]:
        """(N, 2, terms): displacement of each point by each term, one pixel at the left and right border."""
        scale = self.size[0] / 2
        x, y = ((points - self.centre) / scale).T
        zero, one = np.zeros_like(x), np.ones_like(x)
        square = x * x + y * y
        across = [one, zero, x, -y, y, x, x * x, x * y, x * square]
        down = [zero, one, y, x, x, -y, x * y, y * y, y * square]
        return np.stack([np.stack(across, axis=1), np.stack(down, axis=1)], axis=1)[
            :, :, : _TERMS[self.degree]
        ]


def maximise(surfaces: Floats, basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """The field's terms at which the sum of all scores is highest.

    Args:
        surfaces: (N, side, side) scores of every patch at every displacement; the middle is no displacement.
        basis: (N, 2, terms) displacement of the patches' centres by each term.

    Returns:
        (terms,)
    """
    reach = surfaces.shape[1] // 2
    values = np.zeros(basis.shape[2])
    flat = basis.reshape(-1, basis.shape[2])

    def places(terms: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((flat @ terms).reshape(-1, 2) + reach, np.float64)

    for sigma in _BLURS:
        soft = _softened(surfaces, sigma)
        damping = 1e-3
        score = float(sampled(soft, places(values)).sum())
        for _ in range(30):
            slope, curve = _shape(soft, places(values))
            normal = flat.T @ (curve @ basis).reshape(flat.shape)
            pull = flat.T @ slope.ravel()
            normal += damping * (np.diag(np.diag(normal)) + 1e-6 * np.trace(normal) * np.eye(len(values)))
            change = np.linalg.lstsq(normal, pull, rcond=None)[0]
            change *= min(1.0, sigma / max(float(np.abs(flat @ change).max()), 1e-9))
            better = float(sampled(soft, places(values + change)).sum())
            if better > score:
                values, score, damping = values + change, better, damping / 3
                if np.abs(flat @ change).max() < 5e-3:
                    break
            else:
                damping *= 10
                if damping > 1e5:
                    break
    return values


def sampled(surfaces: Floats, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each surface at its own place (..., N, 2), bilinear; places beyond the border are moved onto it."""
    side = surfaces.shape[1]
    inner = np.clip(at, 0, side - 1 - 1e-6)
    whole = inner.astype(np.intp)
    share = inner - whole
    u, v = share[..., 0], share[..., 1]
    first = np.arange(len(surfaces)) * side * side + whole[..., 1] * side + whole[..., 0]
    scores = surfaces.reshape(-1)
    top = scores[first] * (1 - u) + scores[first + 1] * u
    bottom = scores[first + side] * (1 - u) + scores[first + side + 1] * u
    return np.asarray(top * (1 - v) + bottom * v, np.float64)


def _softened(surfaces: Floats, sigma: float) -> Floats:
    """All surfaces blurred at once, by products with the blur's matrix."""
    single = np.eye(surfaces.shape[1], dtype=np.float32)
    down = cv2.getGaussianKernel(round(8 * sigma + 1) | 1, sigma)  # the width that GaussianBlur chooses
    blur = cv2.sepFilter2D(single, -1, np.ones(1), down, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blur @ surfaces @ blur.T, np.float32)


def _shape(surfaces: Floats, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope (N, 2) and negated curvature (N, 2, 2), the latter made positive definite."""
    here, e, w, s, n, se, nw, ne, sw = sampled(surfaces, at + _AROUND[:, None])
    xx, yy, xy = 2 * here - e - w, 2 * here - s - n, (ne + sw - se - nw) / 4
    curve = np.stack([np.stack([xx, xy], axis=1), np.stack([xy, yy], axis=1)], axis=1)
    values, vectors = np.linalg.eigh(curve)
    curve = (vectors * np.maximum(values, 1e-6)[:, None]) @ vectors.transpose(0, 2, 1)
    return np.stack([e - w, s - n], axis=1) / 2, curve
