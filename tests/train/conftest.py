"""What the tests of training share: the reference files, generated pairs, a tiny recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

RECIPE = """
name = "tiny"
model = "ufuser"
seed = 3
validate_every = 2

[data]
validation = "validation.txt"
crop = 16
gamma = [0.6, 1.7]
gain = [0.6, 1.3]
noise = 0.02
invert = 0.5

[optim]
steps = 6
batch = 2
warmup = 2
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from a second thread, and the command line may change the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def reference() -> Path:
    """Parity vectors and release layouts, handed out beside the checkout."""
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip(f"reference files are not beside this checkout ({folder.name}/ in {SHARED.name}/)")
    return folder


@pytest.fixture
def write_pairs() -> Callable[..., Path]:
    """write_pairs(root, {"name": (height, width), …}) → root with textured ir/NAME.png and vi/NAME.png."""

    def write(root: Path, sizes: dict[str, tuple[int, int]]) -> Path:
        rng = np.random.default_rng(0)
        for side in ("ir", "vi"):
            (root / side).mkdir(parents=True, exist_ok=True)
            for name, size in sizes.items():
                image = rng.integers(0, 256, size, dtype=np.uint8)
                assert cv2.imwrite(str(root / side / f"{name}.png"), image)
        return root

    return write


@pytest.fixture
def project(tmp_path: Path, write_pairs: Callable[..., Path]) -> Path:
    """A folder with data/ (four pairs) and tiny.toml, which keeps the pair `d` for validation."""
    write_pairs(tmp_path / "data", {"a": (24, 32), "b": (40, 36), "c": (33, 21), "d": (43, 50)})
    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "validation.txt").write_text("d\n", encoding="utf-8")
    return tmp_path
