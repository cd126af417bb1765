"""The built-in fusers: identity on equal sources, detail of both kept, values in [0, 1]."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufuser.runtime.errors import InputError
from ufuser.runtime.images import as_float, read_grey
from ufuser.train.data import Pair, find_pairs
from ufuser.train.objectives.sensing import PseudoExample, examples, examples_in_turn, find_fused
from ufuser.train.pseudo_fusers import FUSERS, write_fused

RNG = np.random.default_rng(0)
each = pytest.mark.parametrize("name", list(FUSERS))


def texture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.5), np.float32)


@each
def test_an_image_fused_with_itself_is_the_image(name: str) -> None:
    x = texture()
    np.testing.assert_allclose(FUSERS[name](x, x), x, atol=2e-5)


@each
@settings(max_examples=15, deadline=None)
@given(height=st.integers(16, 70), width=st.integers(16, 70), seed=st.integers(0, 99))
def test_any_size_and_content_gives_an_image(name: str, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ir, vi = (rng.integers(0, 2, (height, width)).astype(np.float32) for _ in range(2))
    fused = FUSERS[name](ir, vi)
    assert fused.shape == (height, width)
    assert fused.dtype == np.float32
    assert fused.min() >= 0
    assert fused.max() <= 1


@each
def test_black_and_flat_images_give_no_nan(name: str) -> None:
    black, grey = np.zeros((32, 32), np.float32), np.full((32, 32), 0.5, np.float32)
    assert np.abs(FUSERS[name](black, black)).max() < 1e-5
    fused = FUSERS[name](black, grey)
    assert np.isfinite(fused).all()
    assert np.ptp(fused[8:-8, 8:-8]) < 0.02


@each
@pytest.mark.parametrize("infrared", [True, False])
def test_detail_of_either_source_is_kept(name: str, infrared: bool) -> None:
    flat, rich = np.full((48, 64), 0.5, np.float32), texture()
    fused = FUSERS[name](rich, flat) if infrared else FUSERS[name](flat, rich)
    inside = (slice(12, -12), slice(12, -12))
    high = [x - cv2.GaussianBlur(x, (0, 0), 3) for x in (fused, rich)]
    gain = (high[0][inside] * high[1][inside]).sum() / (high[1][inside] ** 2).sum()
    assert gain > (0.5 if name == "mean" else 0.85)  # a mean of one detail and nothing is half of it


def test_the_fusers_are_different_from_each_other() -> None:
    ir, vi = texture(seed=1), texture(seed=2)
    fused = [f(ir, vi) for f in FUSERS.values()]
    for k, a in enumerate(fused):
        for b in fused[k + 1 :]:
            assert np.abs(a - b).max() > 0.01


@pytest.fixture
def pairs(project: Path) -> list[Pair]:
    return find_pairs(project / "data")


def test_fused_images_are_written_once_and_kept(pairs: list[Pair], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "mean"
    written = write_fused("mean", pairs, folder)
    assert list(written) == [p.name for p in pairs]
    for pair in pairs:
        ir, vi = (as_float(read_grey(p)) for p in pair.images)
        stored = read_grey(written[pair.name])
        assert np.abs(as_float(stored) - FUSERS["mean"](ir, vi)).max() <= 0.5 / 255 + 1e-6
    stamps = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    (folder / "b.png").unlink()
    write_fused("mean", pairs, folder)
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir() if p.stem != "b"} == {
        p: t for p, t in stamps.items() if p.stem != "b"
    }
    assert sorted(p.name for p in folder.iterdir()) == ["a.png", "b.png", "c.png", "d.png"]
    with pytest.raises(InputError, match="cannot create folder"):
        write_fused("mean", pairs, folder / "a.png" / "below")


def fused_folder(root: Path, pairs: list[Pair], suffix: str = "png") -> Path:
    root.mkdir(parents=True)
    for pair in pairs:
        assert cv2.imwrite(str(root / f"{pair.name}.{suffix}"), read_grey(pair.vi))
    return root


def test_folders_and_fusers_are_found_together(pairs: list[Pair], tmp_path: Path) -> None:
    folder = fused_folder(tmp_path / "method" / "scenes", pairs, "jpg")
    (folder / "notes.txt").write_text("no image")
    assert cv2.imwrite(str(folder / "other.png"), np.zeros((16, 16), np.uint8))  # more than the pairs is fine
    out = tmp_path / "pseudo"
    found = find_fused(["laplacian", str(folder)], pairs, out)
    assert list(found) == ["method/scenes", "laplacian"]  # not where it lay on this machine
    assert {found["method/scenes"][p.name] for p in pairs} == {folder / f"{p.name}.jpg" for p in pairs}
    assert {found["laplacian"][p.name] for p in pairs} == {out / "laplacian" / f"{p.name}.png" for p in pairs}

    every = examples(found, pairs, "ir")
    assert len(every) == 2 * len(pairs)
    assert PseudoExample("a", folder / "a.jpg", pairs[0].ir) in every
    assert {e.source for e in examples(found, pairs, "vi")} == {p.vi for p in pairs}
    turns = examples_in_turn(found, pairs, "vi")
    assert [e.name for e in turns] == ["a", "b", "c", "d"]
    assert [e.fused.parent for e in turns] == [folder, out / "laplacian"] * 2


def test_wrong_fused_images_are_reported_by_name_and_nothing_is_written(
    pairs: list[Pair], tmp_path: Path
) -> None:
    folder, out = fused_folder(tmp_path / "m", pairs), tmp_path / "pseudo"
    (folder / "a.png").unlink()
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:60])
    assert cv2.imwrite(str(folder / "c.png"), np.zeros((20, 24), np.uint8))
    assert cv2.imwrite(str(folder / "d.bmp"), np.zeros((43, 50), np.uint8))
    with pytest.raises(InputError) as error:
        find_fused(["mean", str(folder)], pairs, out)
    for message in (
        f"pseudo={folder}: ",
        "it holds more than one d",
        "it holds no a",
        "b.png is truncated",
        "c is 24x20 instead of 21x33",
    ):
        assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not out.exists()


def test_only_the_first_five_problems_are_listed(
    tmp_path: Path, write_pairs: object, pairs: list[Pair]
) -> None:
    (tmp_path / "empty").mkdir()
    more = [Pair(f"p{k}", pairs[0].ir, pairs[0].vi) for k in range(8)]
    with pytest.raises(InputError, match=r"it holds no p4 \(and 3 more\)$"):
        find_fused([str(tmp_path / "empty")], more, tmp_path / "pseudo")


def test_a_misspelt_fuser_and_the_same_folder_twice(pairs: list[Pair], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pseudo=laplace: expected a folder of fused images or one of lap"):
        find_fused(["laplace"], pairs, tmp_path)
    folders = [str(fused_folder(tmp_path / k / "m" / "s", pairs)) for k in "12"]
    with pytest.raises(InputError, match="another folder m/s is given, too"):
        find_fused(folders, pairs, tmp_path / "pseudo")


def test_files_of_an_earlier_run_with_other_pairs_are_noticed(pairs: list[Pair], tmp_path: Path) -> None:
    find_fused(["mean"], pairs, tmp_path / "pseudo")
    assert cv2.imwrite(str(tmp_path / "pseudo" / "mean" / "a.png"), np.zeros((16, 16), np.uint8))
    with pytest.raises(InputError, match=r"mean: a is 16x16 instead of 32x24"):
        find_fused(["mean"], pairs, tmp_path / "pseudo")
