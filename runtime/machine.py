"""What a measurement ran on: a figure without its machine says nothing."""

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
    """One computer, as far as fusing cares."""

    system: str
    cpu: str
    cores: int
    """Cores this process may use, which a container may limit."""

    @classmethod
    def here(cls) -> Machine:
        """The computer this runs on."""
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        return cls(f"{platform.system()} {platform.machine()}", _cpu_name(), cores)


def versions() -> dict[str, str]:
    """Python's version and those of the installed packages that matter, by distribution name."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    # Linux only: elsewhere the files are missing and the platform's own answer serves.
    cpuinfo, board = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    if board.is_file():  # ARM boards name themselves, not their cores
        return board.read_text(errors="replace").strip("\0\n ")
    return platform.processor() or platform.machine() or "unknown"
