"""`ufuser fuse` with real files, as a process for each kind of input; every kind of bad input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ufuser.cli import main
from ufuser.runtime.color import luma
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import read_image, write_image
from ufuser.runtime.sinks import VideoSink
from ufuser.runtime.sources import VideoSource
from ufuser.runtime.thermal.still import tone_mapped

Command = Callable[..., Any]
SHAPE = (40, 56)


def picture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def video(
    path: Path, frames: int, fps: float = 25.0, shape: tuple[int, int] = SHAPE, color: bool = True
) -> None:
    with VideoSink(path, fps) as sink:
        for number in range(frames):
            image = picture((*shape, 3) if color else shape, number)
            sink.write(Frame(image, number / fps, number, ""))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A pair of pictures, and broken or unsuitable files."""
    write_image(tmp_path / "ir.png", picture(SHAPE, 1))
    write_image(tmp_path / "vi.png", picture((*SHAPE, 3), 2))
    write_image(tmp_path / "large.png", picture((*(2 * s for s in SHAPE), 3), 3))
    write_image(tmp_path / "tiny.png", picture((12, 40), 4))
    holes = np.full(SHAPE, 0.5, np.float32)
    holes[3, 4] = np.nan
    write_image(tmp_path / "nan.tif", holes)
    whole = cv2.imencode(".jpg", picture((*SHAPE, 3), 5))[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 4 // 5])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "broken.onnx").write_text("no model")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_folders_are_not_written_to_the_name_of_a_file(
    files: Path, quick_command: Command, max_model: Path
) -> None:
    for side in ("ir", "vi"):
        (files / side).mkdir()
        (files / f"{side}.png").rename(files / side / "a.png")
    before = listing(files)
    for name in ("out.mp4", "out.png"):
        done = quick_command("fuse", "--ir", "ir", "--vi", "vi", "--out", name, "--model", max_model)
        _refused(done, f"--out {name}", "is the name of a file", "expected a folder")
    assert listing(files) == before


def listing(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# Bad input: one line, exit code 2, and nothing left


@pytest.mark.parametrize(
    ("ir", "vi", "out", "message"),
    [
        ("gone.png", "vi.png", "out.png", ("gone.png", "expected")),
        ("text.png", "vi.png", "out.png", ("text.png", "cannot be read as a picture")),
        ("ir.png", "cut.jpg", "out.png", ("cut.jpg", "truncated")),
        ("ir.png", "large.png", "out.png", ("56x40", "112x80", "--resize")),
        ("tiny.png", "tiny.png", "out.png", ("40x12", "at least 16x16")),
        ("nan.tif", "vi.png", "out.png", ("NaN", "[0, 1]")),
        ("ir.png", "empty", "out.png", ("a picture", "a folder", "expected two pictures")),
        ("empty", "empty", "out", ("no pictures in empty",)),
        ("ir.png", "text.mp4", "out.png", ("a picture", "a video")),
        ("ir.png", "vi.png", "gone/out.png", ("gone/out.png", "no folder")),
        ("ir.png", "vi.png", "out.gif", (".gif", ".png, .jpg")),
        ("ir.png", "vi.png", "vi.png", ("vi.png", "same file")),
        ("ir.png", "vi.png", "empty/../ir.png", ("same file",)),
        ("sim://thermal", "sim://visible", "out.mp4", ("is a camera", "ufuser stream")),
        ("rtsp://camera", "vi.png", "out.png", ("is a camera", "ufuser stream")),
    ],
)
def test_bad_input(
    files: Path, quick_command: Command, max_model: Path, ir: str, vi: str, out: str, message: tuple[str, ...]
) -> None:
    before = listing(files)
    done = quick_command("fuse", "--ir", ir, "--vi", vi, "--out", out, "--model", max_model)
    _refused(done, *message)
    assert listing(files) == before


def test_a_process_ends_with_the_code_and_the_line_alone(
    files: Path, command: Command, max_model: Path
) -> None:
    """A video that cannot be read: FFmpeg's own messages are suppressed."""
    before = listing(files)
    words = ("--ir", "text.mp4", "--vi", "text.mp4", "--out", "out.mp4")
    _refused(command("fuse", *words, "--model", max_model), "text.mp4", "cannot be read as a video")
    assert listing(files) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "broken.onnx"], ("broken.onnx",)),
        (["--model", "gone.onnx"], ("gone.onnx",)),
        (["--model", "ufusser"], ("unknown model 'ufusser'",)),
        (["--threads", "0"], ("--threads 0",)),
        (["--threads", "two"], ("--threads two: expected a whole number",)),
        (["--engine", "abacus"], ("unknown engine 'abacus'", "onnxruntime")),
        (["--fast"], ("--fast", "--help")),
    ],
)
def test_bad_options(
    files: Path, quick_command: Command, max_model: Path, arguments: list[str], message: tuple[str, ...]
) -> None:
    before = listing(files)
    model = [] if "--model" in arguments else ["--model", max_model]
    _refused(
        quick_command("fuse", "--ir", "ir.png", "--vi", "vi.png", "--out", "out.png", *model, *arguments),
        *message,
    )
    assert listing(files) == before


def test_model_of_another_kind(files: Path, quick_command: Command, make_model: Any) -> None:
    other = make_model("other", [("Relu", ["image"], ["fused"], {})], inputs=["image"])
    done = quick_command("fuse", "--ir", "ir.png", "--vi", "vi.png", "--out", "out.png", "--model", other)
    _refused(done, "no fusion model", "image")
    assert not (files / "out.png").exists()


def test_no_command(command: Command) -> None:
    _refused(command(), "COMMAND")


def _refused(done: Any, *message: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for part in message:
        assert part in line


# A pair of pictures


def test_pictures(files: Path, command: Command, max_model: Path) -> None:
    arguments = ("--ir", "ir.png", "--vi", "vi.png", "--out", "out.png", "--engine", "onnxruntime")
    done = command("fuse", *arguments, "--model", max_model)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    for part in ("1 frame of 56x40", "fps", "p50", "p95", "max.onnx", "ONNX Runtime", "out.png"):
        assert part in line
    fused = read_image(files / "out.png")
    expected = np.maximum(read_image(files / "ir.png"), luma(read_image(files / "vi.png")))
    # Where no channel is clipped, the luma is the fused one.
    inside = ((fused > 0) & (fused < 255)).all(axis=2)
    assert inside.mean() > 0.1
    np.testing.assert_allclose(luma(fused)[inside], expected[inside], atol=1)
    assert not [name for name in os.listdir(files) if "partial" in name]


def test_grey_and_stretch_and_json(files: Path, quick_command: Command, max_model: Path) -> None:
    arguments = ("fuse", "--ir", "ir.png", "--vi", "vi.png", "--model", max_model, "--threads", 1)
    done = quick_command(*arguments, "--out", "out.tif", "--grey", "--json")
    result = json.loads(done.stdout)
    assert (result["frames"], result["size"], result["out"]) == (1, [56, 40], "out.tif")
    for figure in ("fps", "p50_ms", "p95_ms", "max_ms", "seconds"):
        assert result[figure] > 0
    assert result["engine"].startswith("ONNX Runtime")  # the fastest for a small network
    expected = np.maximum(read_image(files / "ir.png"), luma(read_image(files / "vi.png")))
    np.testing.assert_array_equal(read_image(files / "out.tif"), expected)
    quick_command(*arguments, "--out", "out.bmp", "--grey", "--stretch")
    stretched = read_image(files / "out.bmp")
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_resize_scales_infrared(files: Path, quick_command: Command, max_model: Path) -> None:
    common = ("--model", max_model, "--resize", "--grey")
    assert (
        quick_command("fuse", "--ir", "ir.png", "--vi", "large.png", "--out", "up.png", *common).returncode
        == 0
    )
    up = cv2.resize(read_image(files / "ir.png"), (112, 80), interpolation=cv2.INTER_LINEAR)
    large = luma(read_image(files / "large.png"))
    np.testing.assert_array_equal(read_image(files / "up.png"), np.maximum(up, large))
    assert (
        quick_command("fuse", "--ir", "large.png", "--vi", "ir.png", "--out", "down.png", *common).returncode
        == 0
    )
    down = luma(cv2.resize(read_image(files / "large.png"), (56, 40), interpolation=cv2.INTER_AREA))
    expected = np.maximum(down, read_image(files / "ir.png"))
    np.testing.assert_array_equal(read_image(files / "down.png"), expected)


def test_raw_counts_get_one_note(tmp_path: Path, quick_command: Command, max_model: Path) -> None:
    for number in range(3):
        counts = np.random.default_rng(number).integers(7000, 9000, SHAPE, np.uint16)
        (tmp_path / "ir").mkdir(exist_ok=True)
        (tmp_path / "vi").mkdir(exist_ok=True)
        write_image(tmp_path / "ir" / f"{number}.png", counts)
        write_image(tmp_path / "vi" / f"{number}.png", picture(SHAPE, number))
    done = quick_command("fuse", "--ir", "ir", "--vi", "vi", "--out", "out", "--model", max_model)
    assert done.returncode == 0
    (note,) = done.stderr.splitlines()
    assert note.startswith("note: ")
    assert "raw counts: tone mapped to 8 bits" in note
    fused = read_image(tmp_path / "out" / "2.png")
    raw, visible = read_image(tmp_path / "ir" / "2.png"), read_image(tmp_path / "vi" / "2.png")
    np.testing.assert_array_equal(fused, np.maximum(tone_mapped(raw), visible))


def test_full_range_sixteen_bits_get_none(tmp_path: Path, quick_command: Command, max_model: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, SHAPE, np.uint16)
    write_image(tmp_path / "ir.png", deep)
    write_image(tmp_path / "vi.png", deep // 2)
    done = quick_command("fuse", "--ir", "ir.png", "--vi", "vi.png", "--out", "out.png", "--model", max_model)
    assert done.stderr == ""
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), deep)
    done = quick_command("fuse", "--ir", "ir.png", "--vi", "vi.png", "--out", "out.jpg", "--model", max_model)
    assert "note: .jpg cannot hold uint16" in done.stderr


# Folders


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for side, names in (("ir", "abcdefgh"), ("vi", "bcz")):
        (tmp_path / side).mkdir()
        for seed, name in enumerate(names):
            suffix = ".jpg" if side == "vi" else ".png"
            write_image(tmp_path / side / f"{name}{suffix}", picture(SHAPE, seed))
    return tmp_path


def test_folders(folders: Path, command: Command, max_model: Path) -> None:
    done = command("fuse", "--ir", "ir", "--vi", "vi", "--out", "new/out", "--model", max_model, "--json")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(folders / "new" / "out")) == ["b.png", "c.png"]
    first, second = done.stderr.splitlines()
    assert "6 infrared without a partner" in first
    assert "a.png, d.png, e.png, f.png, g.png and 1 more" in first
    assert "1 visible without a partner" in second
    assert "z.jpg" in second
    result = json.loads(done.stdout)
    assert result["frames"] == 2
    assert len(result["unpaired_ir"]) == 6
    assert result["unpaired_vi"] == ["z.jpg"]
    assert len(result["notes"]) == 2


def test_folders_without_common_names(folders: Path, quick_command: Command, max_model: Path) -> None:
    for name in ("b.jpg", "c.jpg"):
        (folders / "vi" / name).unlink()
    done = quick_command("fuse", "--ir", "ir", "--vi", "vi", "--out", "out", "--model", max_model)
    _refused(done, "no common names", "a.png", "z.jpg")
    assert not (folders / "out").exists()


def test_name_twice_in_a_folder(folders: Path, quick_command: Command, max_model: Path) -> None:
    write_image(folders / "vi" / "b.png", picture(SHAPE))
    done = quick_command("fuse", "--ir", "ir", "--vi", "vi", "--out", "out", "--model", max_model)
    _refused(done, "b.jpg and b.png")


@pytest.mark.parametrize("side", ["ir", "vi"])
def test_output_into_an_input_folder(
    folders: Path, quick_command: Command, max_model: Path, side: str
) -> None:
    before = listing(folders)
    done = quick_command("fuse", "--ir", "ir", "--vi", "vi", "--out", side, "--model", max_model)
    _refused(done, "same file or folder")
    assert listing(folders) == before


def test_finished_pictures_stay_when_a_later_one_fails(
    folders: Path, quick_command: Command, max_model: Path
) -> None:
    path = folders / "vi" / "c.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    done = quick_command("fuse", "--ir", "ir", "--vi", "vi", "--out", "out", "--model", max_model)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: vi/c.jpg is truncated")
    assert os.listdir(folders / "out") == ["b.png"]
    assert read_image(folders / "out" / "b.png").shape == SHAPE


def test_sizes_that_differ_in_a_folder_name_the_file(
    folders: Path, quick_command: Command, max_model: Path
) -> None:
    write_image(folders / "vi" / "c.jpg", picture((80, 80)))
    done = quick_command("fuse", "--ir", "ir", "--vi", "vi", "--out", "out", "--model", max_model)
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert "c.jpg: the picture of --ir is 56x40, that of --vi 80x80" in error
    assert "--resize" in error


def test_file_in_place_of_the_output_folder(folders: Path, quick_command: Command, max_model: Path) -> None:
    (folders / "out").write_text("in the way")
    done = quick_command("fuse", "--ir", "ir", "--vi", "vi", "--out", "out", "--model", max_model)
    _refused(done, "cannot create folder out", "a file is in its place")


# Videos


def test_videos(tmp_path: Path, command: Command, max_model: Path) -> None:
    video(tmp_path / "ir.mkv", 6, color=False)
    video(tmp_path / "vi.mkv", 6)
    done = command("fuse", "--ir", "ir.mkv", "--vi", "vi.mkv", "--out", "out.mkv", "--model", max_model)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "6 frames of 56x40" in done.stdout
    with VideoSource(tmp_path / "out.mkv") as source:
        assert source.fps == pytest.approx(25)
        frames = list(source)
    assert len(frames) == 6
    assert frames[0].image.shape == (*SHAPE, 3)


@pytest.mark.parametrize(("ir", "vi"), [(5, 8), (8, 5)])
def test_video_that_ends_early(tmp_path: Path, command: Command, max_model: Path, ir: int, vi: int) -> None:
    video(tmp_path / "ir.mkv", ir, color=False)
    video(tmp_path / "vi.mkv", vi)
    done = command(
        "fuse",
        "--ir",
        "ir.mkv",
        "--vi",
        "vi.mkv",
        "--out",
        "out.mp4",
        "--model",
        max_model,
        "--grey",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["frames"], result["left_ir"], result["left_vi"]) == (5, max(ir - 5, 0), max(vi - 5, 0))
    (note,) = done.stderr.splitlines()
    ended, other = ("infrared", "visible") if ir < vi else ("visible", "infrared")
    assert note == f"note: {ended} ended after 5 frames: 3 frames of {other} left unfused"
    assert len(list(VideoSource(tmp_path / "out.mp4"))) == 5


def test_videos_of_different_rates(tmp_path: Path, command: Command, max_model: Path) -> None:
    video(tmp_path / "ir.avi", 4, 9)
    video(tmp_path / "vi.avi", 4, 30)
    done = command("fuse", "--ir", "ir.avi", "--vi", "vi.avi", "--out", "out.avi", "--model", max_model)
    assert "infrared has 9 fps, visible 30" in done.stderr
    assert VideoSource(tmp_path / "out.avi").fps == pytest.approx(30)


def test_videos_of_different_sizes(tmp_path: Path, command: Command, max_model: Path) -> None:
    video(tmp_path / "ir.avi", 3)
    video(tmp_path / "vi.avi", 3, shape=(64, 80))
    before = listing(tmp_path)
    arguments = ("fuse", "--ir", "ir.avi", "--vi", "vi.avi", "--out", "out.mp4", "--model", max_model)
    _refused(command(*arguments), "56x40", "80x64", "--resize")
    assert listing(tmp_path) == before
    assert command(*arguments, "--resize").returncode == 0
    assert next(iter(VideoSource(tmp_path / "out.mp4"))).image.shape == (64, 80, 3)


@pytest.mark.parametrize("out", ["out.gif", "gone/out.mp4", "folder.mp4", "vi.avi"])
def test_video_output_that_cannot_be_written(
    tmp_path: Path, quick_command: Command, max_model: Path, out: str
) -> None:
    video(tmp_path / "ir.avi", 3)
    video(tmp_path / "vi.avi", 3)
    (tmp_path / "folder.mp4").mkdir()
    before = listing(tmp_path)
    # A model that is missing too: the output is looked at first.
    done = quick_command("fuse", "--ir", "ir.avi", "--vi", "vi.avi", "--out", out, "--model", "gone.onnx")
    _refused(done, out)
    assert listing(tmp_path) == before


# The command itself


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in ((["--version"], "ufuser "), (["fuse", "--help"], "--resize")):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert message in capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("--verbose",)])
def test_decoders_print_only_with_verbose(
    tmp_path: Path, command: Command, max_model: Path, words: tuple[str, ...]
) -> None:
    """libjpeg, libpng and OpenCV's AVI reader write to the descriptor of standard error."""
    picture = np.random.default_rng(0).integers(0, 255, (24, 32), np.uint8)
    jpeg = bytes(cv2.imencode(".jpg", picture)[1])
    (tmp_path / "a.jpg").write_bytes(jpeg[:-2] + b"surplus" + jpeg[-2:])
    pair = ("--ir", "a.jpg", "--vi", "a.jpg", "--out", "o.png")
    done = command("fuse", *pair, "--model", max_model, "--engine", "onnxruntime", *words)
    assert done.returncode == 0, done.stderr
    assert ("extraneous" in done.stderr) == bool(words), done.stderr


def test_a_refused_video_is_one_line(tmp_path: Path, command: Command) -> None:
    (tmp_path / "a.avi").write_bytes(b"RIFF\xff\0\0\0AVI LISP" + bytes(200))
    done = command("fuse", "--ir", "a.avi", "--vi", "a.avi", "--out", "o.mkv", "--model", "lite")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
