"""Pictures of the report: sources and fused pictures, from the simulated street or from folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ufuser.benchmarks.quality.folder import match
from ufuser.runtime.images import as_uint8, read_image
from ufuser.simulation import SimCamera, SimConfig

_WIDEST = 640
_QUALITY = 88
_SIMULATED = ((0, 40), (3, 90))  # street, frame
_FROM_FOLDERS = 3


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a panel."""

    name: str
    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Panel:
    """Pictures of one scene."""

    title: str
    pictures: tuple[Picture, ...]


def simulated(model: str) -> list[Panel]:
    """Two frames of simulated streets, fused by a model. They are free of third-party rights."""
    from ufuser.runtime.fuser import Fuser

    fuser = Fuser.open(model)
    panels = []
    for seed, frame in _SIMULATED:
        visible = SimCamera(SimConfig("visible", seed=seed))
        thermal = SimCamera(SimConfig("thermal", seed=seed), visible.scene)
        vi, ir = visible.frame(frame)[0], thermal.frame(frame)[0]
        named = {"infrared": ir, "visible": vi, f"fused, {Path(model).stem}": fuser.fuse(ir, vi)}
        panels.append(panel(f"sim://, street {seed}, frame {frame}", named))
    return panels


def from_folders(
    ir: Path, vi: Path, fused: Mapping[str, Path], names: Sequence[str] | None, model: str
) -> list[Panel]:
    """Pairs from two folders, with the fused pictures of other methods and of a model.

    Args:
        ir, vi: folders of pictures with the same names.
        fused: method → folder of its fused pictures with the same names.
        names: file stems; None selects three, evenly spaced.
        model: shipped model or ONNX file.

    Raises:
        InputError: see `ufuser.benchmarks.quality.folder.match`.
    """
    from ufuser.runtime.fuser import Fuser

    pairs, _ = match(ir, vi, fused, names)
    if names is None:
        places = np.linspace(0, len(pairs) - 1, min(_FROM_FOLDERS, len(pairs))).round()
        pairs = [pairs[int(i)] for i in places]
    fuser = Fuser.open(model)
    panels = []
    for pair in pairs:
        infrared, visible = read_image(pair.ir), read_image(pair.vi)
        made = {f"fused, {Path(model).stem}": fuser.fuse(infrared, visible)}
        made |= {name: read_image(path) for name, path in pair.fused.items()}
        panels.append(panel(pair.name, {"infrared": infrared, "visible": visible} | made))
    return panels


def panel(title: str, pictures: Mapping[str, NDArray[Any]]) -> Panel:
    """Scale the pictures to the width of the page and compress them."""
    return Panel(title, tuple(_picture(name, image) for name, image in pictures.items()))


def _picture(name: str, image: NDArray[Any]) -> Picture:
    level: NDArray[Any] = as_uint8(image)
    if level.shape[1] > _WIDEST:
        size = _WIDEST, round(level.shape[0] * _WIDEST / level.shape[1])
        level = cv2.resize(level, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", level, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return Picture(name, data.tobytes(), level.shape[1], level.shape[0])
