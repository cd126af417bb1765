"""Two metrics of fused video: flicker of the mean level, error after warping by the visible stream's flow.

Both read frames one after the other and keep two at most. Frames are grey H×W, uint8 or float in 0..255.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from ufuser.benchmarks.quality.images import Grey, Image, as_pair, as_triple, require_side

Frames = TypeVar("Frames")

# DIS refuses pictures under 12 pixels; a little more leaves its patches (8 pixels) room to move.
SMALLEST_SIDE = 16


def _steps(frames: Iterable[Frames]) -> Iterator[tuple[Frames, Frames]]:
    """Consecutive pairs of frames."""
    iterator = iter(frames)
    previous = next(iterator, None)
    if previous is None:
        return
    for current in iterator:
        yield previous, current
        previous = current


def flicker(ir: Iterable[Image], vi: Iterable[Image], fused: Iterable[Image]) -> float:
    """Flicker of the mean level beyond that of the sources, in grey levels per frame; 0 is best.

    Mean over consecutive frames of max(0, |Δ mean(fused)| − max(|Δ mean(ir)|, |Δ mean(vi)|)), so
    that a step of a source does not count. This project's own definition; it detects a per-frame stretch.

    Raises ValueError for fewer than two frames, for streams of different length or frame size, and as
    ``images.as_grey`` says.
    """
    means = (
        tuple(float(np.mean(image)) for image in as_triple(*triple))
        for triple in zip(ir, vi, fused, strict=True)
    )
    excess = []
    for before, after in _steps(means):
        step_ir, step_vi, step_fused = (abs(b - a) for a, b in zip(before, after, strict=True))
        excess.append(max(0.0, step_fused - max(step_ir, step_vi)))
    if not excess:
        raise ValueError(
            "flicker was given fewer than two frames; it compares consecutive frames: give a sequence"
        )
    return float(np.mean(excess))


@dataclass(frozen=True)
class WarpingOptions:
    """Settings of the optical flow and its consistency check."""

    preset: int = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
    """OpenCV's preset of the DIS optical flow."""

    consistency: float = 1.0
    """Largest distance in pixels between a point and its position after forward and backward flow."""


@dataclass(frozen=True)
class WarpingError:
    """A warping error and the share of the video that it covers."""

    error: float
    """Mean absolute difference in grey levels; 0 is best."""

    coverage: float
    """Share of all pixels, 0..1, with consistent flow. If it is low (cuts, noise), the error means little."""


def _zero_flow(height: int, width: int) -> npt.NDArray[np.float32]:
    return np.zeros((height, width, 2), dtype=np.float32)


def _consistent(
    forward: npt.NDArray[np.float32],
    backward: npt.NDArray[np.float32],
    target: npt.NDArray[np.float32],
    limit: float,
) -> npt.NDArray[np.bool_]:
    height, width = forward.shape[:2]
    x, y = target[..., 0], target[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    back = cv2.remap(backward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    distance = np.linalg.norm(forward + back, axis=2)
    return np.asarray(inside & (distance < limit), dtype=np.bool_)


class NoFlowError(ValueError):
    """No pixel of the guiding stream has consistent flow."""


def warping_error(
    vi: Iterable[Image], fused: Iterable[Image], options: WarpingOptions | None = None
) -> WarpingError:
    """Mean |F_t − warp(F_t+1)| over the pixels with consistent flow, all frames together ("flowD-like").

    The flow from t to t+1 and back comes from the visible stream, by OpenCV's DIS. A pixel counts if its target
    lies inside the picture and forward and backward flow agree within ``options.consistency`` pixels. In smoke
    the visible camera sees no motion, and the motion in infrared counts as error: pass infrared as the guide
    instead and compare the coverages.

    Raises ValueError for fewer than two frames, for streams of different length or frame size and as
    ``images.as_grey`` says, NoFlowError if no pixel has consistent flow. Needs 16 pixels per side.

    Source: warping error of Lai et al., "Learning blind video temporal consistency", ECCV 2018; used for
    fusion as flowD by TemCoCo (ICCV 2025), which takes a learned flow, hence "-like". Flow: Kroeger et al.,
    "Fast optical flow using dense inverse search", ECCV 2016.
    """
    chosen = options if options is not None else WarpingOptions()
    dis = cv2.DISOpticalFlow.create(chosen.preset)
    frames: Iterator[tuple[Grey, Grey]] = (
        as_pair(visible, result, "vi", "fused") for visible, result in zip(vi, fused, strict=True)
    )
    total, counted, pixels = 0.0, 0, 0
    for (visible, result), (next_visible, next_result) in _steps(frames):
        if visible.shape != next_visible.shape:
            raise ValueError(
                f"a frame is {visible.shape} and the next {next_visible.shape}; one size is expected"
            )
        require_side(visible, SMALLEST_SIDE, "the warping error")
        height, width = visible.shape
        # DIS starts from the flow that it gets: always zero here.
        forward = np.asarray(dis.calc(visible, next_visible, _zero_flow(height, width)), dtype=np.float32)
        backward = np.asarray(dis.calc(next_visible, visible, _zero_flow(height, width)), dtype=np.float32)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        target = np.asarray(np.dstack((x, y)) + forward, dtype=np.float32)
        mask = _consistent(forward, backward, target, chosen.consistency)
        warped = cv2.remap(
            next_result.astype(np.float32),
            target[..., 0],
            target[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        total += float(np.abs(result - warped)[mask].sum(dtype=np.float64))
        counted += int(mask.sum())
        pixels += mask.size
    if pixels == 0:
        raise ValueError(
            "warping error was given fewer than two frames; it compares consecutive frames: give a sequence"
        )
    if counted == 0:
        raise NoFlowError(
            "no pixel of the guiding (visible) stream has consistent flow, so the warping error is undefined:"
            " give consecutive frames of one scene"
        )
    return WarpingError(total / counted, counted / pixels)
