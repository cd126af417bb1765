"""Exports kept on disk: tracing a network takes most of the time of these tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = (
    "export",
    "train/models",
    "train/checkpoint.py",
    "runtime/shapes.py",
    "tests/export/export_cache.py",
)
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "ufuser")
_KEPT = 14 * 24 * 3600.0
"""Seconds after the last use before an entry is removed."""


class ExportCache:
    """Folders of exported files by their content: the sources, the packages' versions and what the caller names.

    Workers of pytest-xdist may share the folder: the first one makes an entry while the others wait for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._base = hashlib.sha256()
        for source in _SOURCES:
            place = ROOT / source
            for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
                self._base.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
        self._base.update(" ".join(map(version, _PACKAGES)).encode())

    def __call__(self, name: str, key: Iterable[str | bytes], export: Callable[[Path], None]) -> Path:
        """The folder that `export` filled, in this run or an earlier one.

        Args:
            name: for people who look at the folder.
            key: everything else that the files depend on: weights, options, arguments.
            export: writes files into the folder that it is given.
        """
        digest = self._base.copy()
        for part in (name, *key):
            content = part.encode() if isinstance(part, str) else part
            digest.update(len(content).to_bytes(8, "big") + content)
        entry = self.folder / f"{name}-{digest.hexdigest()[:24]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{entry.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released with the file, also when the worker is killed
            if not entry.is_dir():
                partial = self.folder / f"{entry.name}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                export(partial)
                partial.rename(entry)
                self._remove_old()
        os.utime(entry)
        return entry

    def _remove_old(self) -> None:
        for path in self.folder.iterdir():
            if time.time() - path.stat().st_mtime > _KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def weights_of(network: nn.Module) -> bytes:
    """All parameters and buffers of a network, as a part of a key."""
    state = network.state_dict()
    return b"".join(name.encode() + value.cpu().numpy().tobytes() for name, value in sorted(state.items()))
