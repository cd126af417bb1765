"""`ufuser.stream` in a program."""

from __future__ import annotations

import importlib.util
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import ufuser
from ufuser import Fuser
from ufuser.runtime.engines.onnxruntime import OnnxRuntimeEngine
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import FusedFrame

IR, VI = "sim://thermal?size=64x64&bits=14&fps=20", "sim://visible?size=64x64&fps=20"


def threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("ufuser")}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """Two folders of twenty pictures."""
    for side in ("ir", "vi"):
        (tmp_path / side).mkdir()
        for index in range(20):
            cv2.imwrite(str(tmp_path / side / f"{index:02d}.png"), np.full((32, 48, 3), 10 * index, np.uint8))
    return f"folder:{tmp_path}/ir?fps=10", f"folder:{tmp_path}/vi?fps=10"


def test_frames_with_stamps_and_pictures(max_model: Path) -> None:
    began, frames = time.monotonic(), []
    for fused in ufuser.stream(ir=IR, vi=VI, model=str(max_model)):
        frames.append(fused)
        if len(frames) == 5:
            break
    assert all(f.image.shape == (64, 64, 3) and f.image.dtype == np.uint8 for f in frames)
    assert all(f.ir.shape == (64, 64) and f.vi.shape == (64, 64, 3) for f in frames)
    stamps = [f.timestamp for f in frames]
    assert began < stamps[0]
    assert (np.diff(stamps) > 0).all()
    assert stamps[-1] <= time.monotonic()
    assert all(abs(f.skew) < 0.06 for f in frames)


def test_leaving_the_loop_releases_everything(max_model: Path) -> None:
    frames = ufuser.stream(ir=IR, vi=VI, model=str(max_model), out=["null:"])
    next(frames)
    assert {"ufuser ir camera", "ufuser vi camera", "ufuser fuse"} <= threads()
    frames.close()
    deadline = time.monotonic() + 3
    while threads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threads() == set()


def test_a_slow_program_gets_every_frame_of_files(folders: tuple[str, str], max_model: Path) -> None:
    levels = []
    for fused in ufuser.stream(*folders, model=str(max_model)):
        time.sleep(0.01)
        levels.append(int(fused.image[5, 5, 0]))
    assert levels == [10 * index for index in range(20)]


def test_a_slow_program_gets_the_newest_frame_of_cameras(max_model: Path) -> None:
    late = []
    for fused in ufuser.stream(ir=IR, vi=VI, model=str(max_model)):
        late.append(time.monotonic() - fused.timestamp)
        if len(late) == 6:
            break
        time.sleep(0.25)
    assert max(late[2:]) < 0.6, "no backlog builds up"


def test_a_lost_camera_is_a_flag(max_model: Path) -> None:
    silent = f"{IR}&silent=0.4-60"
    for fused in ufuser.stream(ir=silent, vi=VI, model=str(max_model), lost_after=0.3):
        if "ir-lost" in fused.flags:
            break
    np.testing.assert_array_equal(fused.image, fused.vi)


def test_errors(folders: tuple[str, str], tmp_path: Path, max_model: Path) -> None:
    for options, message in (
        ({"sync": "newest"}, "sync='newest': expected one of hold, nearest"),
        ({"max_skew": -1.0}, "max_skew=-1.0: expected a number >= 0"),
        ({"max_age": "12ms"}, "max_age='12ms': expected a number, got text"),
        ({"threads": 0}, "threads=0: expected a whole number >= 1"),
        ({"agc": "loud"}, "agc='loud': expected auto"),
        ({"token": "short"}, r"token=\*\*\*: expected text"),
        ({"calibration": "a\0"}, "calibration=.*: expected a name without a NUL character"),
    ):
        with pytest.raises(InputError, match=f"^{message}") as caught:
            ufuser.stream(*folders, **options)
        assert caught.value.argument == next(iter(options))
    with pytest.raises(TypeError, match=r"[Uu]nexpected keyword"):
        ufuser.stream(*folders, colour=True)
    with pytest.raises(InputError, match="no folder"):
        next(ufuser.stream(f"folder:{tmp_path}/gone", folders[1]))
    (tmp_path / "ir" / "07.png").write_bytes(b"no picture")
    frames = ufuser.stream(*folders, model=str(max_model))
    with pytest.raises(InputError, match=r"07\.png cannot be read"):
        list(frames)


def test_a_calibration_brings_infrared_onto_the_visible(tmp_path: Path, max_model: Path) -> None:
    from ufuser.runtime.alignment import Calibration

    for side, shape in (("ir", (24, 32)), ("vi", (48, 64))):
        (tmp_path / side).mkdir()
        for index in range(4):
            image = np.full(shape, 50 if side == "vi" else 10, np.uint8)
            if side == "ir":
                image[8:12, 8:12] = 200
            cv2.imwrite(str(tmp_path / side / f"{index}.png"), image)
    # Made at twice the size: infrared sees ten pixels to the left.
    shift = np.asarray([[1.0, 0, -10], [0, 1, 0], [0, 0, 1]])
    Calibration((128, 96), (128, 96), shift, offset_s=0.02).save(tmp_path / "pair.json")
    folders = f"folder:{tmp_path}/ir", f"folder:{tmp_path}/vi"
    frames = list(ufuser.stream(*folders, model=str(max_model), calibration=str(tmp_path / "pair.json")))
    assert len(frames) == 4
    warm = np.argwhere(frames[2].ir > 150)
    # The square's 8..11 at half size is 16..23, five pixels further to the right.
    assert warm.mean(axis=0) == pytest.approx([19.5, 24.5], abs=0.6)
    assert (frames[2].ir[:, :4] == 50).all(), "where infrared sees nothing, the visible's luma"
    assert frames[2].skew == pytest.approx(-0.02), "the offset that was measured is taken off"
    (tmp_path / "vi" / "0.png").unlink()
    cv2.imwrite(str(tmp_path / "vi" / "0.png"), np.zeros((48, 80), np.uint8))
    with pytest.raises(InputError, match="same aspect"):
        list(ufuser.stream(*folders, model=str(max_model), calibration=str(tmp_path / "pair.json")))


def test_an_open_fuser_can_be_given(folders: tuple[str, str], max_model: Path) -> None:
    fuser = ufuser.Fuser.open(max_model, threads=1)
    frames: list[Any] = list(ufuser.stream(*folders, fuser=fuser, grey=True))
    assert len(frames) == 20
    assert frames[3].image.shape == (32, 48)


def test_the_engine_shares_the_cores(
    folders: tuple[str, str], max_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_with = []
    opened = ufuser.Fuser.open

    def watched(*given: Any, **more: Any) -> ufuser.Fuser:
        opened_with.append(more)
        return opened(*given, **more)

    monkeypatch.setattr(ufuser.Fuser, "open", watched)
    assert len(list(ufuser.stream(*folders, model=str(max_model)))) == 20
    assert opened_with == [{"shared": True}]


def test_the_example_finds_what_moves(
    tmp_path: Path, max_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(rng.integers(0, 120, (120, 160), np.uint8), (0, 0), 3)
    for side in ("ir", "vi"):
        (tmp_path / side).mkdir()
        for index in range(40):
            image = wall.copy()
            if side == "ir":  # somebody warm walks through the dark
                image[40:90, 10 + 3 * index : 30 + 3 * index] = 230
            cv2.imwrite(str(tmp_path / side / f"{index:02d}.png"), cv2.merge([image] * 3))
    path = Path(ufuser.__file__).parents[1] / "examples" / "detect_people.py"
    spec = importlib.util.spec_from_file_location("detect_people", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    words = ["--ir", f"folder:{tmp_path}/ir", "--vi", f"folder:{tmp_path}/vi", "--model", str(max_model)]
    assert example.main([*words, "--frames", "40", "--out", str(tmp_path / "found.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 40
    found = [line for line in lines[10:] if "both cameras: 1 found" in line]
    assert len(found) > 20
    left = [int(line.rsplit("+", 2)[1]) for line in found]
    assert left[-1] - left[0] > 30, "the box walks along"
    assert cv2.imread(str(tmp_path / "found.png")).shape == (120, 160, 3)


def test_two_streams_share_a_fuser() -> None:
    fused: list[list[FusedFrame]] = [[], []]
    sizes = ("64x64", "96x80")
    with Fuser.open("lite", threads=1) as fuser, Fuser.open("lite", threads=1) as alone:

        def watch(index: int) -> None:
            cameras = (f"sim://{side}?size={sizes[index]}&fps=60" for side in ("thermal", "visible"))
            for frame in ufuser.stream(*cameras, fuser=fuser):
                fused[index].append(frame)
                if len(fused[index]) == 25:
                    return

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(watch, range(2)))
        both = [
            frame for frames in fused for frame in frames if frame.ir is not None and frame.vi is not None
        ]
        assert len(both) >= 40
        for frame in both:
            np.testing.assert_array_equal(frame.image, alone.fuse(frame.ir, frame.vi))
        fuser.fuse(both[0].ir, both[0].vi)  # the streams have left it open


def test_a_stream_closes_the_fuser_that_it_has_opened(
    max_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[None] = []
    monkeypatch.setattr(OnnxRuntimeEngine, "close", lambda _: closed.append(None))
    frames = ufuser.stream(ir=IR, vi=VI, model=str(max_model))
    next(frames)
    frames.close()
    assert len(closed) == 1
