"""`ufuser calibrate`: files and messages of each method, and bad input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ufuser.runtime.alignment import Calibration, Lens
from ufuser.runtime.calibration.fit import Start, fit
from ufuser.runtime.calibration.offset import TimeOffset
from ufuser.simulation import Scene, SimCamera, SimConfig
from ufuser.simulation.geometry import seen_by_other

Command = Callable[..., Any]
SIZE, SIZES = (320, 240), ("--vi-size", "320x240", "--ir-size", "320x240")
IR = SimConfig("thermal", *SIZE, bits=14, fov=40.0, yaw=1.0, pitch=-0.7, roll=1.5, k1=-0.2)
VI = SimConfig("visible", *SIZE)
FIELDS = {
    "format", "version", "method", "vi_size", "ir_size", "homography", "vi_lens", "ir_lens", "residual_px",
    "distance_m", "baseline_m", "offset_ms",
}  # fmt: skip


def truth() -> tuple[np.ndarray, np.ndarray]:
    """Visible pixels that infrared sees too, and where."""
    ys, xs = np.mgrid[0:240:20, 0:320:20]
    points = np.column_stack([xs.ravel(), ys.ravel()]).astype(np.float64)
    places = seen_by_other(VI.view(), IR.view(), points)
    seen = ((places >= 0) & (places <= np.asarray(SIZE) - 1)).all(axis=1)
    return points[seen], places[seen]


def off(calibration: Calibration) -> float:
    """Root mean square error over the overlap, pixels of the infrared picture."""
    points, places = truth()
    return float(np.sqrt(((calibration.to_infrared(points) - places) ** 2).sum(axis=1).mean()))


def true_calibration() -> Calibration:
    lens = Lens(IR.view().matrix, IR.view().distortion)
    homography = fit(Start(SIZE, SIZE, None, lens), *truth()).homography
    return Calibration(SIZE, SIZE, homography, None, lens, distance_m=30.0, baseline_m=0.08, offset_s=0.012)


def board(count: int, tilt: float = 0.45, square: int = 30) -> list[tuple[np.ndarray, np.ndarray]]:
    """A 6x4 chessboard of 4 cm squares before two cameras 6 cm apart, the infrared one seeing its negative."""
    squares = np.kron(np.indices((5, 7)).sum(axis=0) % 2, np.ones((square, square))) * 200 + 25
    sheet = np.pad(squares.astype(np.uint8), square, constant_values=225)
    metres = np.asarray([[1, 0, -sheet.shape[1] / 2], [0, 1, -sheet.shape[0] / 2], [0, 0, square / 0.04]])
    focal = np.asarray([[310.0, 0, 160], [0, 310, 120], [0, 0, 1]])
    rng, pairs = np.random.default_rng(1), []
    for _ in range(count):
        rotation = cv2.Rodrigues(rng.uniform(-tilt, tilt, 3))[0]
        place = np.asarray([0, 0, 0.55]) + rng.uniform(-0.05, 0.05, 3)
        seen = []
        for translation in ((-0.06, 0, 0), (0, 0, 0)):
            to_pixels = focal @ np.column_stack([rotation[:, :2], place + translation]) @ metres
            flat = cv2.warpPerspective(sheet, to_pixels, SIZE, flags=cv2.INTER_AREA, borderValue=120)
            seen.append(cv2.GaussianBlur(flat, (0, 0), 0.7))
        pairs.append((np.asarray(255 - seen[0], np.uint8), np.asarray(seen[1], np.uint8)))
    return pairs


def write(folder: Path, pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for side, pictures in zip(("ir", "vi"), zip(*pairs, strict=True), strict=True):
        (folder / side).mkdir(exist_ok=True)
        for number, picture in enumerate(pictures):
            assert cv2.imwrite(str(folder / side / f"{number}.png"), picture)


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """14-bit infrared and visible of one moment."""
    scene = Scene(0, *SIZE)
    return SimCamera(IR, scene).frame(0)[0], SimCamera(VI, scene).frame(0)[0]


@pytest.fixture
def street(tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]) -> Path:
    """`ir/0.png`, `vi/0.png`, their `true.json` and six clicks in `clicks.csv`."""
    write(tmp_path, [pair])
    true_calibration().save(tmp_path / "true.json")
    rows = np.hstack([each[:: len(each) // 9] for each in truth()])
    lines = [",".join(f"{value:.4f}" for value in row) for row in rows]
    (tmp_path / "clicks.csv").write_text("\n".join(["vi_x,vi_y,ir_x,ir_y", *lines]))
    return tmp_path


def whole(path: Path, method: str) -> Calibration:
    """The file read again, once it holds what it must."""
    data = json.loads(path.read_text())
    assert set(data) == FIELDS
    assert (data["format"], data["version"], data["method"]) == ("ufuser-calibration", 1, method)
    assert (data["vi_size"], data["ir_size"]) == ([320, 240], [320, 240])
    calibration = Calibration.load(path)
    assert calibration.homography.tolist() == data["homography"]
    return calibration


# Results of each method


def test_points(street: Path, quick_command: Command) -> None:
    words = ("--lens", "--distance", 30, "--baseline", 0.08, "--vi-fov", 53)
    done = quick_command("calibrate", "points", "--points", "clicks.csv", *SIZES, *words, "--out", "c.json")
    assert (done.returncode, done.stderr) == (0, "")
    calibration = whole(street / "c.json", "points")
    assert off(calibration) < 0.1
    assert calibration.residual is not None
    assert (calibration.residual.count, calibration.distance_m, calibration.baseline_m) == (10, 30.0, 0.08)
    assert calibration.ir_lens is not None
    said = done.stdout.splitlines()
    assert said[0].startswith("visible 320x240, infrared 320x240: residual 0.0")
    assert said[0].endswith("-> c.json")
    # 160 / tan(26.5 degrees) * 0.08 m * (1/5 - 1/30): nothing is assumed, so nothing is said to be.
    assert said[-3] == "parallax with both pictures meeting at 30 m:"
    cells = dict(zip(said[-2].split()[1::2], said[-1].split()[1::2], strict=True))
    assert (cells["5"], cells["30"]) == ("4.3", "0.0")


def test_points_by_pictures_and_lenses_known_before(street: Path, quick_command: Command) -> None:
    """Sizes are the pictures'; the lens, the baseline and the offset are of the first calibration."""
    done = quick_command(
        *("calibrate", "points", "--points", "clicks.csv", "--ir", "ir/0.png", "--vi", "vi/0.png"),
        *("--start", "true.json", "--out", "c.json", "--json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    calibration = whole(street / "c.json", "points")
    assert off(calibration) < 0.05
    assert (calibration.baseline_m, calibration.offset_s) == (0.08, 0.012)
    assert calibration.distance_m is None  # these points may lie elsewhere
    said = json.loads(done.stdout)
    assert said.pop("out") == "c.json"
    assert said.pop("notes") == []
    assert said == json.loads((street / "c.json").read_text())


def test_points_reports_assumptions_and_outliers(street: Path, quick_command: Command) -> None:
    clicks = (street / "clicks.csv").read_text().splitlines()
    (street / "clicks.csv").write_text("\n".join([*clicks, "100,100,300,20"]))
    done = quick_command(
        *("calibrate", "points", "--points", "clicks.csv", *SIZES, "--start", "true.json"),
        *("--out", "c.json"),
    )
    assert done.returncode == 0, done.stderr
    assert "note: point 11 is " in done.stdout
    assert off(Calibration.load(street / "c.json")) < 0.05
    done = quick_command("calibrate", "points", "--points", "clicks.csv", *SIZES, "--out", "c.json")
    assert "meeting far away (give their distance with --distance), assuming 50 degrees across" in done.stdout
    assert "cameras 6 cm apart (--baseline)" in done.stdout


def test_board(tmp_path: Path, quick_command: Command) -> None:
    write(tmp_path, board(6))
    done = quick_command(
        *("calibrate", "board", "--ir", "ir", "--vi", "vi", "--board", "6x4", "--spacing", 0.04),
        *("--distance", 5, "--out", "c.json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    calibration = whole(tmp_path / "c.json", "board")
    assert calibration.baseline_m == pytest.approx(0.06, abs=0.003)
    assert calibration.distance_m == 5
    assert calibration.vi_lens is not None
    assert calibration.vi_lens.matrix[0, 0] == pytest.approx(310, rel=0.05)
    assert calibration.residual is not None
    assert calibration.residual.rms < 0.3
    assert "board found in 6 pairs; lenses alone 0." in done.stdout
    assert "parallax with both pictures meeting at 5 m:\n" in done.stdout


def test_refine_and_check(street: Path, quick_command: Command) -> None:
    """A knocked mount is found again, from a file made at half the size and by a stream's URIs; what `check` says of
    it before and after, and the picture."""
    true = true_calibration()
    knocked = np.asarray([[1.01, 0.01, 3], [-0.01, 1.01, -2], [0, 0, 1.0]])
    near = replace(true, homography=true.homography @ knocked)
    assert off(near) > 3
    near.scaled((160, 120), (160, 120)).save(street / "near.json")
    done = quick_command(
        *("calibrate", "refine", "--ir", "folder:ir", "--vi", "folder:vi?fps=25", "--start", "near.json"),
        *("--no-search", "--no-lens", "--out", "c.json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    calibration = whole(street / "c.json", "refine")
    assert off(calibration) <= 1
    assert (calibration.distance_m, calibration.baseline_m, calibration.offset_s) == (30.0, 0.08, 0.012)
    assert "note: edges agree by 0." in done.stdout
    assert "parallax with both pictures meeting at 30 m" in done.stdout
    moves = []
    for name in ("near", "c"):
        done = quick_command(
            "calibrate", "check", *LOOK, "--calibration", f"{name}.json", "--out", f"{name}.png"
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(f"-> {name}.png\n")
        moves.append(float(done.stdout.split(" px")[0].split()[-1]))
        picture = cv2.imread(str(street / f"{name}.png"))
        assert picture is not None
        assert picture.shape[1] > 2 * 320
    assert moves[0] > 2
    assert moves[1] < 0.5


def test_offset(street: Path, quick_command: Command) -> None:
    uris = ("--ir", "sim://thermal?size=96x72&fps=10&offset=80ms", "--vi", "sim://visible?size=96x72&fps=10")
    Calibration((96, 72), (96, 72), np.eye(3), method="points").save(street / "same.json")
    words = ("--calibration", "same.json", "--out", "c.json", "--seconds", 7, "--json")
    done = quick_command("calibrate", "offset", *uris, *words)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["offset_ms"] == pytest.approx(80, abs=10)
    assert said["frames"] == [71, 71]
    assert 0 < said["uncertainty_ms"] < 10
    before, after = (json.loads((street / f"{name}.json").read_text()) for name in ("same", "c"))
    assert after == {**before, "offset_ms": said["offset_ms"]}


@pytest.mark.parametrize("seconds", [0.0781, -0.012])
def test_the_printed_offset_is_an_option_of_stream(
    quick_command: Command, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(
        "ufuser.cli.calibrate.find_offset", lambda *_: TimeOffset(seconds, 0.001, 0.3, (9, 9))
    )
    done = quick_command("calibrate", "offset", *SIM, "--seconds", 0.1)
    assert done.returncode == 0, done.stderr
    assert (
        f"{abs(seconds) * 1000:.1f} ms {'ahead of' if seconds > 0 else 'behind'} visible ones" in done.stdout
    )
    option = done.stdout.split("ufuser stream ")[1].strip()
    assert option == f"--ir-offset={seconds:.4f}"
    done = quick_command("stream", "--ir", "gone://", "--vi", "sim://visible", "--out", "null:", option)
    assert "unknown scheme 'gone'" in done.stderr


# Bad input

POINTS = ("points", "--points", "p.csv", *SIZES)
LOOK = ("--ir", "ir/0.png", "--vi", "vi/0.png")
BOARD = ("board", "--ir", "ir", "--vi", "vi", "--board", "6x4", "--spacing", 0.04)
SIM = ("--ir", "sim://thermal?size=64x64", "--vi", "sim://visible?size=64x64")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "cannot read p.csv: no such file"),
        ("1,1,1,1\n9,1,9,1\n1,9,1,9", "3 point pairs: expected at least 4"),
        ("1,1,1,1\n9,1,9,1\n1,9,1,900", "infrared point (1, 900) lies outside of 320x240"),
        ("1,1,1,1\n9,1,9,1\n1,9,1,x", "line 3: ['1', '9', '1', 'x'] is not four numbers"),
        (f"1,1,1,{'9' * 200_000}", "p.csv is not a table of points"),
        ("1,1,1,1\n1,1,1,1\n200,1,200,1\n50,200,50,200", "do not determine the rest of the picture"),
        ("1,1,1,1\n90,1,90,1\n200,1,200,1\n50,200,50,200", "do not determine the rest of the picture"),
        # Clicked in another order; the infrared picture upside down in a mirror.
        ("9,9,9,9\n300,9,9,220\n300,220,300,9\n9,220,300,220", "mirror, fold or flatten the picture"),
        ("9,9,9,220\n300,9,300,220\n300,220,300,9\n9,220,9,9\n99,99,99,130", "mirror, fold or flatten"),
    ],
)
def test_points_that_will_not_do(
    tmp_path: Path, quick_command: Command, rows: str | None, message: str
) -> None:
    if rows is not None:
        (tmp_path / "p.csv").write_text(rows)
    refused(quick_command, tmp_path, (*POINTS, "--out", "c.json"), message)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("points", "--out", "c.json"), "the sizes of the pictures are not known"),
        (("points", *SIZES, "--out", "c.json"), "no points: expected --points FILE"),
        (("points", "--points", "clicks.csv", "--vi-size", "big", "--ir-size", "9x9"), "--vi-size big: expected"),
        (("points", "--points", "clicks.csv", *SIZES, "--distance", 0), "--distance 0: expected metres above 0"),
        (("points", "--points", "clicks.csv", *SIZES, "--vi-fov", 0), "--vi-fov 0: expected degrees"),
        (("points", "--points", "clicks.csv", *SIZES, "--start", "text.json"), "text.json is not JSON"),
        (("points", "--points", "clicks.csv", "--vi-size", "320x256", "--ir-size", "320x240", "--start", "true.json"),
         "visible is 320x256, but was calibrated at 320x240: expected the same aspect"),
        (("board", *LOOK, "--board", "6x4", "--spacing", 0.04), "a 6x4 chess board is in 0 of 1 pairs"),
        (("board", *LOOK, "--board", "6", "--spacing", 0.04), "--board 6: expected two whole numbers"),
        (("board", *LOOK, "--board", "6x4", "--spacing", "inf"), "--spacing inf: expected metres above 0"),
        (("board", *LOOK, "--board", "6x4", "--spacing", 0.04, "--pattern", "dots"), "--pattern dots: expected"),
        (("refine", "--ir", "gone.png", "--vi", "vi/0.png"), "no file or folder gone.png"),
        (("refine", "--ir", "ir", "--vi", "vi/0.png"), "expected the same kind"),
        (("refine", "--ir", "vi", "--vi", "folder:vi"), "are the same: expected two cameras"),
        (("refine", "--ir", "text.json", "--vi", "vi/0.png"), "text.json is neither a picture"),
        (("refine", "--ir", "empty", "--vi", "vi"), "no pictures in empty"),
        (("refine", "--ir", "other", "--vi", "vi"), "no common names in other and vi"),
        (("refine", *LOOK, "--start", "gone.json"), "cannot read gone.json: no such file"),
        (("refine", *LOOK, "--start", "wide.json"), "infrared is 320x240, but was calibrated at 320x200"),
        (("refine", *LOOK, "--no-search"), "--no-search needs a start"),
        (("refine", *LOOK, "--start", "far.json", "--no-search"), "the pictures agree by 0.00 only"),
        (("refine", *SIM, "--pairs", 0), "--pairs 0: expected 1 to 1000"),
        (("refine", *SIM, "--seconds", "nan"), "--seconds nan: expected a time"),
        (("check", *LOOK, "--calibration", "true.json", "--out", "c.txt"), "suffix '.txt', expected one of"),
        (("check", *LOOK, "--calibration", "text.json", "--out", "c.png"), "text.json is not JSON"),
        (("check", *LOOK, "--calibration", "other.json", "--out", "c.png"), "other.json is not a calibration"),
        (("check", *LOOK, "--calibration", "wide.json", "--out", "c.png"), "infrared is 320x240, but was calibrated"),
        (("check", *LOOK, "--calibration", "far.json", "--out", "c.png"), "both cameras see too little of the same"),
        (("offset", *LOOK), "ir/0.png has no time of its own: expected a video or a camera"),
        (("offset", *SIM, "--out", "c.json"), "expected --calibration too"),
        (("offset", *SIM, "--calibration", "text.json", "--out", "c.json"), "text.json is not JSON"),
        (("offset", *SIM, "--seconds", -1), "--seconds -1: expected more than 0"),
        (("offset", *SIM, "--seconds", 0.5), "different frames: expected a recording of about ten seconds"),
        (("offset", "--ir", "v4l2:///dev/gone", "--vi", SIM[3]), "/dev/gone"),
        (("guess",), "invalid choice: 'guess'"),
        (("check", *LOOK), "the following arguments are required: --calibration, --out"),
    ],
)  # fmt: skip
def test_bad_input(street: Path, quick_command: Command, args: tuple[object, ...], message: str) -> None:
    (street / "text.json").write_text("{")
    (street / "other.json").write_text("{}")
    for name in ("empty", "other"):
        (street / name).mkdir()
    (street / "other" / "9.png").write_bytes((street / "ir" / "0.png").read_bytes())
    replace(true_calibration(), ir_size=(320, 200)).save(street / "wide.json")
    shifted = np.asarray([[1, 0, 5000], [0, 1, 0], [0, 0, 1.0]])
    replace(true_calibration(), homography=shifted, ir_lens=None).save(street / "far.json")
    if args[0] in ("points", "board", "refine") and "--out" not in args:
        args = (*args, "--out", "c.json")
    refused(quick_command, street, args, message)


@pytest.mark.parametrize("method", ["points", "board", "refine", "check", "offset"])
@pytest.mark.parametrize(("out", "reason"), [("gone/c", "there is no folder gone"), ("ir", "it is a folder")])
def test_a_place_that_cannot_be_written_is_refused_first(
    street: Path, quick_command: Command, method: str, out: str, reason: str
) -> None:
    (street / "ir.png").mkdir()
    given = {
        "points": ("--points", "clicks.csv", *SIZES),
        "board": BOARD[1:],
        "refine": LOOK,
        "check": (*LOOK, "--calibration", "true.json"),
        "offset": (*SIM, "--calibration", "true.json"),
    }[method]
    refused(
        quick_command, street, (method, *given, "--out", f"{out}.png" if method == "check" else out), reason
    )


def test_the_old_file_stays_when_the_work_fails(street: Path, quick_command: Command) -> None:
    (street / "c.json").write_text("old")
    refused(quick_command, street, (*BOARD, "--out", "c.json"), "board is in 0 of 1 pairs")
    assert (street / "c.json").read_text() == "old"


@pytest.mark.parametrize("method", ["board", "refine", "check"])
def test_pictures_of_other_sizes_are_refused(tmp_path: Path, quick_command: Command, method: str) -> None:
    pairs = board(6)
    pairs[2] = (cv2.resize(pairs[2][0], (640, 480)), pairs[2][1])
    write(tmp_path, pairs)
    true_calibration().save(tmp_path / "true.json")
    given: dict[str, tuple[object, ...]] = {
        "board": (*BOARD, "--out", "c.json"),
        "refine": ("refine", *BOARD[1:5], "--out", "c.json"),
        "check": ("check", *BOARD[1:5], "--calibration", "true.json", "--out", "c.png"),
    }
    refused(quick_command, tmp_path, given[method], "infrared picture of 640x480, expected 320x240")


def test_a_board_held_always_alike_is_refused(tmp_path: Path, quick_command: Command) -> None:
    """It fits to a tenth of a pixel, whatever the focal length."""
    write(tmp_path, board(6, tilt=0.02))
    refused(
        quick_command, tmp_path, (*BOARD, "--out", "c.json"), "the board has the same tilt in all 6 pairs"
    )


def test_a_calibration_that_shows_too_little_of_a_picture(tmp_path: Path, quick_command: Command) -> None:
    """Small pictures whose overlap lies between the places where the distance is measured."""
    scene = np.random.default_rng(0).integers(0, 255, (24, 32), np.uint8)
    write(tmp_path, [(scene, scene)])
    narrow = Calibration((32, 24), (32, 24), np.array([[40.0, 0, -100], [0, 40, -100], [0, 0, 1]]))
    narrow.save(tmp_path / "narrow.json")
    words = ("--ir", "ir/0.png", "--vi", "vi/0.png", "--calibration", "narrow.json", "--out", "out.png")
    refused(quick_command, tmp_path, ("check", *words), "see too little of the same")


def refused(quick_command: Command, folder: Path, args: tuple[object, ...], message: str) -> None:
    """One line, exit code 2, nothing new in the folder."""
    before = sorted(folder.rglob("*"))
    done = quick_command("calibrate", *args)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr, done.stderr
    assert sorted(folder.rglob("*")) == before, os.listdir(folder)
