"""Calibration of simulated cameras, whose mapping is known exactly."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from ufuser.runtime.alignment import Aligner, Calibration, Lens
from ufuser.runtime.board import Jetson
from ufuser.runtime.calibration.board import Board, calibrate_board, plane_homography
from ufuser.runtime.calibration.check import check_picture
from ufuser.runtime.calibration.clicking import ClickBoard, click_points
from ufuser.runtime.calibration.fit import Start, fit
from ufuser.runtime.calibration.grab import GrabRequest, _from_cameras, grab_frames, grab_pairs
from ufuser.runtime.calibration.offset import Recording, find_offset
from ufuser.runtime.calibration.parallax import parallax, table
from ufuser.runtime.calibration.points import read_points
from ufuser.runtime.calibration.refine import left_over, refine
from ufuser.runtime.calibration.search import rough_start
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.pairing import Side
from ufuser.runtime.sources.source import Reading
from ufuser.runtime.thermal import ThermalConfig, ThermalPipeline
from ufuser.simulation import Scene, SimCamera, SimConfig
from ufuser.simulation.geometry import View, seen_by_other

SIZE = (320, 240)
VISIBLE = SimConfig("visible", *SIZE)
ASKEW = SimConfig("thermal", *SIZE, bits=14, fov=40.0, yaw=1.0, pitch=-0.7, roll=1.5, k1=-0.2)
"""A narrower field of view, mounted off, behind a barrel lens: 100 px off at 640x480 if laid on the visible."""


def overlap(vi: View, ir: View) -> tuple[np.ndarray, np.ndarray]:
    """Visible pixels that infrared sees too, and their true places there."""
    width, height = vi.pinhole.width, vi.pinhole.height
    ys, xs = np.mgrid[0:height:4, 0:width:4]
    points = np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)
    truth = seen_by_other(vi, ir, points)
    seen = ((truth >= 0) & (truth <= (ir.pinhole.width - 1, ir.pinhole.height - 1))).all(axis=1)
    return points[seen], truth[seen]


def errors(calibration: Calibration, vi: View, ir: View) -> np.ndarray:
    """Pixels of the infrared picture, over the overlap."""
    points, truth = overlap(vi, ir)
    return np.hypot(*(calibration.to_infrared(points) - truth).T)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(0, *SIZE)


@pytest.fixture(scope="module")
def pairs(scene: Scene) -> list[tuple[np.ndarray, np.ndarray]]:
    ir, vi = SimCamera(ASKEW, scene), SimCamera(VISIBLE, scene)
    tone = ThermalPipeline(ThermalConfig(mode="plateau"))
    return [(tone(Frame(ir.frame(k)[0], k / 25, k, "ir")).image, vi.frame(k)[0]) for k in (0, 75)]


# Points


@pytest.mark.parametrize("lens", ["known", "found"])
def test_points_with_a_pixel_of_click_noise(lens: str) -> None:
    """36 clicks all over the overlap of 640x480 pictures, each one pixel off."""
    vi, ir = (SimConfig(c.kind, 640, 480, fov=c.fov, yaw=c.yaw, pitch=c.pitch, roll=c.roll, k1=c.k1).view()
              for c in (VISIBLE, ASKEW))  # fmt: skip
    points, truth = overlap(vi, ir)
    known = Lens(ir.matrix, ir.distortion) if lens == "known" else None
    off = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        # One in each part of the picture.
        low, span = points.min(axis=0), np.ptp(points, axis=0) + 1
        cells = ((points - low) / span * 6).astype(int) @ (6, 1)
        picks = [rng.choice(np.flatnonzero(cells == c)) for c in range(36) if (cells == c).any()]
        clicked = [p[picks] + rng.normal(0, 1 / math.sqrt(2), (len(picks), 2)) for p in (points, truth)]
        found = fit(Start((640, 480), (640, 480), None, known), *clicked, find_distortion=lens == "found")
        off.append(
            rms(errors(Calibration((640, 480), (640, 480), found.homography, None, found.ir_lens), vi, ir))
        )
    assert max(off) <= 1.5
    assert np.median(off) <= 1.0


def test_exact_points_give_the_exact_mapping() -> None:
    vi, ir = VISIBLE.view(), ASKEW.view()
    points, truth = overlap(vi, ir)
    known = Start(SIZE, SIZE, None, Lens(ir.matrix, ir.distortion))
    found = fit(known, points[::40], truth[::40])
    assert errors(Calibration(SIZE, SIZE, found.homography, None, found.ir_lens), vi, ir).max() < 0.01
    distorted = fit(Start(SIZE, SIZE), points[::40], truth[::40], find_distortion=True)
    assert errors(Calibration(SIZE, SIZE, distorted.homography, None, distorted.ir_lens), vi, ir).max() < 0.05
    straight = fit(Start(SIZE, SIZE), points[::40], truth[::40])
    assert straight.residual.rms > 0.3  # the distortion that is left


def test_a_wrong_click_is_left_out() -> None:
    points, truth = overlap(VISIBLE.view(), ASKEW.view())
    vi, ir = points[::150], truth[::150].copy()
    ir[3] += (40, -25)
    lens = Lens(ASKEW.view().matrix, ASKEW.view().distortion)
    found = fit(Start(SIZE, SIZE, None, lens), vi, ir)
    assert np.flatnonzero(~found.inliers).tolist() == [3]
    assert found.residual.count == len(vi) - 1
    assert found.residual.largest < 0.05


@pytest.mark.parametrize(
    ("board", "remedy"),
    [(None, r'pip install "ufuser\[calibrate\]"'), (Jetson("", ""), "sudo apt install python3-scipy")],
)
def test_without_scipy_the_remedy_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch, board: Jetson | None, remedy: str
) -> None:
    monkeypatch.setattr(Jetson, "find", lambda: board)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    points = np.asarray([[0, 0], [300, 0], [300, 200], [0, 200.0]])
    with pytest.raises(InputError, match=remedy):
        fit(Start(SIZE, SIZE), points, points)


@pytest.mark.parametrize(
    ("count", "line", "lens", "message"),
    [
        (3, False, False, "3 point pairs: expected at least 4"),
        (7, False, True, "7 point pairs: expected at least 8 to find the lens"),
        (12, True, False, "the visible points lie on one line"),
    ],
)
def test_points_that_are_not_enough(count: int, line: bool, lens: bool, message: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 200, (count, 2))
    if line:
        points[:, 1] = 2 * points[:, 0]
    with pytest.raises(InputError, match=message):
        fit(Start(SIZE, SIZE), points, points, find_distortion=lens)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "1,2,3,4\n5,6,7,8\n"),
        ("p.csv", "vi_x,vi_y,ir_x,ir_y\n1,2,3,4\n\n# aside\n5,6,7,8\n"),
        ("p.csv", "\ufeffir_x, ir_y, name, vi_x, vi_y\n3,4,a,1,2\n7,8,b,5,6\n"),
        ("p.json", "[[1, 2, 3, 4], [5, 6, 7, 8]]"),
    ],
)
def test_point_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    vi, ir = read_points(tmp_path / name)
    np.testing.assert_array_equal(vi, [[1, 2], [5, 6]])
    np.testing.assert_array_equal(ir, [[3, 4], [7, 8]])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "1,2,3\n", "is not four numbers"),
        ("p.csv", "1,2,3,x\n", "line 1: .* is not four numbers"),
        ("p.csv", "1,2,3,nan\n", "is not four numbers"),
        ("p.csv", "", "holds no points"),
        ("p.json", "{", "is not JSON"),
        ("p.json", "{}", "expected a list"),
        ("p.json", "[]", "holds no points"),
        ("p.json", "[[1, 2]]", "expected a list of length 4, got 2"),
        ("p.json", f"[[1, 2, 3, {'9' * 400}]]", r": \[0\]\[3\] is 999.*: expected a smaller number"),
        ("p.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_files_without_points(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_points(tmp_path / name)


def test_clicks_become_pixels() -> None:
    """Visible first, then infrared, each in its own picture's pixels; others are ignored; undo takes one back."""
    board = ClickBoard(np.zeros((360, 480), np.uint8), np.zeros((240, 320, 3), np.uint8))
    click = cv2.EVENT_LBUTTONDOWN
    board.on_mouse(click, 1100, 100)  # a visible point comes first
    board.on_mouse(cv2.EVENT_MOUSEMOVE, 100, 100)
    board.on_mouse(click, 30, 60)
    board.on_mouse(click, 40, 60)  # a second visible one
    board.on_mouse(click, 960 + 8 + 20, 40)
    board.on_mouse(click, 300, 300)
    vi, ir = board.points()
    np.testing.assert_allclose(vi, [[30.5 / 3 - 0.5, 60.5 / 3 - 0.5]])
    np.testing.assert_allclose(ir, [[20.5 / 2 - 0.5, 40.5 / 2 - 0.5]])
    assert board.drawn().shape == (720, 960 + 8 + 960, 3)
    assert board.drawn().any()
    board.undo()
    board.undo()
    assert len(board.points()[0]) == 0


def test_clicking_without_a_screen_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(InputError, match=r"no screen to click on .*`points`"):
        click_points(np.zeros((48, 64), np.uint8), np.zeros((48, 64), np.uint8))


# Board


def board_pictures(
    board: Board, vi: Lens, ir: Lens, size: tuple[int, int], negative: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A board held at many angles before two cameras 6 cm apart, drawn through both lenses."""
    scale, margin = 60, 2
    if board.pattern == "chess":
        squares = np.indices((board.rows + 1, board.columns + 1)).sum(axis=0) % 2
        sheet = np.kron(squares, np.ones((scale, scale))) * 200 + 25
    else:
        sheet = np.full((scale * (board.rows + 1), scale * (2 * board.columns + 2)), 225.0)
        for x, y in board.places()[:, :2] / board.spacing:
            centre = (round((x + 1) * scale), round((y + 1) * scale))
            cv2.circle(sheet, centre, scale // 2 - 6, 25, -1, cv2.LINE_AA)
    sheet = np.pad(sheet, margin * scale, constant_values=225).astype(np.float32)
    origin = (margin + 1) * scale - (0.5 if board.pattern == "chess" else 0.0)
    rotation = cv2.Rodrigues(np.radians([0.5, -1.0, 0.8]))[0]
    translation = np.asarray([-0.06, 0.002, 0.001])
    rng = np.random.default_rng(1)
    for _ in range(9):
        tilt = cv2.Rodrigues(rng.uniform(-0.45, 0.45, 3))[0]
        centre = board.places().mean(axis=0)
        place = np.asarray([*rng.uniform(-0.1, 0.1, 2), rng.uniform(0.65, 0.8)]) - tilt @ centre
        pictures = []
        for lens, r, t in ((ir, rotation, translation), (vi, np.eye(3), np.zeros(3))):
            ys, xs = np.mgrid[0 : size[1], 0 : size[0]]
            pixels = np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)
            ideal = cv2.undistortPoints(pixels.reshape(-1, 1, 2), lens.matrix, lens.distortion).reshape(-1, 2)
            # Rays meet the board's plane: board -> camera is one 3x3 matrix on (x, y, 1) of the board.
            flat = np.column_stack([(r @ tilt)[:, :2], r @ place + t])
            on_board = np.column_stack([ideal, np.ones(len(ideal))]) @ np.linalg.inv(flat).T
            at = (on_board[:, :2] / on_board[:, 2:] / board.spacing * scale + origin).astype(np.float32)
            seen = cv2.remap(
                sheet,
                at[:, 0].reshape(ys.shape),
                at[:, 1].reshape(ys.shape),
                cv2.INTER_LINEAR,
                borderValue=120,
            )
            pictures.append(cv2.GaussianBlur(seen, (0, 0), 0.7) + rng.normal(0, 2, seen.shape))
        first, second = (np.clip(p, 0, 255).astype(np.uint8) for p in pictures)
        yield (255 - first if negative else first), second


@pytest.mark.parametrize(("pattern", "negative"), [("chess", False), ("chess", True), ("circles", False)])
def test_a_board_gives_lenses_and_homography(pattern: str, negative: bool) -> None:
    board = Board(8, 5, 0.04, "chess") if pattern == "chess" else Board(4, 7, 0.03, "circles")
    size = (640, 480)
    vi = Lens(np.asarray([[620.0, 0, 325], [0, 620, 236], [0, 0, 1]]), np.asarray([-0.08, 0.02, 0, 0, 0]))
    ir = Lens(np.asarray([[700.0, 0, 316], [0, 702, 243], [0, 0, 1]]), np.asarray([-0.22, 0.05, 0, 0, 0]))
    pictures = list(board_pictures(board, vi, ir, size, negative))
    found = calibrate_board(pictures, board, distance=10.0)
    assert found.used >= 7
    assert found.calibration.residual is not None
    assert found.calibration.residual.rms < 0.5
    assert found.calibration.baseline_m == pytest.approx(0.06, abs=0.004)
    assert found.calibration.ir_lens is not None
    assert found.calibration.ir_lens.matrix[0, 0] == pytest.approx(700, rel=0.02)
    rotation = cv2.Rodrigues(np.radians([0.5, -1.0, 0.8]))[0]
    true = plane_homography(vi.matrix, ir.matrix, rotation, np.asarray([-0.06, 0.002, 0.001]), 10.0)
    truth = Calibration(size, size, true, vi, ir)
    ys, xs = np.mgrid[60:420:20, 80:560:20]
    points = np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)
    apart = np.hypot(*(found.calibration.to_infrared(points) - truth.to_infrared(points)).T)
    assert rms(apart) < 1.5


def test_a_board_that_is_not_there() -> None:
    blank = np.full((240, 320), 90, np.uint8)
    with pytest.raises(InputError, match=r"a 8x5 chess board is in 0 of 6 pairs .*: expected at least 5"):
        calibrate_board([(blank, blank)] * 6, Board(8, 5, 0.04))


def test_a_board_of_too_few_corners() -> None:
    with pytest.raises(InputError, match=r"board='2x5': expected 3 to 50"):
        Board(2, 5, 0.04)


# Refining


def test_refine_from_nothing_reaches_a_pixel(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Both pictures centred on each other, more than 25 px off, with an unknown lens."""
    vi, ir = VISIBLE.view(), ASKEW.view()
    start = rough_start(SIZE, SIZE)
    assert rms(errors(start, vi, ir)) > 25
    found = refine(pairs, start)
    assert rms(errors(found.calibration, vi, ir)) <= 1.0
    assert found.agreement > 0.2
    assert found.calibration.method == "refine"
    assert found.calibration.residual is not None
    assert found.calibration.residual.rms < 1.0


def test_refine_from_a_calibration_that_has_slipped(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """The lens is known and the mount was moved a little: no search."""
    vi, ir = VISIBLE.view(), ASKEW.view()
    points, truth = overlap(vi, ir)
    lens = Lens(ir.matrix, ir.distortion)
    true = fit(Start(SIZE, SIZE, None, lens), points[::30], truth[::30])
    knocked = np.asarray([[1.01, 0.015, 4], [-0.015, 1.01, -5], [0, 0, 1.0]])
    start = Calibration(SIZE, SIZE, true.homography @ knocked, None, lens)
    assert rms(errors(start, vi, ir)) > 4
    found = refine(pairs, start, find_distortion=False, search=False)
    assert rms(errors(found.calibration, vi, ir)) <= 1.0
    np.testing.assert_array_equal(found.calibration.ir_lens.distortion, lens.distortion)  # type: ignore[union-attr]


def test_check_distinguishes_a_good_calibration_from_a_shifted_one(
    pairs: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    points, truth = overlap(VISIBLE.view(), ASKEW.view())
    lens = Lens(ASKEW.view().matrix, ASKEW.view().distortion)
    good = Calibration(
        SIZE, SIZE, fit(Start(SIZE, SIZE, None, lens), points[::30], truth[::30]).homography, None, lens
    )
    shifted = Calibration(
        SIZE, SIZE, good.homography @ np.asarray([[1, 0, 3], [0, 1, 0], [0, 0, 1.0]]), None, lens
    )
    near, agrees = left_over(pairs, good)
    far, _ = left_over(pairs, shifted)
    assert near.median < 0.7
    assert far.median > 2.5
    assert agrees > 0.2
    picture = check_picture(*pairs[0], good, "caption")
    assert picture.ndim == 3
    # The orange of the edges is drawn, and the right panel alone has it.
    ink = (np.abs(picture.astype(int) - (60, 90, 255)).sum(axis=2) < 60).nonzero()[1]
    assert len(ink) > 300
    assert ink.min() > picture.shape[1] // 2


def test_pictures_of_different_scenes_are_refused() -> None:
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.integers(0, 255, (120, 160), np.uint8), (0, 0), 1.5) for _ in range(2)]
    with pytest.raises(InputError, match=r"agree by 0\.\d\d only: expected the same scene"):
        refine(
            [(noise[0], noise[1])], rough_start((160, 120), (160, 120)), find_distortion=False, search=False
        )


def test_all_pictures_must_have_one_size(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    with pytest.raises(InputError, match="infrared picture of 64x48, expected 320x240"):
        refine([pairs[0], (np.zeros((48, 64), np.uint8), pairs[1][1])], rough_start(SIZE, SIZE))


def test_fields_of_view_give_a_start() -> None:
    start = rough_start((640, 480), (320, 256), vi_fov=60.0, ir_fov=30.0)
    middle = start.to_infrared(np.asarray([[319.5, 239.5]]))
    np.testing.assert_allclose(middle, [[159.5, 127.5]])
    wider = start.to_infrared(np.asarray([[319.5 + 10, 239.5]]))
    assert wider[0, 0] - 159.5 == pytest.approx(
        10 * 0.5 * math.tan(math.radians(30)) / math.tan(math.radians(15))
    )


# Inputs


def test_a_still_scene_in_a_video_gives_all_pairs(tmp_path: Path) -> None:
    """Behind a codec its frames are identical: that is no flat-field correction."""
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for name in ("ir", "vi"):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        for _ in range(20):
            writer.write(image)
        writer.release()
    ir, vi = (str(tmp_path / f"{name}.avi") for name in ("ir", "vi"))
    assert len(grab_pairs(ir, vi, GrabRequest(4, 1.0))) == 4
    recording = Recording("ir")
    for side, frame, repeats in grab_frames(ir, vi, 1.5):
        if side == "ir":
            recording.push(frame, repeats)
    assert len(recording.stamps) == 16


class _Broken:
    """Two cameras whose driver fails."""

    live, repeats, clock = True, True, Clock()

    def name(self, side: Side) -> str:
        return f"v4l2:///dev/{side}"

    def open(self, side: Side) -> _Broken:
        return self

    def read(self, timeout: float) -> Reading:
        raise RuntimeError("the driver has crashed")

    def check(self) -> None: ...

    start = close = check


def test_any_exception_of_a_camera_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^v4l2:///dev/(ir|vi): RuntimeError: the driver has crashed$"):
        list(_from_cameras(cast(Any, _Broken()), 1.0))


# Time


def recorded(
    config: SimConfig, side: Side, seconds: float, scene: Scene, aligner: Aligner | None = None
) -> Recording:
    camera, recording = SimCamera(config, scene), Recording(side, aligner, SIZE)
    for index in camera.indices():
        if camera.timing.exposed(index) > seconds:
            return recording
        image, stamp = camera.frame(index)
        recording.push(Frame(image, stamp, index, "sim"))
    return recording


@pytest.fixture(scope="module")
def visible(scene: Scene) -> Recording:
    return recorded(SimConfig("visible", *SIZE), "vi", 9.0, scene)


@pytest.mark.parametrize(
    "thermal",
    [
        SimConfig("thermal", *SIZE, fps=30.0, bits=14, offset_ms=-113.0, ffc=4.0, drop=0.03),
        SimConfig("thermal", *SIZE, fps=9.0, bits=14, offset_ms=260.0),
    ],
    ids=["30 fps, freezes and drops", "9 fps"],
)
def test_offset_is_found_to_ten_milliseconds(thermal: SimConfig, visible: Recording, scene: Scene) -> None:
    found = find_offset(recorded(thermal, "ir", 9.0, scene), visible)
    assert found.seconds * 1000 == pytest.approx(thermal.offset_ms, abs=10.0)
    assert found.uncertainty < 0.02
    assert found.agreement > 0.06


def test_offset_of_an_askew_camera_by_its_calibration(visible: Recording, scene: Scene) -> None:
    points, truth = overlap(VISIBLE.view(), ASKEW.view())
    lens = Lens(ASKEW.view().matrix, ASKEW.view().distortion)
    calibration = Calibration(
        SIZE, SIZE, fit(Start(SIZE, SIZE, None, lens), points[::30], truth[::30]).homography, None, lens
    )
    thermal = SimConfig(
        "thermal", *SIZE, bits=14, fov=40.0, yaw=1.0, pitch=-0.7, roll=1.5, k1=-0.2, offset_ms=80.0
    )
    found = find_offset(recorded(thermal, "ir", 9.0, scene, Aligner(calibration)), visible)
    assert found.seconds * 1000 == pytest.approx(80.0, abs=10.0)


def test_a_still_scene_gives_no_offset() -> None:
    rng = np.random.default_rng(0)
    sides = []
    for side in ("ir", "vi"):
        recording = Recording(side)
        for k in range(150):
            recording.push(Frame(rng.normal(100, 2, (120, 160)).astype(np.uint8), k / 25, k, "still"))
        sides.append(recording)
    with pytest.raises(
        InputError, match=r"agrees by -?0\.\d\d only: expected a recording of about ten seconds"
    ):
        find_offset(*sides)


def test_recordings_of_other_times_are_refused(visible: Recording, scene: Scene) -> None:
    later = recorded(SimConfig("thermal", *SIZE, offset_ms=20_000.0), "ir", 4.0, scene)
    with pytest.raises(InputError, match=r"have 0\.0 s in common"):
        find_offset(later, visible)


def test_too_few_frames_are_refused(visible: Recording) -> None:
    with pytest.raises(InputError, match="0 different frames"):
        find_offset(Recording("ir"), visible)


# Parallax


def test_parallax_of_the_example() -> None:
    """640 px, 50 degrees, 6 cm, meeting at 10 m: 4.1 px at 5 m."""
    focal = 320 / math.tan(math.radians(25))
    assert parallax(focal, 0.06, 5.0, 10.0) == pytest.approx(4.1, abs=0.05)
    assert parallax(focal, 0.06, 10.0, 10.0) == 0
    lines = table(focal, 0.06, 10.0).splitlines()
    assert len(lines) == 2
    assert lines[0].split()[1::2][-1] == "100"
    place = lines[0].index(" 5 m")
    assert lines[1][place - 2 : place + 5].split()[0].startswith("4.1")
