"""The metrics of fused video, on moving pictures whose flow is known."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufuser.benchmarks.quality.video import NoFlowError, WarpingOptions, flicker, warping_error

Grey = npt.NDArray[np.uint8]


def moving(count: int, step: int, seed: int = 0) -> list[Grey]:
    """A textured scene 64×80 that a camera pans over, ``step`` pixels a frame."""
    noise = np.random.default_rng(seed).integers(0, 256, (64, 80 + count * step)).astype(np.float32)
    blurred = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), dtype=np.float64)
    scene = 40 + (blurred - blurred.min()) * (160 / np.ptp(blurred))
    return [np.rint(scene[:, t * step : t * step + 80]).astype(np.uint8) for t in range(count)]


def flat(*levels: int) -> list[Grey]:
    return [np.full((16, 16), level, dtype=np.uint8) for level in levels]


def test_flicker_counts_only_what_the_sources_do_not_do() -> None:
    assert flicker(flat(10, 10, 10), flat(10, 10, 10), flat(10, 13, 10)) == 3
    assert flicker(flat(10, 12, 10), flat(10, 10, 10), flat(10, 13, 10)) == 1
    assert flicker(flat(10, 10, 10), flat(10, 20, 0), flat(10, 13, 10)) == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=6))
def test_flicker_is_bounded_and_none_for_a_source(levels: list[tuple[int, int, int]]) -> None:
    ir, vi, fused = (flat(*column) for column in zip(*levels, strict=True))
    assert 0 <= flicker(ir, vi, fused) <= 255
    assert flicker(ir, vi, ir) == 0
    assert flicker(ir, vi, fused) == flicker(vi, ir, fused)


def test_a_fused_video_that_moves_with_the_visible_one_has_little_error() -> None:
    vi = moving(5, 2)
    fused = [frame // 2 + 60 for frame in vi]
    unsteady = [np.asarray(frame + 20 * (t % 2), dtype=np.uint8) for t, frame in enumerate(fused)]
    steady = warping_error(vi, fused)
    assert steady.error < 1
    assert 0.8 < steady.coverage <= 1
    assert warping_error(vi, unsteady).error == pytest.approx(20, abs=1)
    # Without warping the pan itself would count.
    unwarped = np.mean([np.abs(b.astype(int) - a).mean() for a, b in pairwise(fused)])
    assert steady.error < unwarped / 4


def test_flow_is_the_visible_streams() -> None:
    vi = moving(4, 3)
    assert warping_error(vi, [vi[0]] * 4).error > 3


def test_still_video_has_no_error() -> None:
    frames = [moving(1, 0)[0]] * 3
    result = warping_error(frames, frames)
    assert result.error == 0
    assert result.coverage == 1


def test_strictness_lowers_coverage() -> None:
    vi = moving(3, 2)
    loose, strict = (warping_error(vi, vi, WarpingOptions(consistency=limit)) for limit in (1.0, 0.01))
    assert strict.coverage < loose.coverage


def test_frames_are_read_one_after_the_other() -> None:
    vi = moving(3, 1)
    expected = warping_error(vi, vi)
    assert warping_error(iter(vi), iter(vi)) == expected
    assert flicker(iter(vi), iter(vi), iter(vi)) == 0


def test_bad_sequences_are_refused() -> None:
    one, two = moving(1, 0), moving(2, 1)
    with pytest.raises(ValueError, match="fewer than two"):
        flicker(one, one, one)
    with pytest.raises(ValueError, match="fewer than two"):
        warping_error(one, one)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        flicker(two, two, one)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        warping_error(two, one)
    with pytest.raises(ValueError, match="one size"):
        warping_error(two, [frame[:-1] for frame in two])
    with pytest.raises(ValueError, match="one size"):
        warping_error([two[0], two[1][:-8]], [two[0], two[1][:-8]])
    with pytest.raises(ValueError, match="NaN"):
        flicker(two, two, [two[0], np.full(two[0].shape, np.nan)])
    with pytest.raises(ValueError, match="at least 16"):
        warping_error([frame[:15] for frame in two], [frame[:15] for frame in two])
    with pytest.raises(NoFlowError, match="consistent flow"):
        warping_error(two, two, WarpingOptions(consistency=0.0))
