"""`--task medical`: the colour of PET or SPECT on either side, luma fused; CT and MRI stay grey."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ufuser.cli.medical import arrange, has_colour
from ufuser.runtime.color import luma
from ufuser.runtime.errors import InputError
from ufuser.runtime.images import read_image, write_image
from ufuser.runtime.sinks import VideoSink

Command = Callable[..., Any]
SIZE = 96


def ellipse(height: float, width: float, row: float = 0.0, column: float = 0.0) -> np.ndarray:
    """Of a slice with axes from −1 to 1: 1 in the middle of an ellipse, 0 at its border, below outside."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    return np.asarray(1 - np.hypot((y - row) / height, (x - column) / width))


def mri() -> np.ndarray:
    """A head: bright scalp, grey tissue, dark ventricles. uint8, grey."""
    image = np.zeros((SIZE, SIZE))
    image[ellipse(0.9, 0.75) > 0] = 0.65
    image[ellipse(0.8, 0.65) > 0] = 0.4
    for side in (-0.15, 0.15):
        image[ellipse(0.3, 0.08, column=side) > 0] = 0.05
    return np.rint(255 * image).astype(np.uint8)


def pet() -> np.ndarray:
    """Uptake in false colour, strong in one lobe, black outside the head. uint8, BGR."""
    uptake = np.clip(0.5 * ellipse(0.85, 0.7), 0, 1) + 0.5 * np.clip(ellipse(0.4, 0.3, -0.2, 0.3), 0, 1)
    colours = cv2.applyColorMap(np.rint(255 * np.clip(uptake, 0, 1)).astype(np.uint8), cv2.COLORMAP_JET)
    return np.where((uptake > 0.02)[..., None], colours, 0).astype(np.uint8)


def ct() -> np.ndarray:
    """Bone alone. uint8, grey."""
    return np.where((ellipse(0.9, 0.75) > 0) & (ellipse(0.8, 0.65) < 0), 230, 15).astype(np.uint8)


def as_colour_file(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name, image in {"mri": mri(), "pet": pet(), "ct": ct(), "mri3": as_colour_file(mri())}.items():
        write_image(tmp_path / f"{name}.png", image)
    write_image(tmp_path / "small.png", cv2.resize(pet(), (48, 48), interpolation=cv2.INTER_AREA))
    return tmp_path


def test_what_has_colour() -> None:
    assert has_colour(pet())
    assert has_colour((pet() / np.float32(255)).astype(np.float32))
    assert has_colour(pet().astype(np.uint16) * 257)
    assert not has_colour(mri())
    assert not has_colour(as_colour_file(mri()))
    data = cv2.imencode(".jpg", as_colour_file(mri()), [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    coded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert coded is not None
    assert not has_colour(coded)
    marked = as_colour_file(mri())
    marked[2:4, 2:4] = (0, 0, 255)  # a mark burnt in
    assert not has_colour(marked)


def test_the_coloured_picture_takes_the_visible_role_from_either_side() -> None:
    for pair in ((mri(), pet()), (pet(), mri()), (as_colour_file(mri()), pet())):
        structural, functional = arrange(*pair)
        assert np.array_equal(structural, mri())
        assert np.array_equal(functional, pet())
    for pair in ((mri(), ct()), (as_colour_file(mri()), as_colour_file(ct()))):
        first, second = arrange(*pair)
        assert np.array_equal(first, mri())  # no colour: the order given, both grey
        assert np.array_equal(second, ct())


def test_two_coloured_or_unequal_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="both pictures have colour"):
        arrange(pet(), pet())
    with pytest.raises(InputError, match="the pictures are 96x96 and 48x96: expected the same size"):
        arrange(mri(), pet()[:, :48])


@pytest.mark.parametrize(
    ("ir", "vi"), [("mri.png", "pet.png"), ("pet.png", "mri.png"), ("mri3.png", "pet.png")]
)
def test_luma_is_fused_and_hue_kept(
    scans: Path, quick_command: Command, max_model: Path, ir: str, vi: str
) -> None:
    words = ("fuse", "--ir", ir, "--vi", vi, "--out", "out.png", "--task", "medical", "--model", max_model)
    done = quick_command(*words)
    assert done.returncode == 0, done.stderr
    fused, functional = read_image(scans / "out.png"), pet()
    expected = np.maximum(mri(), luma(functional))
    # Every channel rises with the luma: hue and strength of the colour stay, where no channel is cut off.
    predicted = functional.astype(int) + (expected.astype(int) - luma(functional))[..., None]
    whole = (predicted.min(axis=2) >= 0) & (predicted.max(axis=2) <= 255)
    assert whole.mean() > 0.5
    assert np.abs(fused - predicted)[whole].max() <= 3
    risen = whole & (expected > luma(functional)) & (functional.max(axis=2) - functional.min(axis=2) > 60)
    assert risen.sum() > 100
    hue, kept = (cv2.cvtColor(x, cv2.COLOR_BGR2HSV)[..., 0].astype(int) for x in (functional, fused))
    turn = np.abs(hue - kept)[risen]
    assert np.minimum(turn, 180 - turn).max() <= 3  # of 180
    # Where PET is black the head is grey.
    black = (functional.max(axis=2) == 0) & (mri() > 0)
    assert black.sum() > 50
    assert np.ptp(fused[black], axis=1).max() <= 2


def test_two_grey_scans_give_a_grey_one(scans: Path, quick_command: Command, max_model: Path) -> None:
    words = ("fuse", "--ir", "mri3.png", "--vi", "ct.png", "--out", "out.png", "--task", "medical")
    assert quick_command(*words, "--model", max_model).returncode == 0
    assert np.array_equal(read_image(scans / "out.png"), np.maximum(mri(), ct()))


def test_grey_leaves_the_fused_luma_alone(scans: Path, quick_command: Command, max_model: Path) -> None:
    words = ("fuse", "--ir", "pet.png", "--vi", "mri.png", "--out", "out.png", "--task", "medical", "--grey")
    assert quick_command(*words, "--model", max_model).returncode == 0
    assert np.array_equal(read_image(scans / "out.png"), np.maximum(mri(), luma(pet())))


def test_a_smaller_pet_is_scaled_to_the_mri(scans: Path, quick_command: Command, max_model: Path) -> None:
    words = ("fuse", "--ir", "small.png", "--vi", "mri.png", "--out", "out.png", "--task", "medical")
    refused = quick_command(*words, "--model", max_model)
    assert refused.returncode == 2
    assert "the picture of --ir is 48x48, that of --vi 96x96" in refused.stderr
    assert quick_command(*words, "--model", max_model, "--resize").returncode == 0
    assert read_image(scans / "out.png").shape == (SIZE, SIZE, 3)


def test_folders_judge_each_pair_on_its_own(scans: Path, quick_command: Command, max_model: Path) -> None:
    for side, images in {"a": (mri(), mri()), "b": (pet(), ct())}.items():
        (scans / side).mkdir()
        for name, image in zip(("1.png", "2.png"), images, strict=True):
            write_image(scans / side / name, image)
    words = ("fuse", "--ir", "b", "--vi", "a", "--out", "out", "--task", "medical", "--model", max_model)
    assert quick_command(*words).returncode == 0
    assert read_image(scans / "out" / "1.png").ndim == 3
    assert read_image(scans / "out" / "2.png").ndim == 2


def test_raw_counts_are_noted_on_either_side(scans: Path, quick_command: Command, max_model: Path) -> None:
    write_image(scans / "raw.png", ct().astype(np.uint16) * 8)
    words = ("fuse", "--ir", "mri.png", "--vi", "raw.png", "--out", "out.png", "--task", "medical")
    done = quick_command(*words, "--model", max_model)
    assert done.returncode == 0
    assert "16 bits with a maximum of 1840 look like raw counts and will be dark" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vi", "pet.png", "--task", "medical"], "both pictures have colour"),
        (
            ["--vi", "mri.png", "--task", "medicine"],
            "--task medicine: expected one of infrared-visible, medical",
        ),
        (["--vi", "gone.png", "--task", "medical"], "gone.png"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    scans: Path, quick_command: Command, max_model: Path, words: list[str], message: str
) -> None:
    before = sorted(scans.iterdir())
    done = quick_command("fuse", "--ir", "pet.png", "--out", "out.png", "--model", max_model, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(scans.iterdir()) == before


def test_videos_are_refused(scans: Path, quick_command: Command, max_model: Path) -> None:
    from ufuser.runtime.frame import Frame

    with VideoSink(scans / "a.mkv", 5.0) as sink:
        sink.write(Frame(as_colour_file(mri()), 0.0, 0, ""))
    words = ("fuse", "--ir", "a.mkv", "--vi", "a.mkv", "--out", "out.mkv", "--task", "medical")
    done = quick_command(*words, "--model", max_model)
    assert done.returncode == 2
    assert "expected two pictures or two folders" in done.stderr
    assert not (scans / "out.mkv").exists()


def test_without_the_task_nothing_changes(scans: Path, quick_command: Command, max_model: Path) -> None:
    """The default takes the visible side's layout, coloured infrared by its luma."""
    words = ("fuse", "--ir", "pet.png", "--vi", "mri3.png", "--out", "out.png", "--model", max_model)
    assert quick_command(*words).returncode == 0
    first = read_image(scans / "out.png")
    assert first.ndim == 3
    assert np.ptp(first, axis=2).max() <= 2
    assert quick_command(*words, "--task", "infrared-visible").returncode == 0
    assert np.array_equal(read_image(scans / "out.png"), first)


def test_help_describes_the_roles(quick_command: Command) -> None:
    message = quick_command("fuse", "--help").stdout
    assert "--task" in message
    assert "The picture with colour (PET" in " ".join(message.split())
