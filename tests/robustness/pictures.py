"""Pictures, folders and videos: what is accepted equals what OpenCV reads by itself."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnx

from tests.robustness.mutations import TEXTS, of_bytes, of_picture
from tests.robustness.reader import Case, Reader, Seed
from ufuser.runtime.errors import InputError
from ufuser.runtime.video import Encoder

HEIGHT, WIDTH = 24, 32


def scene(dtype: Any = np.uint8, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A gradient with noise; floats in [0, 1]."""
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    levels = np.random.default_rng(seed).random(shape) * 0.5
    levels += np.linspace(0, 0.5, WIDTH).reshape((1, WIDTH) + (1,) * (len(shape) - 2))
    return (
        levels.astype(dtype) if np.dtype(dtype).kind == "f" else (levels * np.iinfo(dtype).max).astype(dtype)
    )


def encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    """A picture file's bytes."""
    return bytes(cv2.imencode(suffix, image, list(options))[1].tobytes())


def picture_seeds(folder: Path) -> list[Seed]:
    """Every format and depth that is read."""
    progressive = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    return [
        *(
            Seed(f"{c}{np.dtype(d).name}.png", encoded(".png", scene(d, c)))
            for d in (np.uint8, np.uint16)
            for c in (1, 3, 4)
        ),
        *(Seed(f"{c}.jpg", encoded(".jpg", scene(channels=c))) for c in (1, 3)),
        Seed("progressive.jpg", encoded(".jpg", scene(channels=3), *progressive)),
        *(
            Seed(
                f"{c}{np.dtype(d).name}.tif", encoded(".tif", scene(d, c), cv2.IMWRITE_TIFF_COMPRESSION, how)
            )
            for d, c, how in (
                (np.uint8, 1, 1),
                (np.uint8, 3, 5),
                (np.uint16, 1, 5),
                (np.float32, 1, 1),
                (np.float32, 3, 1),
            )
        ),
        *(Seed(f"{c}.bmp", encoded(".bmp", scene(channels=c))) for c in (1, 3)),
        Seed("grey.pgm", encoded(".pgm", scene())),
        Seed("deep.pgm", encoded(".pgm", scene(np.uint16))),
        Seed(
            "plain.pgm",
            b"P2\n# made by hand\n16 16\n255\n" + b" ".join(b"%d" % n for n in range(256)) + b"\n",
        ),
        Seed("colour.ppm", encoded(".ppm", scene(channels=3))),
        Seed("3.webp", encoded(".webp", scene(channels=3))),
    ]


@functools.cache
def largest_of_both(folder: Path) -> Path:
    """An ONNX file that fuses by the maximum."""
    path = folder / "max.onnx"
    path.write_bytes(max_network())
    return path


def max_network() -> bytes:
    """fused = max(ir, vi)."""
    helper, axes = onnx.helper, ("b", 1, "h", "w")
    ends = [helper.make_tensor_value_info(name, 1, axes) for name in ("ir", "vi", "fused")]
    graph = helper.make_graph([helper.make_node("Max", ["ir", "vi"], ["fused"])], "max", ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"shape_multiple": "8", "model": "max"})
    return bytes(model.SerializeToString())


def read_picture(case: Case) -> None:
    out = case.out("out.tif")
    model = largest_of_both(case.folder.parent)
    case.command(
        "fuse",
        "--ir",
        case.path,
        "--vi",
        case.path,
        "--out",
        out,
        "--model",
        model,
        "--engine",
        "onnxruntime",
    )
    mode, given = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR, np.frombuffer(case.data, np.uint8)
    expected = case.reference(lambda: cv2.imdecode(given, mode))
    case.require(expected is not None, "accepted a picture that OpenCV by itself refuses")
    same_picture(case, cv2.imread(str(out), cv2.IMREAD_UNCHANGED), expected)


def same_picture(case: Case, found: np.ndarray, expected: np.ndarray) -> None:
    """The maximum of a picture with itself is the picture, but for the rounding of its colour."""
    case.require(found.shape == expected.shape, f"shape {found.shape}, OpenCV reads {expected.shape}")
    case.require(found.dtype == expected.dtype, f"{found.dtype}, OpenCV reads {expected.dtype}")
    full = 1.0 if found.dtype.kind == "f" else float(np.iinfo(found.dtype).max)
    allowed = (
        0.0
        if found.ndim == 2 and full > 1
        else (1e-5 if found.ndim == 2 else 1e-3)
        if full == 1
        else full * 2.5 / 255
    )
    largest = float(np.abs(found.astype(np.float64) - expected).max())
    case.require(largest <= allowed, f"differs from OpenCV's by {largest:g} of {full:g}")


def read_folder(case: Case) -> None:
    """One whole picture and the mutated one, at times under a strange name."""
    names = [case.name, case.rng.choice(TEXTS).replace("/", "").replace("\0", "") + case.name]
    name = names[case.rng.random() < 0.3]
    for side in ("ir", "vi"):
        (case.folder / side).mkdir()
        (case.folder / side / "a.png").write_bytes(encoded(".png", scene()))
        try:
            (case.folder / side / name).write_bytes(case.data)
        except OSError:
            raise InputError("a name that the file system refuses") from None
    out, model = case.folder / "out", largest_of_both(case.folder.parent)
    words = ("--ir", case.folder / "ir", "--vi", case.folder / "vi", "--out", out)
    try:
        case.command("fuse", *words, "--model", model, "--engine", "onnxruntime")
    finally:
        for path in out.glob("*") if out.is_dir() else ():
            case.require(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None, f"{path.name} is not whole")
    given = [path for path in (case.folder / "ir").iterdir() if not path.name.startswith(".")]
    case.require(len(list(out.iterdir())) == len(given), "a picture is missing")


def video_seeds(folder: Path) -> list[Seed]:
    """Every codec that is written, colour and grey."""
    seeds = []
    for suffix, codec in (
        (".mp4", "h264"),
        (".mkv", "h264"),
        (".mkv", "ffv1"),
        (".mkv", "mjpeg"),
        (".avi", "mjpeg"),
    ):
        for channels in (1, 3):
            path = folder / f"{codec}{channels}{suffix}"
            encoder = Encoder(str(path), codec, scene(channels=channels), rate=Fraction(25))
            for index in range(4):
                encoder.write(scene(channels=channels, seed=index), index / 25)
            encoder.close()
            seeds.append(Seed(path.name, path.read_bytes()))
    return seeds


def read_video(case: Case) -> None:
    out, model = case.out("out.mkv"), largest_of_both(case.folder.parent)
    case.command(
        "fuse",
        "--ir",
        case.path,
        "--vi",
        case.path,
        "--out",
        out,
        "--model",
        model,
        "--engine",
        "onnxruntime",
    )
    expected, found = case.reference(lambda: frames_of(case.path)), frames_of(out)
    case.require(len(found) == len(expected) > 0, f"{len(found)} frames, OpenCV reads {len(expected)}")
    if not case.reference(lambda: is_whole(case.path)):
        return  # what a decoder shows in place of damaged parts depends on what was in its memory
    for one, other in zip(found, expected, strict=True):
        if one.shape == other.shape:  # a video may change its size on the way
            same_picture(case, one, other)


def is_whole(path: Path) -> bool:
    """Whether PyAV by itself decodes the file, and FFmpeg reports no error on the way."""
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as errors, av.open(str(path)) as container:
            whole = all(not frame.is_corrupt for frame in container.decode(video=0))
        return whole and not errors
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return False
    finally:
        av.logging.set_level(None)


def frames_of(path: Path) -> Sequence[np.ndarray]:
    """The frames that OpenCV reads by itself."""
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        done, image = capture.read()
        if not done:
            return found
        found.append(image)


READERS = (
    Reader("pictures", picture_seeds, of_picture, read_picture),
    Reader("folders", picture_seeds, of_picture, read_folder),
    Reader("videos", video_seeds, of_bytes, read_video),
)
