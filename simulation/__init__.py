"""A simulated pair of cameras on a street at night, for demonstrations and tests without hardware.

    config = SimConfig.from_uri("sim://thermal?fps=9&bits=14&seed=3")
    image, timestamp = SimCamera(config).frame(0)

A visible and a thermal camera of the same seed and size see the same street at the same moments, with registered
pictures. With `fov`, `yaw`, `pitch`, `roll` or `k1` the mapping between the two is known (`geometry.seen_by_other`).
The cameras do not wait: frames are rendered as fast as they are read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError
from ufuser.simulation.cameras import ThermalCamera, VisibleCamera
from ufuser.simulation.config import SimConfig
from ufuser.simulation.scene import Box, Scene

__all__ = ["Box", "Scene", "SimCamera", "SimConfig"]

Image = NDArray[np.uint8] | NDArray[np.uint16]


class SimCamera:
    """One of the two cameras.

    Args:
        config: kind, geometry, timing and faults.
        scene: to share between the cameras of a pair, because building it takes a second or two at 640x480. By
            default the camera builds its own, which looks the same.

    Raises:
        InputError: `scene` has another seed or size than `config`.
    """

    def __init__(self, config: SimConfig, scene: Scene | None = None) -> None:
        self.config = config
        self.timing = config.timing()
        if scene is None:
            scene = Scene(config.seed, config.width, config.height)
        have = (scene.seed, scene.pinhole.width, scene.pinhole.height)
        if have != (config.seed, config.width, config.height):
            raise InputError(
                f"scene of seed {have[0]} at {have[1]}x{have[2]}: the camera expects "
                f"seed {config.seed} at {config.width}x{config.height}"
            )
        self.scene = scene
        self._camera: VisibleCamera | ThermalCamera
        if config.kind == "visible":
            self._camera = VisibleCamera(scene, config.seed, config.view())
        else:
            self._camera = ThermalCamera(scene, config.seed, config.bits, config.view())

    def frame(self, index: int) -> tuple[Image, float]:
        """The picture and the stamp of one tick of the sensor, also of frames that the stream loses.

        Args:
            index: tick, from 0. The same index always gives the same picture.

        Returns:
            The picture and its stamp in seconds from the start of the stream. Visible: (H, W, 3) uint8 BGR.
            Thermal: (H, W), uint8 at 8 bits, else uint16 counts from 0 to 2**bits - 1.

        Raises:
            InputError: `index` is negative.
        """
        if index < 0:
            raise InputError(f"frame {index}: frames are counted from 0")
        shown = self.timing.shown(index)
        return self._camera.render(self.timing.exposed(shown), shown), self.timing.stamp(index)

    def indices(self, start: int = 0) -> Iterator[int]:
        """Ticks of the frames that arrive, endlessly: without drops and stalls."""
        index = start
        while True:
            if self.timing.delivered(index):
                yield index
            index += 1

    def __iter__(self) -> Iterator[tuple[Image, float]]:
        """The frames that arrive, endlessly, as of `frame`."""
        return (self.frame(index) for index in self.indices())
