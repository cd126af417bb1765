"""Timing several networks turn by turn: on a machine whose speed drifts, only the ratio within a run holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ufuser.export.fidelity import Image, synthetic_pair

_WARM_UP = 2


@dataclass(frozen=True)
class Timing:
    """One network's turns."""

    p50_ms: float
    p95_ms: float
    times_first: float  # median over the rounds of the first network's time by this one's


def time_rounds(
    networks: Sequence[Callable[[Image, Image], Image]], shape: tuple[int, int, int], rounds: int
) -> list[Timing]:
    """Run all networks in every round, copying in and out included.

    Args:
        networks: one or more; ratios are to the first.
        shape: batch, height, width.
        rounds: after two that aren't counted.
    """
    ir, vi = synthetic_pair(shape)
    taken = np.empty((rounds, len(networks)))
    for turn in range(-_WARM_UP, rounds):
        for column, network in enumerate(networks):
            began = time.perf_counter()
            network(ir, vi)
            if turn >= 0:
                taken[turn, column] = time.perf_counter() - began
    ratios = np.median(taken[:, :1] / taken, axis=0)
    p50, p95 = np.percentile(taken, (50, 95), axis=0) * 1e3
    return [Timing(float(a), float(b), float(c)) for a, b, c in zip(p50, p95, ratios, strict=True)]
