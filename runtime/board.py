"""Whether this machine is an NVIDIA Jetson, as a program inside a container sees it too.

/etc/nv_tegra_release is missing or empty in containers and in some images, and Docker hides the device tree. The
kernel's name of the chip family is visible everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_RELEASE = "etc/nv_tegra_release"
_TREE = "proc/device-tree"
_FAMILY = "sys/devices/soc0/family"
_GPUS = ("5.3", "6.2", "7.2", "8.7", "10.1", "11.0")
"""Compute capabilities of Tegra chips, from the first Jetson to Thor; no card has one of them."""


@dataclass(frozen=True, slots=True)
class Jetson:
    """An NVIDIA Jetson."""

    model: str
    """As in "NVIDIA Jetson AGX Orin Developer Kit"; "" where the device tree is hidden."""
    l4t: str
    """Jetson Linux release, as in "36.4.3"; "" if it is unknown."""

    @classmethod
    def find(cls, root: Path = Path("/")) -> Jetson | None:
        """This machine; None if it is no Jetson."""
        release = _text(root / _RELEASE).strip()
        match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release)
        l4t = f"{match[1]}.{match[2]}" if match else release.partition("\n")[0]
        tree = root / _TREE
        tegra = re.search(r"nvidia,tegra\d+", _text(tree / "compatible"))
        if not (l4t or tegra or _text(root / _FAMILY).strip().lower() == "tegra"):
            return None
        return cls(_text(tree / "model").strip("\0\n "), l4t)


def is_jetson_gpu(compute_capability: str) -> bool:
    """Whether a GPU of this compute capability, as in "8.7", is part of a Jetson's chip."""
    return compute_capability in _GPUS


def offline_cores(cpus: Path = Path("/sys/devices/system/cpu")) -> tuple[int, ...]:
    """Numbers of the processor's cores that are switched off, by the power mode or by hand."""
    return tuple(sorted(_cores(_text(cpus / "offline")) & _cores(_text(cpus / "present"))))


def _cores(text: str) -> set[int]:
    """Linux' lists of cores: "0-3,6"."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found |= set(range(int(first), int(last or first) + 1))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
