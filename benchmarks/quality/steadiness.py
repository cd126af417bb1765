"""Metrics of noise gain and block-grid artefacts, which still-picture metrics miss.

Pictures are grey H×W, float in 0..255.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
Fuse = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""ir, vi → fused; H×W in [0, 1] each."""

NEIGHBOURS = range(3, 11)
"""Distances, in frequency bins, of the neighbours that a line is compared with; beyond the width of the window."""


def grid_energy(picture: npt.NDArray[np.generic], period: int) -> float:
    """Power at the frequency of a grid relative to its neighbours, in decibels; about 0 without a grid.

    A network that works on blocks of `period` pixels can leave their borders in the picture: lines in the
    spectrum at 1/period cycles per pixel. The larger of both axes counts. A source can have such a line too,
    for example from the columns of a thermal sensor: compare with the sources.

    Raises ValueError for a period under 2 or a picture with less than 16 periods per side.
    """
    if period < 2 or min(picture.shape) < 16 * period:
        raise ValueError(
            f"period {period}, picture {picture.shape}: expected 2 or more, and at least 16 periods per side"
        )
    return max(_line(np.asarray(side, np.float64), period) for side in (picture, picture.T))


def _line(picture: Float, period: int) -> float:
    width = picture.shape[1] // period * period  # so that the grid's frequency is a bin of the spectrum
    part = picture[:, :width]
    window = np.hanning(width)
    spectrum = np.abs(np.fft.rfft((part - part.mean(1, keepdims=True)) * window, axis=1)) ** 2
    power = spectrum.mean(axis=0)
    place = width // period
    around = [place + s * d for d in NEIGHBOURS for s in (-1, 1) if place + s * d < len(power)]
    return float(10 * np.log10((power[place] + 1e-12) / (np.median(power[around]) + 1e-12)))


def noise_gain(
    fuse: Fuse,
    ir: npt.NDArray[np.float32],
    vi: npt.NDArray[np.float32],
    sigma: float,
    frames: int = 8,
    seed: int = 0,
) -> float:
    """Temporal noise of the fused picture of a static scene, relative to the noise of both sources.

    Each frame is the pair with new Gaussian noise of standard deviation `sigma` (of [0, 1]). The mean of two
    pictures gives 0.71, one of them 1, their sum 1.4. Clipped pixels have less noise, so scenes differ.

    Raises ValueError for fewer than two frames or no noise.
    """
    if frames < 2 or sigma <= 0:
        raise ValueError(f"{frames} frames with noise {sigma}: expected at least two, and noise above 0")
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(frames):
        noisy = (np.clip(x + rng.normal(0, sigma, x.shape), 0, 1).astype(np.float32) for x in (ir, vi))
        seen.append(fuse(*noisy))
    deviation = np.std(np.stack(seen), axis=0, ddof=1)
    return float(np.sqrt(np.mean(np.square(deviation, dtype=np.float64))) / sigma)
