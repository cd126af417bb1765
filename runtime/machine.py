"""The machine and the package versions of a measurement."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    "ufuser",
    "numpy",
    "opencv-python",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "av",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Properties of a computer that matter for fusion."""

    system: str
    cpu: str
    cores: int
    """Cores that this process may use; a container may limit them."""

    @classmethod
    def here(cls) -> Machine:
        """This computer."""
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return cls(f"{platform.system()} {platform.machine()}", _cpu_name(), cores)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages in `_PACKAGES` that are installed, by distribution name."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    # The files exist on Linux only.
    cpuinfo, board = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    if board.is_file():  # of ARM boards, whose /proc/cpuinfo has no model name
        return board.read_text(errors="replace").strip("\0\n ")
    return platform.processor() or platform.machine() or "unknown"
