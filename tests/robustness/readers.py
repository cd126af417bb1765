"""The table of readers."""

from __future__ import annotations

from pathlib import Path

from tests.robustness import http_requests, networks, pictures, texts
from tests.robustness.reader import Reader, Seed

READERS: dict[str, Reader] = {
    reader.name: reader for module in (pictures, networks, texts, http_requests) for reader in module.READERS
}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "cases"
"""Inputs that broke the first version, beside the checkout where they are kept."""
_OF = {
    "options": ("bigint*.toml", "nul*.toml", "nested.toml"),
    "recipes": ("recipe*.toml",),
    "calibrations": ("cal_*.json",),
    "points": ("pts_*.json",),
    "results": ("latin1.json", "nested_results.json"),
    "reports": ("latin1.json", "nested_results.json"),
    "releases": ("*.pth",),
    "videos": ("*.avi",),
    "models": ("*.onnx",),
}


def seeds_of(reader: Reader, folder: Path) -> list[Seed]:
    """The reader's own seeds, then those that are kept beside the checkout."""
    kept = [path for pattern in _OF.get(reader.name, ()) for path in sorted(SHARED.glob(pattern))]
    return [*reader.seeds(folder), *(Seed(path.name, path.read_bytes()) for path in kept)]
