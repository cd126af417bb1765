"""`ufuser bench calibration`: registered pictures moved by a known homography."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from ufuser.benchmarks.__main__ import main
from ufuser.simulation import Scene, SimCamera, SimConfig


def test_pairs_are_moved_and_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = Scene(0, 320, 240)
    for side, kind in (("ir", "thermal"), ("vi", "visible")):
        (tmp_path / side).mkdir()
        image = SimCamera(SimConfig(kind, 320, 240), scene).frame(0)[0]
        assert cv2.imwrite(str(tmp_path / side / "a.png"), image)
    out = tmp_path / "f.json"
    folders = ["--ir", str(tmp_path / "ir"), "--vi", str(tmp_path / "vi")]
    assert main(["calibration", "pairs", *folders, "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    (row,) = figures["rows"]
    assert row["before"] > 2
    # The simulated pair is registered exactly, so both yardsticks agree.
    assert row["after"] < 1
    assert row["beside_unmoved"] < 1
    assert (figures["refused"], figures["lost"]) == (0, 0)
    assert "0 of 1 refused" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["pairs"], ["offset", "--ir", "x.mp4"], ["sim", "--count", "0"]])
def test_bad_input(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibration", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
