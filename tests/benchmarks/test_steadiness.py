"""Grids and noise that fused video can have, on pictures where they are known; and the command."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from ufuser.benchmarks import video
from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.quality.steadiness import grid_energy, noise_gain

Float = npt.NDArray[np.float32]


def texture(seed: int = 0, size: tuple[int, int] = (160, 192)) -> Float:
    noise = np.random.default_rng(seed).normal(128, 12, size).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.0), np.float32)


@pytest.mark.parametrize("period", [2, 4, 8])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_grid_stands_out_and_only_at_its_period(period: int, axis: int) -> None:
    plain = texture()
    line = 2.0 * np.cos(2 * np.pi * np.arange(plain.shape[axis]) / period)
    lined = plain + (line[:, None] if axis == 0 else line)
    assert abs(grid_energy(plain, period)) < 3
    assert grid_energy(lined, period) > 6
    for other in {2, 4, 8} - {period}:
        assert abs(grid_energy(lined, other)) < 3


def test_grids_of_pictures_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 periods"):
        grid_energy(texture(size=(100, 192)), 8)


@pytest.mark.parametrize(
    ("weights", "gain"), [((0.5, 0.5), 0.707), ((1.0, 0.0), 1.0), ((0.0, 0.0), 0.0), ((0.6, 0.8), 1.0)]
)
def test_noise_gain_of_weighted_sums(weights: tuple[float, float], gain: float) -> None:
    grey = np.full((64, 64), 0.4, np.float32)
    found = noise_gain(lambda ir, vi: weights[0] * ir + weights[1] * vi, grey, grey, 0.02)
    assert found == pytest.approx(gain, abs=0.02)


def test_noise_gain_needs_noise() -> None:
    with pytest.raises(ValueError, match="noise above 0"):
        noise_gain(lambda ir, vi: ir, texture(), texture(), 0.0)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number, name in enumerate(("ir", "vi")):
        scene = np.clip(texture(number, (144, 200)), 0, 255).astype(np.uint8)
        writer = cv2.VideoWriter(
            str(tmp_path / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 144)
        )
        for step in range(4):
            writer.write(cv2.cvtColor(scene[:, 4 * step : 4 * step + 160], cv2.COLOR_GRAY2BGR))
        writer.release()
    return tmp_path


def test_the_command_measures_the_sources_and_each_model(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = clips / "rows.json"
    given = ["video", "--ir", clips / "ir.avi", "--vi", clips / "vi.avi", "--model", "lite", "--frames", 4]
    assert main([*map(str, [*given, "--threads", 1, "--json", out])]) == 0
    rows = json.loads(out.read_text())
    assert list(rows) == ["infrared", "visible", "lite"]
    assert rows["visible"]["flicker"] == 0
    assert 0 < rows["lite"]["noise_gain"] < 2
    assert "noise_gain" not in rows["visible"]
    assert rows["lite"]["coverage_vi"] > 0.5
    assert rows["lite"]["warping_ir"] != rows["lite"]["warping_vi"] > 0
    assert "warping_vi" in capsys.readouterr().out


def test_a_stream_without_flow_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one's is what remains to judge by."""
    vi = [np.clip(texture(3, (144, 160)), 0, 255).astype(np.uint8)] * 2
    ir = [np.full((144, 160), level, np.uint8) for level in (0, 255)]
    real = video.warping_error

    def by(guide: list[video.Grey], fused: list[video.Grey]) -> object:
        if guide is ir:
            raise video.NoFlowError("no pixel")
        return real(guide, fused)

    monkeypatch.setattr(video, "warping_error", by)
    row = video._row(ir, vi, vi)
    assert row["warping_vi"] == 0
    assert "warping_ir" not in row


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--frames": "1"}, "--frames 1: expected at least 2"),
        ({"--model": "nobody"}, "unknown model 'nobody'"),
        ({"--vi": "gone.avi"}, "no file gone.avi"),
        ({"--json": "gone/rows.json"}, "cannot write gone/rows.json"),
    ],
)
def test_bad_input_is_one_line(
    clips: Path, changes: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"--ir": str(clips / "ir.avi"), "--vi": str(clips / "vi.avi"), "--model": "lite"} | changes
    assert main(["video", *(part for item in words.items() for part in item)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
