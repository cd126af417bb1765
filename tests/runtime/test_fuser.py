"""The fuser around a network that takes the maximum; the fused picture must be exactly that."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufuser import Fuser, InputError
from ufuser.runtime.color import luma
from ufuser.runtime.engines import CPU_ENGINES

FULL = {"uint8": 255, "uint16": 65535, "float32": 1}


@pytest.fixture(scope="module", params=CPU_ENGINES)
def fuser(request: pytest.FixtureRequest, max_model: Path) -> Fuser:
    pytest.importorskip(request.param)
    return Fuser.open(max_model, request.param, threads=1)


def picture(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    level = np.random.default_rng(seed).random(shape)
    return (level * FULL[dtype]).astype(dtype)


# Sizes and borders


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(16, 90),
    width=st.integers(16, 90),
    dtype=st.sampled_from(sorted(FULL)),
    seed=st.integers(0, 9),
)
def test_every_size_gives_exactly_the_maximum(
    fuser: Fuser, height: int, width: int, dtype: str, seed: int
) -> None:
    ir, vi = picture((height, width), dtype, seed), picture((height, width), dtype, seed + 100)
    fused = fuser.fuse(ir, vi)
    assert fused.dtype == vi.dtype
    np.testing.assert_array_equal(fused, np.maximum(ir, vi))


@pytest.mark.parametrize("size", [(17, 23), (20, 16), (31, 41), (16, 16)])
def test_padding_reflects_the_picture(make_model: Any, size: tuple[int, int]) -> None:
    # A network that shows what lies three pixels down and right of each.
    kernel = np.zeros((1, 1, 7, 7), np.float32)
    kernel[0, 0, 6, 6] = 1
    shift = make_model(
        "shift",
        [("Conv", ["ir", "k"], ["moved"], {"pads": [3] * 4}), ("Min", ["moved", "vi"], ["fused"], {})],
        constants={"k": kernel},
    )
    height, width = size
    ir, vi = picture(size), np.full(size, 255, np.uint8)
    fused = Fuser.open(shift).fuse(ir, vi)
    down, right = -height % 8, -width % 8
    padded = np.pad(ir, ((0, down), (0, right)), "reflect")
    seen = np.pad(padded, ((0, 3), (0, 3)))[3 : 3 + height, 3 : 3 + width]
    np.testing.assert_array_equal(fused, seen)


@pytest.mark.parametrize(("height", "width"), [(15, 64), (64, 15), (1, 1)])
def test_too_small(fuser: Fuser, height: int, width: int) -> None:
    small = picture((height, width))
    with pytest.raises(InputError, match=f"{width}x{height}.*16x16"):
        fuser.fuse(small, small)


def test_different_sizes_are_both_named(fuser: Fuser) -> None:
    with pytest.raises(InputError, match="infrared is 40x32, visible is 48x32: expected the same size"):
        fuser.fuse(picture((32, 40)), picture((32, 48)))


# Types


@pytest.mark.parametrize("vi_type", sorted(FULL))
@pytest.mark.parametrize("ir_type", sorted(FULL))
def test_depths_may_be_mixed(fuser: Fuser, ir_type: str, vi_type: str) -> None:
    ir, vi = picture((24, 40), ir_type, 1), picture((24, 40), vi_type, 2)
    expected = np.maximum(ir / FULL[ir_type], vi / FULL[vi_type])
    fused = fuser.fuse(ir, vi)
    assert fused.dtype == vi.dtype
    rounding = 0.51 / FULL[vi_type] if vi_type != "float32" else 1e-6
    np.testing.assert_allclose(fused / FULL[vi_type], expected, atol=rounding)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_any_float_gives_float32(fuser: Fuser, dtype: str) -> None:
    ir = picture((16, 16), "float32").astype(dtype)
    fused = fuser.fuse(ir, ir)
    assert fused.dtype == np.float32
    np.testing.assert_array_equal(fused, ir.astype(np.float32))


@pytest.mark.parametrize("side", ["infrared", "visible"])
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN"), (np.inf, "inf"), (1.5, r"1\.5"), (-0.1, r"-0\.1")]
)
def test_floats_beyond_the_range(fuser: Fuser, side: str, value: float, message: str) -> None:
    good, bad = picture((16, 16), "float32"), picture((16, 16), "float32")
    bad[3, 5] = value
    with pytest.raises(InputError, match=f"{side} holds .*{message}"):
        fuser.fuse(*((bad, good) if side == "infrared" else (good, bad)))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((32, 32), np.int32),
        np.zeros((32, 32), bool),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((32, 32, 1), np.uint8),
        np.zeros(32, np.uint8),
        None,
    ],
    ids=["int32", "bool", "four channels", "one channel axis", "one axis", "no array"],
)
def test_other_layouts_and_types(fuser: Fuser, bad: Any) -> None:
    with pytest.raises(InputError, match=r"infrared is .*expected"):
        fuser.fuse(bad, np.zeros((32, 32), np.uint8))


@pytest.mark.parametrize(
    "view", [np.s_[:, ::-1], np.s_[::2, ::2], np.s_[5:45, 3:50]], ids=["mirrored", "every second", "window"]
)
def test_views_need_not_be_contiguous(fuser: Fuser, view: Any) -> None:
    ir, vi = picture((64, 80, 3), seed=1)[view], picture((64, 80, 3), seed=2)[view]
    whole = fuser.fuse(np.ascontiguousarray(ir), np.ascontiguousarray(vi))
    np.testing.assert_array_equal(fuser.fuse(ir, vi), whole)


# Colour


@pytest.mark.parametrize("dtype", sorted(FULL))
def test_grey_in_colour_stays_grey(fuser: Fuser, dtype: str) -> None:
    ir, vi = picture((33, 47), dtype, 1), picture((33, 47), dtype, 2)
    fused = fuser.fuse(ir, cv2.merge([vi, vi, vi]))
    assert fused.shape == (33, 47, 3)
    assert fused.dtype == vi.dtype
    slack = 1 if dtype != "float32" else 1e-5
    for channel in cv2.split(fused):
        np.testing.assert_allclose(channel, np.maximum(ir, vi), atol=slack)


@pytest.mark.parametrize("dtype", sorted(FULL))
def test_the_colour_is_that_of_the_visible_picture(fuser: Fuser, dtype: str) -> None:
    vi = picture((33, 47, 3), dtype)
    fused = fuser.fuse(np.zeros((33, 47), np.uint8), vi)
    # Two conversions, each rounded; OpenCV computes 16-bit ones with coefficients of 14 bits.
    slack = {"uint8": 2, "uint16": 32, "float32": 2e-3}[dtype]
    np.testing.assert_allclose(fused.astype(float), vi.astype(float), atol=slack)


@pytest.mark.parametrize("dtype", sorted(FULL))
def test_bright_infrared_keeps_the_saturation(fuser: Fuser, dtype: str) -> None:
    full = FULL[dtype]
    vi = np.full((16, 16, 3), (0.3 * full, 0.2 * full, 0.25 * full)).astype(dtype)
    ir = np.full((16, 16), 0.5 * full).astype(dtype)
    fused = fuser.fuse(ir, vi).astype(float)
    slack = 2 if dtype == "uint8" else 0.002 * full
    np.testing.assert_allclose(fused[..., 0] - fused[..., 1], 0.1 * full, atol=slack)
    np.testing.assert_allclose(luma(fused.astype(dtype)), ir, atol=slack)


def test_colour_that_leaves_the_range_is_clipped(fuser: Fuser) -> None:
    vi = np.zeros((16, 16, 3), np.float32)
    vi[..., 2] = 1
    fused = fuser.fuse(np.ones((16, 16), np.float32), vi)
    assert fused.min() >= 0
    assert fused.max() <= 1


def test_infrared_in_colour_counts_as_its_luma(fuser: Fuser) -> None:
    ir, vi = picture((24, 24, 3), seed=1), picture((24, 24), seed=2)
    np.testing.assert_array_equal(fuser.fuse(ir, vi), fuser.fuse(luma(ir), vi))


# Levels


@pytest.mark.parametrize("dtype", sorted(FULL))
def test_stretch_spreads_to_the_full_range(fuser: Fuser, dtype: str) -> None:
    dull = (picture((19, 21), "float32") * 0.25 + 0.3) * FULL[dtype]
    dull = dull.astype(dtype)
    fused = fuser.fuse(dull, dull, stretch=True)
    assert fused.min() == 0
    assert fused.max() == pytest.approx(FULL[dtype])
    plain = fuser.fuse(dull, dull)
    np.testing.assert_array_equal(plain, dull)


def test_stretch_of_a_flat_picture_is_finite(fuser: Fuser) -> None:
    flat = np.full((16, 16), 0.5, np.float32)
    assert np.isfinite(fuser.fuse(flat, flat, stretch=True)).all()


# Buffers


def test_results_are_fresh_and_inputs_untouched(fuser: Fuser) -> None:
    for dtype in FULL:
        ir, vi = picture((16, 24), dtype, 1), picture((16, 24), dtype, 2)
        ir_was, vi_was = ir.copy(), vi.copy()
        first = fuser.fuse(ir, vi)
        kept = first.copy()
        second = fuser.fuse(vi // 2 if dtype != "float32" else vi / 2, ir * 0)
        assert not np.shares_memory(first, second)
        for buffer in fuser.engine.bind(16, 24):
            assert not np.shares_memory(first, buffer)
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_array_equal(ir, ir_was)
        np.testing.assert_array_equal(vi, vi_was)


def test_buffers_are_reused_for_the_same_shape(fuser: Fuser) -> None:
    before = fuser.engine.bind(32, 40)
    fuser.fuse(picture((30, 37)), picture((30, 37)))
    after = fuser.engine.bind(32, 40)
    assert all(a is b for a, b in zip(before, after, strict=True))


def test_nothing_of_an_earlier_picture_remains(fuser: Fuser) -> None:
    bright, dark = np.full((61, 59), 255, np.uint8), np.zeros((61, 59), np.uint8)
    fuser.fuse(bright, bright)
    for size in ((61, 59), (33, 70), (61, 59)):
        dark = np.zeros(size, np.uint8)
        assert not fuser.fuse(dark, dark).any()


def test_outputs_outside_the_range_are_clipped(make_model: Any) -> None:
    """A negative level is black, not its absolute value."""
    path = make_model("difference", [("Sub", ["ir", "vi"], ["fused"], {})])
    for dtype, full in ((np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0)):
        dark, bright = np.full((16, 24), 0, dtype), np.full((16, 24), full, dtype)
        assert Fuser.open(path).fuse(dark, bright).max() == 0


# Threads and lifetime


def stable(fuser: Fuser, ir: np.ndarray, vi: np.ndarray) -> np.ndarray:
    """The picture, once OpenVINO has compiled the network for this size."""
    for _ in range(2):
        fuser.fuse(ir, vi)
    return fuser.fuse(ir, vi)


@pytest.mark.parametrize(
    "sizes", [[(96, 128)], [(64, 96), (41, 67), (96, 128)]], ids=["one size", "mixed sizes"]
)
@pytest.mark.parametrize("name", CPU_ENGINES)
def test_threads_that_share_a_fuser_get_their_own_pictures(name: str, sizes: list[tuple[int, int]]) -> None:
    pytest.importorskip(name)
    with Fuser.open("lite", name, threads=1) as fuser:
        pairs = [
            (picture(size, seed=seed), picture(size, seed=seed + 50)) for size in sizes for seed in range(6)
        ]
        expected = [stable(fuser, *pair) for pair in pairs]
        with ThreadPoolExecutor(8) as pool:
            order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(pairs)), 12))
            fused = list(pool.map(lambda index: fuser.fuse(*pairs[index]), order))
    wrong = sum(not np.array_equal(fused[i], expected[index]) for i, index in enumerate(order))
    assert wrong == 0, f"{wrong} of {len(order)} pictures"


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_closing_frees_the_engine_without_the_collector(
    name: str, max_model: Path, no_collector: None
) -> None:
    pytest.importorskip(name)
    pair = picture((32, 40)), picture((32, 40))
    with Fuser.open(max_model, name) as fuser:
        buffers = [weakref.ref(buffer) for buffer in fuser.engine.bind(32, 40)]
        fuser.fuse(*pair)
    assert [buffer() for buffer in buffers] == [None] * 3
    fuser.close()
    with pytest.raises(InputError, match="this Fuser is closed"):
        fuser.fuse(*pair)
    dropped = weakref.ref(fuser.engine)
    del fuser
    assert dropped() is None


class Slow:
    """An engine whose `run` lasts until `go` is set."""

    name, metadata = "slow", {"shape_multiple": "8"}

    def __init__(self) -> None:
        self.running, self.go, self.closed = threading.Event(), threading.Event(), 0
        self._buffers = tuple(np.zeros((16, 16), np.float32) for _ in range(3))

    def bind(self, height: int, width: int, batch: int = 1) -> Any:
        return self._buffers

    def run(self) -> None:
        self.running.set()
        assert self.go.wait(10)
        assert not self.closed, "closed while it runs"

    def close(self) -> None:
        self.closed += 1


def test_closing_does_not_wait_for_a_picture_being_fused() -> None:
    engine = Slow()
    fuser, pair = Fuser(engine), (picture((16, 16)), picture((16, 16)))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fuser.fuse, *pair)
        assert engine.running.wait(10)
        second = pool.submit(fuser.fuse, *pair)
        fuser.close()
        assert engine.closed == 0
        engine.go.set()
        assert first.result(10).shape == (16, 16)
        with pytest.raises(InputError, match="closed"):
            second.result(10)
    assert engine.closed >= 1
