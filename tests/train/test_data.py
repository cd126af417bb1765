"""Pairs and patches: problems are reported, and a batch depends only on its seed and step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufuser.runtime.errors import InputError
from ufuser.runtime.images import as_float, read_grey
from ufuser.train import data
from ufuser.train.data import Pair, PatchSampler, find_pairs
from ufuser.train.sections import DataRecipe

RNG = np.random.default_rng(0)
WritePairs = Callable[..., Path]


def test_pairs_come_in_the_order_of_their_names(tmp_path: Path, write_pairs: WritePairs) -> None:
    write_pairs(tmp_path, {"b": (16, 20), "a": (20, 16), "c.1": (16, 16)})
    (tmp_path / "ir" / "notes.txt").write_text("no image")
    (tmp_path / "vi" / "a.png").rename(tmp_path / "vi" / "a.PNG")
    assert find_pairs(tmp_path) == [
        Pair("a", tmp_path / "ir" / "a.png", tmp_path / "vi" / "a.PNG"),
        Pair("b", tmp_path / "ir" / "b.png", tmp_path / "vi" / "b.png"),
        Pair("c.1", tmp_path / "ir" / "c.1.png", tmp_path / "vi" / "c.1.png"),
    ]


def test_all_problems_are_reported_at_once_by_name(tmp_path: Path, write_pairs: WritePairs) -> None:
    write_pairs(tmp_path, dict.fromkeys(("left", "right", "size", "broken", "fine"), (24, 32)))
    (tmp_path / "vi" / "left.png").unlink()
    (tmp_path / "ir" / "right.png").unlink()
    cv2.imwrite(str(tmp_path / "vi" / "size.png"), np.zeros((24, 40), np.uint8))
    whole = (tmp_path / "ir" / "broken.png").read_bytes()
    (tmp_path / "ir" / "broken.png").write_bytes(whole[: len(whole) // 2])
    cv2.imwrite(str(tmp_path / "ir" / "fine.bmp"), np.zeros((24, 32), np.uint8))
    with pytest.raises(InputError) as error:
        find_pairs(tmp_path)
    for message in (
        "left is only in ir/",
        "right is only in vi/",
        "size is 32x24 in infrared and 40x24 in visible",
        "broken.png is truncated",
        "ir/ holds more than one fine",
    ):
        assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_only_the_first_five_problems_are_listed(tmp_path: Path, write_pairs: WritePairs) -> None:
    write_pairs(tmp_path, {f"p{i}": (16, 16) for i in range(8)})
    for i in range(7):
        (tmp_path / "vi" / f"p{i}.png").unlink()
    with pytest.raises(InputError, match=r"p4 is only in ir/ \(and 2 more\)$"):
        find_pairs(tmp_path)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "ir").mkdir()
    with pytest.raises(InputError, match=r"no folder .*vi: expected"):
        find_pairs(tmp_path)
    (tmp_path / "vi").mkdir()
    with pytest.raises(InputError, match="no images in"):
        find_pairs(tmp_path)


def test_images_the_network_cannot_take_are_refused_before_training(
    tmp_path: Path, write_pairs: WritePairs
) -> None:
    write_pairs(tmp_path, {"low": (15, 40), "fine": (16, 16)})
    with pytest.raises(InputError, match="low is 40x15, smaller than 16x16"):
        find_pairs(tmp_path)


RECIPE = DataRecipe(
    validation="-", crop=16, gamma=(0.5, 2.0), gain=(0.5, 1.5), noise=0.05, invert=0.5, scale=(0.5, 1.0)
)
PLAIN = DataRecipe(validation="-", crop=16, scale=(1.0, 1.0))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Two textured pairs, one of 16 bit."""
    root = tmp_path_factory.mktemp("pairs")
    found = []
    for name, depth in (("a", np.uint8), ("b", np.uint16)):
        for side in ("ir", "vi"):
            image = RNG.integers(0, np.iinfo(depth).max, (40, 56), dtype=depth)
            assert cv2.imwrite(str(root / f"{side}_{name}.png"), image)
        found.append(Pair(name, root / f"ir_{name}.png", root / f"vi_{name}.png"))
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), steps=st.lists(st.integers(0, 10**6), min_size=1, max_size=4))
def test_a_batch_depends_on_seed_and_step_alone(pairs: list[Pair], seed: int, steps: list[int]) -> None:
    worn = PatchSampler(pairs, RECIPE, seed)
    for step in steps:  # what was asked before makes no difference
        ir, vi = worn.batch(step, 3)
    fresh_ir, fresh_vi = PatchSampler(pairs, RECIPE, seed).batch(steps[-1], 3)
    np.testing.assert_array_equal(ir, fresh_ir)
    np.testing.assert_array_equal(vi, fresh_vi)
    for x in (ir, vi):
        assert x.shape == (3, 1, 16, 16)
        assert x.dtype == np.float32
        assert x.flags.c_contiguous
        assert x.min() >= 0
        assert x.max() <= 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_parts_of_a_batch_are_the_batch(pairs: list[Pair], size: int) -> None:
    """Several processes together see the batch of one."""
    whole = PatchSampler(pairs, RECIPE, 9).batch(4, 6)
    for rank in range(size):
        part = PatchSampler(pairs, RECIPE, 9).batch(4, 6, slice(rank, None, size))
        for mine, all_of_it in zip(part, whole, strict=True):
            np.testing.assert_array_equal(mine, all_of_it[rank::size])


def test_other_seeds_and_steps_give_other_batches(pairs: list[Pair]) -> None:
    batches = [
        PatchSampler(pairs, RECIPE, seed).batch(step, 1)[0].tobytes() for seed in (1, 2) for step in (0, 1)
    ]
    assert len(set(batches)) == 4


def test_the_cache_changes_nothing_but_how_often_files_are_read(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []

    def counted(path: Path) -> np.ndarray:
        reads.append(path)
        return read_grey(path)

    monkeypatch.setattr(data, "read_grey", counted)
    batches, counts = [], []
    for room in (0, 1):
        recipe = DataRecipe(validation="-", crop=16, cache_mib=room)
        sampler = PatchSampler(pairs, recipe, 0)
        batches.append([sampler.batch(step, 2)[0] for step in range(5)])
        counts.append(len(reads))
        reads.clear()
    np.testing.assert_array_equal(batches[0], batches[1])
    assert counts[1] <= 4 < counts[0]


def test_both_sources_are_cut_at_one_place(tmp_path: Path) -> None:
    image = RNG.integers(0, 256, (64, 80), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "x.png"), image)
    pair = Pair("x", tmp_path / "x.png", tmp_path / "x.png")
    recipe = DataRecipe(validation="-", crop=16, scale=(0.3, 1.0))
    ir, vi = PatchSampler([pair], recipe, 0).batch(0, 8)
    np.testing.assert_array_equal(ir, vi)
    # At scale 1 every patch is a piece of the image, turned or flipped.
    patches = PatchSampler([pair], PLAIN, 0).batch(0, 4)[0][:, 0]
    windows = np.lib.stride_tricks.sliding_window_view(as_float(image), (16, 16))
    for patch in patches:
        turned = [np.rot90(x, k) for x in (patch, patch[:, ::-1]) for k in range(4)]
        assert any((windows == x).all((2, 3)).any() for x in turned)


def test_inversion_is_for_infrared_only(pairs: list[Pair]) -> None:
    black_hot = DataRecipe(validation="-", crop=16, scale=(1.0, 1.0), invert=1.0)
    ir, vi = PatchSampler(pairs, PLAIN, 5).batch(0, 4)
    inverted, same = PatchSampler(pairs, black_hot, 5).batch(0, 4)
    np.testing.assert_array_equal(vi[0], same[0])
    np.testing.assert_allclose(inverted[0], 1 - ir[0], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(16, 60),
    width=st.integers(16, 60),
    crop=st.sampled_from([16, 32, 64]),
    scale=st.tuples(st.floats(0.05, 2), st.floats(0.05, 2)).map(lambda s: (min(s), max(s))),
)
def test_images_smaller_than_the_patch_are_enlarged_to_fill_it(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, crop: int, scale: tuple[float, float]
) -> None:
    path = tmp_path_factory.mktemp("small") / "x.png"
    ramp = np.linspace(40, 220, width, dtype=np.uint8)[None].repeat(height, 0)
    assert cv2.imwrite(str(path), ramp)
    recipe = DataRecipe(validation="-", crop=crop, scale=scale)
    ir, _ = PatchSampler([Pair("x", path, path)], recipe, 0).batch(0, 2)
    assert ir.shape == (2, 1, crop, crop)
    assert 40 / 255 - 1e-4 <= ir.min() <= ir.max() <= 220 / 255 + 1e-4  # no invented values, no empty border
    if width <= height and width <= crop * min(1, 1 / scale[1]):
        assert np.ptp(ir) > 0.5 * np.ptp(ramp) / 255  # the whole width is in the patch


def test_a_flat_image_still_gives_patches(tmp_path: Path) -> None:
    """Patches without contrast are redrawn a limited number of times."""
    assert cv2.imwrite(str(tmp_path / "x.png"), np.full((32, 32), 200, np.uint8))
    pair = Pair("x", tmp_path / "x.png", tmp_path / "x.png")
    ir, vi = PatchSampler([pair], PLAIN, 0).batch(0, 2)
    assert np.ptp(ir) == np.ptp(vi) == 0


@pytest.mark.parametrize("level", [0, 1, 200, 255])
def test_flat_parts_of_an_image_are_avoided(tmp_path: Path, level: int) -> None:
    """Black ones, too, which the release's own comparison keeps."""
    image = np.full((32, 128), level, np.uint8)
    image[:, :48] = RNG.integers(0, 256, (32, 48), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "x.png"), image)
    pair = Pair("x", tmp_path / "x.png", tmp_path / "x.png")
    ir, _ = PatchSampler([pair], PLAIN, 0).batch(0, 32)
    assert sum(np.ptp(x) > 0.1 for x in ir) == 32


@pytest.mark.parametrize("shared", [True, False])
def test_shared_jitter_gives_both_images_one_tone(tmp_path: Path, shared: bool) -> None:
    image = RNG.integers(20, 236, (40, 40), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "x.png"), image)
    recipe = DataRecipe(
        validation="-",
        crop=16,
        scale=(1.0, 1.0),
        gamma=(0.5, 2.0),
        gain=(0.5, 1.5),
        shared_jitter=shared,
    )
    pair = Pair("x", tmp_path / "x.png", tmp_path / "x.png")
    first, second = PatchSampler([pair], recipe, 0).batch(0, 8)
    plain = PatchSampler([pair], DataRecipe(validation="-", crop=16, scale=(1.0, 1.0)), 0).batch(0, 8)[0]
    alike = [np.array_equal(a, b) for a, b in zip(first, second, strict=True)]
    assert all(alike) if shared else not any(alike)
    moved = [not np.array_equal(a, b) for a, b in zip(first, plain, strict=True)]
    assert all(moved)  # there was a tone to share
    assert len({round(float(x.mean() / y.mean()), 3) for x, y in zip(first, plain, strict=True)}) > 4


def test_patches_avoid_the_margin_where_the_image_has_room(tmp_path: Path) -> None:
    image = RNG.integers(0, 100, (40, 56), dtype=np.uint8)
    image[5:-5, 5:-5] = RNG.integers(120, 256, (30, 46), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "x.png"), image)
    pair = Pair("x", tmp_path / "x.png", tmp_path / "x.png")
    for margin, scale in ((5, (1.0, 1.0)), (5, (0.3, 1.0)), (0, (1.0, 1.0))):
        recipe = DataRecipe(validation="-", crop=16, scale=scale, margin=margin)
        patches = PatchSampler([pair], recipe, 0).batch(0, 64)[0]
        assert (patches.min() >= 120 / 255 - 1e-6) is np.bool_(margin > 0)
    assert cv2.imwrite(str(tmp_path / "x.png"), image[:20, :20])  # two pixels each side are left
    recipe = DataRecipe(validation="-", crop=16, scale=(1.0, 1.0), margin=60)
    patches = PatchSampler([pair], recipe, 0).batch(0, 8)[0]
    middle = as_float(image[2:18, 2:18])
    turned = [np.rot90(x, k) for x in (middle, middle[:, ::-1]) for k in range(4)]
    assert all(any(np.array_equal(p[0], x) for x in turned) for p in patches)
