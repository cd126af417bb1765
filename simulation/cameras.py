"""The two cameras: a low-light colour camera and an uncooled thermal camera of the same street.

Pictures are pure functions of time and frame number; the number only selects the noise.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.simulation import people, vehicles
from ufuser.simulation.geometry import Floats, View
from ufuser.simulation.illumination import HEADLIGHT, beam_field, beams_at, lamps_at
from ufuser.simulation.paint import Patch, composite
from ufuser.simulation.scene import STREET_TEMPERATURE, Scene

_EXPOSURE = 0.26
"""Radiance at which the squared response is half of white: a fast lens at 1/25 s."""
_READ_NOISE = 0.00085
_SHOT_NOISE = 0.00016
_VIGNETTE = 0.22
"""Share of the light that is lost in the corners."""

_NETD = 0.06
"""Degrees Celsius, one sigma, of the thermal camera's temporal noise."""
_COLUMN_NOISE = 0.05
"""Degrees Celsius, one sigma, of its fixed columns."""
_COLDEST, _HOTTEST = -45.0, 125.0
"""Degrees Celsius the 14 and 16-bit counts span."""
_MIDDLE, _SLOPE = 15.5, 5.5
"""Degrees Celsius: centre and width of the fixed 8-bit tone curve."""


class _Grain:
    """Sensor noise: a random window of a larger sheet, because drawing every frame would be slow."""

    def __init__(self, seed: int, shape: tuple[int, int, int]) -> None:
        h, w, c = shape
        self._seed, self._shape = seed, shape
        self._room = (97, 131)
        rng = np.random.default_rng((seed, 11))
        self._sheet = rng.standard_normal((h + self._room[0], w + self._room[1], c), dtype=np.float32)

    def at(self, index: int) -> Floats:
        """Unit-variance noise of one frame: (h, w, c) float32, a view."""
        h, w, _ = self._shape
        rng = np.random.default_rng((self._seed, 12, index))
        y, x = int(rng.integers(self._room[0])), int(rng.integers(self._room[1]))
        window = self._sheet[y : y + h, x : x + w]
        flipped = window[:: 1 if rng.random() < 0.5 else -1, :: 1 if rng.random() < 0.5 else -1]
        return np.asarray(flipped, np.float32)


class VisibleCamera:
    """A colour camera at night, with bloom around lamps and noise in the dark."""

    def __init__(self, scene: Scene, seed: int, view: View | None = None) -> None:
        self._scene = scene
        self._as_seen = (view or View(scene.pinhole)).resampler()
        w, h = scene.pinhole.width, scene.pinhole.height
        self._grain = _Grain(seed * 2 + 1, (h, w, 3))
        y, x = np.mgrid[0:h, 0:w].astype(np.float32)
        r2 = ((x - w / 2) ** 2 + (y - h / 2) ** 2) / (w * w / 4 + h * h / 4)
        self._lens: Floats = np.repeat((1.0 - _VIGNETTE * r2)[..., None], 3, axis=2).astype(np.float32)

    def render(self, t: float, index: int) -> NDArray[np.uint8]:
        """The frame at t seconds with the noise of frame `index`: (H, W, 3) uint8 BGR."""
        radiance = self._as_seen(self.radiance(t))
        self._bloom(radiance)
        return self._expose(radiance, index)

    def radiance(self, t: float) -> Floats:
        scene, pinhole = self._scene, self._scene.pinhole
        radiance = scene.radiance.copy()
        cars, persons = scene.vehicles(t), scene.people(t)
        own = {car.name: car.beam for car in cars}
        beams = tuple(own.values())
        if beams:
            field = beam_field(beams, scene.coarse_points, scene.coarse_normals)
            size = (pinhole.width, pinhole.height)
            full = np.asarray(cv2.resize(field, size, interpolation=cv2.INTER_LINEAR), np.float32)
            falling = cv2.merge([full * np.float32(c) for c in HEADLIGHT])
            radiance += np.asarray(cv2.multiply(falling, scene.albedo), np.float32)
        lamps = scene.layout.lamps
        patches: list[Patch | None] = []
        for person in persons:
            arriving = lamps_at(lamps, (person.x, 1.1, person.z))
            below = people.shadow(person, pinhole, arriving)
            if below is not None:
                composite(radiance, below, scene.covers)
            glare = beams_at(beams, (person.x, 0.8, person.z))
            patches.append(people.visible(person, pinhole, arriving, glare))
        for car in cars:
            below = vehicles.underneath(car, pinhole, (0.0, 0.0, 0.0), 0.85)
            if below is not None:
                composite(radiance, below, scene.covers)
            others = tuple(beam for name, beam in own.items() if name != car.name)
            arriving = lamps_at(lamps, (car.x, 1.0, car.z))
            patches.append(vehicles.visible(car, pinhole, arriving, beams_at(others, (car.x, 0.8, car.z))))
        for patch in sorted((p for p in patches if p is not None), key=lambda p: -p.depth):
            composite(radiance, patch, scene.covers)
        return np.asarray(radiance, np.float32)

    def _bloom(self, radiance: Floats) -> None:
        """Scatter in the lens: a halo around everything far brighter than white."""
        h, w = radiance.shape[:2]
        k = w / 640
        quarter = cv2.resize(radiance, (max(8, w // 4), max(8, h // 4)), interpolation=cv2.INTER_AREA)
        np.subtract(quarter, 0.5, out=quarter)
        np.clip(quarter, 0.0, 14.0, out=quarter)
        halo = cv2.GaussianBlur(quarter, (0, 0), max(0.6, 1.1 * k)) * np.float32(0.10)
        small = cv2.resize(quarter, (max(4, w // 16), max(4, h // 16)), interpolation=cv2.INTER_AREA)
        wide = cv2.GaussianBlur(small, (0, 0), max(0.6, 1.2 * k)) * np.float32(0.08)
        wide += cv2.GaussianBlur(small, (0, 0), max(0.8, 4.0 * k)) * np.float32(0.06)
        halo += cv2.resize(wide, (quarter.shape[1], quarter.shape[0]), interpolation=cv2.INTER_CUBIC)
        radiance += cv2.resize(halo, (w, h), interpolation=cv2.INTER_LINEAR)

    def _expose(self, radiance: Floats, index: int) -> NDArray[np.uint8]:
        radiance *= self._lens
        np.maximum(radiance, 0.0, out=radiance)
        # Shot noise grows with the root of the signal; read-out noise is constant.
        sigma = cv2.sqrt(radiance * np.float32(_SHOT_NOISE) + np.float32(_READ_NOISE**2))
        radiance += cv2.multiply(sigma, np.ascontiguousarray(self._grain.at(index)))
        np.maximum(radiance, 0.0, out=radiance)
        # A gamma of 2, and a shoulder that compresses the lamps.
        toned = cv2.sqrt(cv2.divide(radiance, radiance + np.float32(_EXPOSURE)))
        picture = cv2.convertScaleAbs(toned, alpha=258.0, beta=3.0)
        return np.asarray(picture, np.uint8)


class ThermalCamera:
    """An uncooled long-wave camera: soft, noisy, insensitive to visible light.

    With 8 bits temperature is tone-mapped by a fixed curve; with 14 or 16 the counts are proportional to the
    black-body radiance.
    """

    def __init__(self, scene: Scene, seed: int, bits: int, view: View | None = None) -> None:
        self._scene = scene
        self._as_seen = (view or View(scene.pinhole)).resampler()
        self._bits = bits
        w, h = scene.pinhole.width, scene.pinhole.height
        self._grain = _Grain(seed * 2, (h, w, 1))
        rng = np.random.default_rng((seed, 13))
        columns = rng.standard_normal((1, w)) * _COLUMN_NOISE
        pixels = rng.standard_normal((h, w)) * (_COLUMN_NOISE * 0.5)
        self._fixed: Floats = (columns + pixels).astype(np.float32)
        self._soft = max(0.45, 0.85 * w / 640)

    def temperature(self, t: float) -> Floats:
        """Apparent temperature in front of the lens at t seconds: (H, W) float32, degrees Celsius."""
        scene, pinhole = self._scene, self._scene.pinhole
        temperature = scene.temperature.copy()
        patches: list[Patch | None] = [people.thermal(person, pinhole) for person in scene.people(t)]
        for car in scene.vehicles(t):
            below = vehicles.underneath(car, pinhole, (STREET_TEMPERATURE + 5.0,), 0.6)
            if below is not None:
                composite(temperature, below, scene.covers)
            patches.append(vehicles.thermal(car, pinhole, STREET_TEMPERATURE))
        for patch in sorted((p for p in patches if p is not None), key=lambda p: -p.depth):
            composite(temperature, patch, scene.covers)
        return np.asarray(temperature[..., 0], np.float32)

    def render(self, t: float, index: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The frame at t seconds with the noise of frame `index`: (H, W) uint8 for 8 bits, else uint16."""
        temperature = np.asarray(
            cv2.GaussianBlur(self._as_seen(self.temperature(t)), (0, 0), self._soft), np.float32
        )
        temperature += self._fixed
        temperature += self._grain.at(index)[..., 0] * np.float32(_NETD)
        if self._bits == 8:
            # One curve for all frames: stretching each one separately would flicker.
            level = 255.0 / (1.0 + np.exp((_MIDDLE - temperature) * np.float32(1.0 / _SLOPE)))
            return np.asarray(level + 0.5, np.float32).astype(np.uint8)
        return counts(np.asarray(temperature, np.float32), self._bits)


def counts(celsius: Floats, bits: int) -> NDArray[np.uint16]:
    """Raw counts of a long-wave sensor for apparent temperatures: monotonic, 0 to 2**bits - 1.

    Planck's law over the 8-14 um band, in the form R / (exp(B / T) - F) that thermal cameras are calibrated with.
    """

    def band(c: Floats) -> NDArray[np.float64]:
        return np.asarray(1.0 / (np.exp(1428.0 / (c.astype(np.float64) + 273.15)) - 1.0))

    low, high = band(np.asarray([_COLDEST, _HOTTEST], np.float32))
    scaled = (band(celsius) - low) / (high - low) * (2**bits - 1)
    return np.asarray(np.clip(np.rint(scaled), 0, 2**bits - 1), np.uint16)
