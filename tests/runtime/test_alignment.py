"""The calibration file, its mapping, and the warp."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufuser.runtime.alignment import Aligner, Calibration, Lens, Residual
from ufuser.runtime.errors import InputError
from ufuser.runtime.opencv import silence
from ufuser.simulation import Scene, SimCamera, SimConfig
from ufuser.simulation.geometry import View, seen_by_other

SIZE = (320, 240)
ASKEW = "sim://thermal?size=320x240&fov=40&yaw=1&pitch=-0.7&roll=1.5&k1=-0.2"
PLAIN = "sim://visible?size=320x240"

FIRST_RELEASE = """\
{"format": "ufuser-calibration", "version": 1, "method": "board", "vi_size": [640, 480], "ir_size": [320, 256],
 "homography": [[0.5, 0, 1], [0.001, 0.52, -2.5], [0, 1e-05, 1]],
 "vi_lens": {"matrix": [[620, 0, 319.5], [0, 620, 239.5], [0, 0, 1]], "distortion": [-0.1, 0.02, 0, 0, 0]},
 "ir_lens": null, "residual_px": {"rms": 0.4, "median": 0.3, "largest": 1.2, "count": 40},
 "distance_m": 5, "baseline_m": 0.06, "offset_ms": -12.5}"""


def grid(size: tuple[int, int], step: int = 5) -> np.ndarray:
    ys, xs = np.mgrid[0 : size[1] : step, 0 : size[0] : step]
    return np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)


def known(vi: View, ir: View) -> Calibration:
    """The calibration of two simulated views, from how they are built."""
    homography = ir.matrix @ ir.rotation @ vi.rotation.T @ np.linalg.inv(vi.matrix)
    sizes = [(v.pinhole.width, v.pinhole.height) for v in (vi, ir)]
    lenses = [Lens(v.matrix, v.distortion) if v.k1 else None for v in (vi, ir)]
    return Calibration(sizes[0], sizes[1], homography / homography[2, 2], *lenses)


@pytest.fixture
def calibration() -> Calibration:
    pair = known(SimConfig.from_uri(PLAIN).view(), SimConfig.from_uri(ASKEW).view())
    return replace(
        pair, residual=Residual(0.4, 0.3, 1.2, 40), distance_m=20.0, baseline_m=0.06, offset_s=0.012
    )


# Geometry


@pytest.mark.parametrize(
    ("vi_uri", "ir_uri"),
    [
        (PLAIN, ASKEW),
        ("sim://visible?size=320x240&k1=-0.1&roll=2", ASKEW),
        ("sim://visible?size=640x480&k1=0.05", "sim://thermal?size=320x256&fov=45&k1=-0.3"),
    ],
)
def test_both_lenses_and_the_homography_give_the_true_place(vi_uri: str, ir_uri: str) -> None:
    vi, ir = SimConfig.from_uri(vi_uri).view(), SimConfig.from_uri(ir_uri).view()
    pair = known(vi, ir)
    points = grid(pair.vi_size)
    truth = seen_by_other(vi, ir, points)
    seen = ((truth >= 0) & (truth <= np.asarray(pair.ir_size) - 1)).all(axis=1)
    assert seen.sum() > 500
    np.testing.assert_allclose(pair.to_infrared(points[seen]), truth[seen], atol=0.02)


def test_a_simulated_pair_is_registered_by_its_calibration(calibration: Calibration) -> None:
    """Infrared of the askew camera, warped, is what a camera at the visible's place would have seen."""
    scene = Scene(0, *SIZE)
    askew = SimCamera(SimConfig.from_uri(ASKEW), scene).frame(30)[0]
    straight = SimCamera(SimConfig("thermal", *SIZE), scene).frame(30)[0].astype(float)
    aligner = Aligner(calibration)
    seen = cv2.erode(aligner.seen(SIZE, SIZE).astype(np.uint8), np.ones((9, 9))) > 0
    apart = np.abs(aligner.warp(askew, SIZE).astype(float) - straight)[seen].mean()
    unaligned = np.abs(askew.astype(float) - straight)[seen].mean()
    assert 0.3 < seen.mean() < 0.8
    assert apart < 3
    assert apart < unaligned / 5


def test_identity_warps_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 64), np.uint8)
    aligner = Aligner(Calibration((64, 48), (64, 48), np.eye(3)))
    np.testing.assert_array_equal(aligner.warp(image, (64, 48)), image)
    assert aligner.seen((64, 48), (64, 48)).all()


def test_pixels_outside_infrared_are_black_or_the_background() -> None:
    shifted = np.eye(3)
    shifted[0, 2] = -16
    aligner = Aligner(Calibration((64, 48), (64, 48), shifted))
    image = np.full((48, 64), 200, np.uint8)
    background = np.full((48, 64), 90, np.uint8)
    plain, filled = aligner.warp(image, (64, 48)), aligner.warp(image, (64, 48), background)
    assert set(np.unique(plain[:, :16])) == {0}
    assert set(np.unique(filled[:, :16])) == {90}
    assert (filled[:, 16:] == 200).all()
    assert (background == 90).all()


def test_a_distorted_lens_shows_nothing_twice() -> None:
    """Beyond its valid radius a barrel distortion folds back into the picture, which must not be shown."""
    focal = 100.0
    lens = Lens(np.asarray([[focal, 0, 31.5], [0, focal, 23.5], [0, 0, 1]]), np.asarray([-0.4, 0, 0, 0, 0]))
    assert lens.valid_radius == pytest.approx((1 / 1.2) ** 0.5)
    wide = np.diag([5.0, 5.0, 1.0]) @ np.asarray([[1, 0, -31.5], [0, 1, -23.5], [0, 0, 1.0]])
    wide = np.asarray([[1, 0, 31.5], [0, 1, 23.5], [0, 0, 1.0]]) @ wide
    places = Calibration((64, 48), (64, 48), wide, None, lens).to_infrared(
        np.asarray([[31.5, 23.5], [60.0, 23.5]])
    )
    np.testing.assert_allclose(places[0], (31.5, 23.5))
    assert (places[1] < -1000).all()


def test_maps_are_computed_once_a_size(calibration: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    from ufuser.runtime import alignment

    calls: list[Calibration] = []
    real = alignment.warp_map
    monkeypatch.setattr(alignment, "warp_map", lambda c: calls.append(c) or real(c))
    aligner = Aligner(calibration)
    image = np.zeros((240, 320), np.uint8)
    for _ in range(5):
        aligner.warp(image, SIZE)
    assert len(calls) == 1
    aligner.warp(image, (640, 480))
    assert len(calls) == 2


# Versions of OpenCV


@pytest.mark.skipif(hasattr(cv2, "undistortPointsIter"), reason="this OpenCV has the function")
def test_undistortion_before_opencv_5(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the criteria belong to a function of its own."""
    lens = Lens(np.asarray([[70.0, 0, 32], [0, 70, 24], [0, 0, 1]]), np.asarray([-0.3, 0.1, 0, 0, 0]))
    corners = np.asarray([[0.0, 0], [63, 47]])
    expected = lens.undistorted(corners)
    np.testing.assert_allclose(lens.distorted(expected), corners, atol=1e-9)
    real = cv2.undistortPoints
    monkeypatch.setattr(cv2, "undistortPoints", None)
    monkeypatch.setattr(
        cv2,
        "undistortPointsIter",
        lambda p, m, d, r, to, c: real(p, m, d, R=r, P=to, criteria=c),
        raising=False,
    )
    np.testing.assert_array_equal(lens.undistorted(corners), expected)


def test_silence_before_opencv_4_13(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []
    monkeypatch.setattr(cv2, "utils", None)
    monkeypatch.setattr(cv2, "setLogLevel", levels.append, raising=False)
    silence()
    assert levels == [0]


# Other resolutions


@pytest.mark.parametrize("vi_size", [(640, 480), (160, 120), (1280, 960)])
@pytest.mark.parametrize("ir_size", [(320, 240), (640, 480)])
def test_scaling_keeps_places(
    calibration: Calibration, vi_size: tuple[int, int], ir_size: tuple[int, int]
) -> None:
    """The same camera at another resolution sees the same place at the same share of its picture."""
    scaled = calibration.scaled(vi_size, ir_size)
    points = grid(SIZE, 40)
    there = (points + 0.5) * np.divide(vi_size, SIZE) - 0.5
    expected = (calibration.to_infrared(points) + 0.5) * np.divide(ir_size, SIZE) - 0.5
    seen = (calibration.to_infrared(points) > 0).all(axis=1)
    np.testing.assert_allclose(scaled.to_infrared(there)[seen], expected[seen], atol=1e-6)


@pytest.mark.parametrize(
    ("vi_size", "ir_size", "message"),
    [
        (
            (640, 512),
            (320, 240),
            "visible is 640x512, but was calibrated at 320x240: expected the same aspect",
        ),
        (
            (320, 240),
            (320, 256),
            "infrared is 320x256, but was calibrated at 320x240: expected the same aspect",
        ),
    ],
)
def test_another_aspect_is_refused(
    calibration: Calibration, vi_size: tuple[int, int], ir_size: tuple[int, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        calibration.scaled(vi_size, ir_size)
    with pytest.raises(InputError, match=message):
        Aligner(calibration).warp(np.zeros(ir_size[::-1], np.uint8), vi_size)


def test_rounded_sizes_count_as_the_same_aspect() -> None:
    Calibration((1920, 1080), (160, 120), np.eye(3)).scaled((854, 480), (161, 120))


# The file


def test_a_file_keeps_everything(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    calibration.save(path)
    again = Calibration.load(path)
    points = grid(SIZE)
    np.testing.assert_array_equal(again.to_infrared(points), calibration.to_infrared(points))
    for name in ("vi_size", "ir_size", "method", "residual", "distance_m", "baseline_m", "offset_s"):
        assert getattr(again, name) == getattr(calibration, name)
    data = json.loads(path.read_text())
    assert data["version"] == 1
    assert data["offset_ms"] == pytest.approx(12.0)
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]


def test_a_bare_file_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    Calibration((640, 480), (320, 240), np.diag([0.5, 0.5, 1.0])).save(path)
    bare = Calibration.load(path)
    assert (bare.vi_lens, bare.ir_lens, bare.residual, bare.distance_m, bare.offset_s) == (None,) * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is not a calibration"),
        ({"version": 2}, "has version 2 of the format, expected 1"),
        ({"version": None}, "has version None"),
        ({"homography": [[1, 0], [0, 1]]}, "homography.* expected a list of length 3, got 2"),
        ({"homography": [[1, 0, 0], [0, -1, 0], [0, 0, 1]]}, "mirrors or flattens"),
        ({"homography": [[0, 0, 0], [0, 0, 0], [0, 0, 1]]}, "mirrors or flattens"),
        ({"homography": [[1, 0, 0], [0, 1, 0], [0, 0, 0]]}, "mirrors or flattens"),
        (
            {"homography": [[10**400, 0, 0], [0, 1, 0], [0, 0, 1]]},
            r"homography\[0\]\[0\] is 1000.*: expected a smaller number",
        ),
        ({"vi_size": [0, 480]}, r"vi_size\[0\] is 0: expected a whole number >= 1"),
        ({"vi_size": "640x480"}, "vi_size is '640x480': expected a list"),
        ({"ir_lens": {"matrix": [[1, 0, 0]] * 3}}, "the key 'ir_lens.distortion' is missing"),
        ({"ir_lens": 5}, "ir_lens is 5: expected a table"),
        ({"ir_lens": {"matrix": [[0, 0, 0]] * 3, "distortion": [0] * 5}}, "not a camera matrix"),
        ({"residual_px": {"rms": 1}}, "the key 'residual_px.median' is missing"),
        ({"distance_m": "far"}, "distance_m is 'far': expected a number"),
        ({"distance": 5}, "unknown key 'distance' .did you mean 'distance_m'"),
        ({"offset_ms": float("inf")}, "is not JSON"),
    ],
)
def test_damaged_files(
    calibration: Calibration, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**calibration.as_json(), **change}))
    with pytest.raises(InputError, match=message) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a calibration"),
    ],
)
def test_files_that_are_not_calibrations(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "c.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Calibration.load(path)


def test_a_file_of_the_first_release_still_loads(tmp_path: Path) -> None:
    """Written before the file was checked by structs: numbers without a fraction, lenses of `board`."""
    (tmp_path / "c.json").write_text(FIRST_RELEASE)
    calibration = Calibration.load(tmp_path / "c.json")
    assert (calibration.method, calibration.distance_m, calibration.offset_s) == ("board", 5.0, -0.0125)
    assert calibration.vi_lens is not None
    assert calibration.residual == Residual(0.4, 0.3, 1.2, 40)


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=4)
    )
)
def test_no_field_can_crash_the_loader(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "c.json"
    whole = Calibration((64, 48), (64, 48), np.eye(3)).as_json()
    for name in whole:
        path.write_text(json.dumps({**whole, name: value}))
        with contextlib.suppress(InputError):
            Calibration.load(path)


@pytest.mark.parametrize(
    "distortion", [(-0.2, 5e-324, 0, 0, 0), (-0.2, 0, 0, 0, 5e-324), (0, 1e-310, 0, 0, -1e-310)]
)
def test_a_coefficient_that_is_almost_zero_is_zero(distortion: tuple[float, ...]) -> None:
    matrix = np.asarray([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])
    rounded = tuple(c if abs(c) > 1e-300 else 0.0 for c in distortion)
    found, expected = (Lens(matrix, np.asarray(d, np.float64)).valid_radius for d in (distortion, rounded))
    assert found == pytest.approx(expected)


def test_no_pixels_are_undistorted_to_no_pixels() -> None:
    lens = Lens(np.asarray([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]]), np.asarray([-0.2, 0.05, 0, 0, 0]))
    assert lens.undistorted(np.empty((0, 2))).shape == (0, 2)
