"""Random values that depend on a place or a number only, not on earlier draws."""

from __future__ import annotations

import cv2
import numpy as np

from ufuser.simulation.geometry import Floats


def fractal_tile(seed: int, size: int = 512, slope: float = 1.0) -> Floats:
    """A seamless tile of fractal noise, (size, size) float32, zero mean, unit variance.

    White noise filtered in the Fourier domain by 1/f^slope is periodic: slope 0.4 looks like grain, slope 1.5 like
    clouds.
    """
    rng = np.random.default_rng((seed, size, int(slope * 100)))
    f = np.fft.fftfreq(size)
    radius = np.hypot(f[:, None], np.fft.rfftfreq(size)[None, :])
    radius[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / radius**slope
    tile = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray((tile - tile.mean()) / tile.std(), np.float32)


def sample(tile: Floats, u: Floats, v: Floats) -> Floats:
    """The tile's value at (u, v) in tile pixels, wrapped and interpolated: (n,) float32 for (n,) float32."""
    size = tile.shape[0]
    # remap takes no side over 32767: the samples are arranged as a block.
    n = u.size
    columns = 4096
    rows = -(-n // columns)
    block = np.zeros((2, rows * columns), np.float32)
    np.mod(u, size, out=block[0, :n])
    np.mod(v, size, out=block[1, :n])
    maps = block.reshape(2, rows, columns)
    out = cv2.remap(tile, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(out, np.float32).reshape(-1)[:n]


def hash01(seed: int, i: Floats, j: Floats) -> Floats:
    """A random number in [0, 1) for every integer cell (i, j): float32, same shape."""
    x = i.astype(np.int64).astype(np.uint32) * np.uint32(374761393)
    x += j.astype(np.int64).astype(np.uint32) * np.uint32(668265263)
    x += np.uint32((seed * 2246822519) & 0xFFFFFFFF)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(1274126177)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(2246822519)
    x ^= x >> np.uint32(16)
    return np.asarray((x >> np.uint32(8)) / (1 << 24), np.float32)


def ramp(x: Floats, low: float, high: float) -> Floats:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)
