"""Averaging two checkpoints through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ufuser.train.__main__ import main
from ufuser.train.checkpoint import read_checkpoint, save_checkpoint
from ufuser.train.models import create


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    paths = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        path = tmp_path / f"{seed}.safetensors"
        save_checkpoint(path, create("ufuser").state_dict(), "ufuser", f"recipe {seed}", {"step": seed})
        paths.append(str(path))
    return paths


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_every_weight_lies_between(two: list[str], tmp_path: Path, share: float) -> None:
    out = tmp_path / "mixed.safetensors"
    assert main(["average", *two, "--share", str(share), "--out", str(out)]) == 0
    (a, _), (b, _), (mixed, metadata) = (read_checkpoint(Path(p)) for p in (*two, str(out)))
    for name in a:
        torch.testing.assert_close(mixed[name], (1 - share) * a[name] + share * b[name])
    assert metadata.recipe == "recipe 2"
    assert metadata.notes["share_of_second"] == share


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--share", "1.5"], "--share 1.5"),
        (["--share", "nan"], "--share nan"),
        (["--out", "mixed.onnx"], "mixed.onnx"),
    ],
)
def test_bad_input(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    out = ["--out", str(tmp_path / "mixed.safetensors")]
    assert main(["average", *two, *out, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "mixed.safetensors").exists()


def test_another_network_is_refused(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.safetensors"
    sensing = create("pseudo_sensing", {"width": 4})
    save_checkpoint(other, sensing.state_dict(), "pseudo_sensing", "", {}, {"width": 4})
    assert main(["average", two[0], str(other), "--out", str(tmp_path / "mixed.safetensors")]) == 2
    assert "pseudo_sensing" in capsys.readouterr().err
