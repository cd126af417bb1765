"""Pairing by stamps. A case lists the stamps of both streams in the order of arrival."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.pairer import Pairer
from ufuser.runtime.pairing import FramePair, PairingConfig, Side

IMAGE = np.zeros((1, 1), np.uint8)


def frame(stamp: float, sequence: int = 0, flags: Iterable[str] = ()) -> Frame:
    return Frame(IMAGE, stamp, sequence, "test", frozenset(flags))


def feed(pairer: Pairer, arriving: str, scale: float = 0.001) -> list[FramePair]:
    """ "i0 v5 i40": frames by side and milliseconds, in order of arrival."""
    pairs = []
    for word in arriving.split():
        pairs += pairer.push("ir" if word[0] == "i" else "vi", frame(float(word[1:]) * scale))
    return pairs


def stamps_of(pairs: Sequence[FramePair]) -> list[tuple[int | None, ...]]:
    """Milliseconds of the infrared and the visible frame of each pair, None where a side is missing."""
    return [
        tuple(None if f is None else round(f.timestamp * 1000) for f in (pair.ir, pair.vi)) for pair in pairs
    ]


def merged(
    ir: Sequence[float], vi: Sequence[float], lag: tuple[float, float] = (0.0, 0.0)
) -> list[tuple[Side, float]]:
    """Both streams in order of arrival, each frame `lag` seconds after its stamp."""
    sides: list[tuple[float, int, Side, float]] = []
    for side, stamps, late in (("ir", ir, lag[0]), ("vi", vi, lag[1])):
        sides += [(t + late, k, "ir" if side == "ir" else "vi", t) for k, t in enumerate(stamps)]
    return [(side, t) for _, _, side, t in sorted(sides)]


def ticks(fps: float, seconds: float = 4.0, phase: float = 0.0) -> list[float]:
    return [phase + k / fps for k in range(int(seconds * fps))]


def run(config: PairingConfig, arriving: Iterable[tuple[Side, float]]) -> tuple[list[FramePair], Pairer]:
    pairer = Pairer(config)
    pairs = [p for k, (side, t) in enumerate(arriving) for p in pairer.push(side, frame(t, k))]
    return pairs + pairer.flush(), pairer


@dataclass(frozen=True)
class Case:
    name: str
    arriving: str
    pairs: list[tuple[int | None, int | None]]
    dropped: dict[tuple[str, str], int]
    config: PairingConfig = PairingConfig()  # noqa: RUF009 - frozen


NEAREST = [
    Case("in step", "i0 v0 i40 v40 i80 v80", [(0, 0), (40, 40), (80, 80)], {}),
    Case("visible first", "v0 i0 v40 i40 v80 i80", [(0, 0), (40, 40), (80, 80)], {}),
    Case("a little apart", "i0 v3 i40 v43 i80 v83", [(0, 3), (40, 43), (80, 83)], {}),
    Case("a burst of one side", "i0 i40 i80 v0 v40 v80", [(0, 0), (40, 40), (80, 80)], {}),
    Case(
        "visible twice as fast",
        "i0 v0 v20 i40 v40 v60 i80 v80",
        [(0, 0), (40, 40), (80, 80)],
        {("vi", "surplus"): 2},
    ),
    Case(
        "infrared twice as fast",
        "v0 i0 i20 v40 i40 i60 v80 i80",
        [(0, 0), (40, 40), (80, 80)],
        {("ir", "no-partner"): 2},
    ),
    Case("half a period apart", "i0 v20 i40 v60 i80 v100", [(0, 20), (40, 60), (80, 100)], {}),
    Case(
        "one visible frame lost: later pairs do not shift",
        "i0 v0 i40 v40 i80 i120 v120 i160 v160",
        [(0, 0), (40, 40), (120, 120), (160, 160)],
        {("ir", "no-partner"): 1},
    ),
    Case(
        "one infrared frame lost",
        "i0 v0 i40 v40 v80 i120 v120 i160 v160",
        [(0, 0), (40, 40), (120, 120), (160, 160)],
        {("vi", "surplus"): 1},
    ),
    Case(
        "out of order on one side",
        "i0 v0 v80 v40 i40 i80",
        [(0, 0), (40, 40), (80, 80)],
        {},
    ),
    Case("too late", "i0 v0 i40 v40 v20 i80 v80", [(0, 0), (40, 40), (80, 80)], {("vi", "late"): 1}),
    Case("twice the same", "i0 v0 i40 i40 v40", [(0, 0), (40, 40)], {("ir", "duplicate"): 1}),
    Case(
        "nothing near",
        "i0 v0 i300 v500 i700 v900",
        [(0, 0)],
        {("ir", "no-partner"): 2, ("vi", "no-partner"): 2},
    ),
    Case(
        "fixed offsets",
        "i1000 v25 i1040 v65",
        [(1000, 25), (1040, 65)],
        {},
        PairingConfig(ir_offset_s=1.0, vi_offset_s=0.025),
    ),
]
HOLD = [
    Case("in step", "i0 v0 i40 v40 i80 v80", [(0, 0), (40, 40), (80, 80)], {}),
    Case(
        "infrared three times as slow",
        "i0 v0 v33 v67 i100 v100 v133 v167 i200 v200 v233 v267 i300",
        [(0, 0), (0, 33), (0, 67), (100, 100), (100, 133), (100, 167), (200, 200), (200, 233), (200, 267)],
        {("ir", "no-partner"): 1},
    ),
    Case(
        "infrared arrives late: waited for where one is due",
        "i0 v0 i100 v33 v67 v100 v133 i200 v167 v200",
        [(0, 0), (0, 33), (0, 67), (100, 100), (100, 133), (100, 167), (200, 200)],
        {},
    ),
    Case(
        "too old",
        "i0 v0 v33 v67 v100 v133 v167 v200 v233 v267 v300",
        [(0, v) for v in (0, 33, 67, 100, 133, 167, 200, 233)] + [(None, 267), (None, 300)],
        {},
    ),
    Case(
        "faster infrared",
        "i0 v0 i20 i40 v40 i60 i80 v80",
        [(0, 0), (40, 40), (80, 80)],
        {("ir", "surplus"): 2},
    ),
    Case(
        "no infrared yet",
        "v0 v40 v80 v120 i120 v160 i160 v200 i200",
        [(None, 0), (None, 40), (None, 80), (120, 120), (160, 160), (200, 200)],
        {},
    ),
]


@pytest.mark.parametrize("case", NEAREST, ids=lambda c: c.name)
def test_nearest(case: Case) -> None:
    pairer = Pairer(case.config)
    pairs = feed(pairer, case.arriving) + pairer.flush()
    assert stamps_of(pairs) == case.pairs
    assert dict(pairer.dropped) == case.dropped


@pytest.mark.parametrize("case", HOLD, ids=lambda c: c.name)
def test_hold(case: Case) -> None:
    pairer = Pairer(PairingConfig(mode="hold"))
    pairs = feed(pairer, case.arriving) + pairer.flush()
    assert stamps_of(pairs) == case.pairs
    assert dict(pairer.dropped) == case.dropped


def test_a_pair_has_skew_stamp_and_flags() -> None:
    pairer = Pairer(PairingConfig(mode="hold", ir_offset_s=0.5))
    pairer.push("ir", frame(0.496, flags=["frozen"]))
    pairer.push("vi", frame(0.0))
    pairer.push("vi", frame(0.040))
    first, second = pairer.flush()
    assert first.skew_s == pytest.approx(-0.004)
    assert first.stamp == 0.0
    assert first.flags == {"frozen"}
    assert second.skew_s == pytest.approx(-0.044)
    assert second.flags == {"frozen", "ir-held"}


RATES = (9.0, 25.0, 30.0, 60.0)


@pytest.mark.parametrize("vi_fps", RATES)
@pytest.mark.parametrize("ir_fps", RATES)
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.5])
def test_nearest_at_every_pair_of_rates(ir_fps: float, vi_fps: float, phase: float) -> None:
    """The slower camera sets the pace, and no pair is wider than half a frame of the faster."""
    ir, vi = ticks(ir_fps), ticks(vi_fps, phase=phase / vi_fps)
    pairs, pairer = run(PairingConfig(), merged(ir, vi))
    slower, faster = min(ir_fps, vi_fps), max(ir_fps, vi_fps)
    assert len(pairs) == pytest.approx(4 * slower, abs=3)
    assert max(abs(p.skew_s) for p in pairs[6:]) <= 0.5 / faster + 1e-6
    paced = "vi" if vi_fps < ir_fps else "ir"
    assert pairer.dropped[paced, "no-partner"] <= 2


@pytest.mark.parametrize("vi_fps", RATES)
@pytest.mark.parametrize("ir_fps", RATES)
def test_hold_at_every_pair_of_rates(ir_fps: float, vi_fps: float) -> None:
    """Every visible frame goes out, with the infrared frame of its moment or the one before."""
    pairs, _ = run(PairingConfig(mode="hold"), merged(ticks(ir_fps), ticks(vi_fps)))
    assert [p.stamp for p in pairs] == ticks(vi_fps)
    assert all(p.ir is not None for p in pairs[4:])
    assert min(p.skew_s for p in pairs) > -1 / ir_fps - 1e-6
    assert max(p.skew_s for p in pairs) <= 0.5 / vi_fps + 1e-6
    assert sum("ir-held" in p.flags for p in pairs) >= len(pairs) - 4 * ir_fps - 4


@pytest.mark.parametrize("lag", [(0.0, 0.08), (0.08, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize(("ir_fps", "vi_fps"), [(25, 25), (9, 30), (30, 25)])
def test_pairs_follow_stamps_not_arrival(ir_fps: float, vi_fps: float, lag: tuple[float, float]) -> None:
    """One camera's frames may all come 80 ms later than the other's: the pairs are the same."""
    ir, vi = ticks(ir_fps), ticks(vi_fps)
    config = PairingConfig(patience_s=0.2)
    prompt, _ = run(config, merged(ir, vi))
    late, _ = run(config, merged(ir, vi, lag))
    assert stamps_of(late)[6:] == stamps_of(prompt)[6:]


def test_nearest_waits_no_longer_than_it_must() -> None:
    """A pair in step goes out with the later of its two frames, not with the next one."""
    pairer = Pairer()
    feed(pairer, "i0 v0 i40 v40 i80 v80 i120 v120")
    assert stamps_of(pairer.push("ir", frame(0.163)) + pairer.push("vi", frame(0.160))) == [(163, 160)]
    assert stamps_of(pairer.push("vi", frame(0.200)) + pairer.push("ir", frame(0.203))) == [(203, 200)]


def test_hold_gives_a_visible_frame_at_once_while_no_infrared_is_due() -> None:
    pairer = Pairer(PairingConfig(mode="hold"))
    feed(pairer, "i0 v0 v33 v67 i100 v100 v133 v167 i200 v200")
    assert stamps_of(pairer.push("vi", frame(0.233))) == [(200, 233)]
    # At 300 ms the next infrared frame is due: this one waits for it.
    assert pairer.push("vi", frame(0.300)) == []
    assert stamps_of(pairer.push("ir", frame(0.301))) == [(301, 300)]


@pytest.mark.parametrize("mode", ["nearest", "hold"])
def test_jitter_and_drops(mode: str) -> None:
    """25 fps both, 8 ms of jitter, 5 % lost on each side: what both cameras saw is paired."""
    rng = np.random.default_rng(7)
    streams = []
    for _ in range(2):
        stamps = np.arange(500) / 25 + rng.uniform(-0.008, 0.008, 500)
        streams.append(stamps[rng.random(500) > 0.05].tolist())
    pairs, _ = run(PairingConfig(mode=mode), merged(*streams))
    both = [p for p in pairs if p.ir and p.vi]
    common = len({round(t * 25) for t in streams[0]} & {round(t * 25) for t in streams[1]})
    if mode == "nearest":
        assert common - 5 <= len(both) <= common + 3
        assert np.percentile([abs(p.skew_s) for p in both], 98) < 0.017
    else:
        assert len(both) >= len(streams[1]) - 3
        fresh = [p for p in both if "ir-held" not in p.flags]
        assert np.percentile([abs(p.skew_s) for p in fresh], 95) < 0.017


@pytest.mark.parametrize("side", ["ir", "vi"])
@pytest.mark.parametrize("jump", [-1000.0, -3.0, 3.0, 1000.0])
@pytest.mark.parametrize("mode", ["nearest", "hold"])
def test_a_clock_that_jumps(mode: str, side: str, jump: float) -> None:
    """Pairing recovers within a second and flags it once; then the skew is about half a frame or less."""
    arriving = [
        (s, t + (jump if s == side and t >= 4.0 else 0.0))
        for s, t in merged(ticks(25, 10), ticks(25, 10, 0.004))
    ]
    pairer = Pairer(PairingConfig(mode=mode))
    pairs: list[FramePair] = []
    both: list[int] = []
    for k, (s, t) in enumerate(arriving):
        new = pairer.push(s, frame(t, k))  # type: ignore[arg-type]
        pairs += new
        both.append(sum(p.ir is not None and p.vi is not None for p in new))
    a_second = 50
    assert sum(both[200 + a_second :]) >= (len(both) - 200 - a_second) // 2 - 3
    assert 1 <= sum("clock-jump" in p.flags for p in pairs) <= 2
    assert max(abs(p.skew_s) for p in pairs[-100:]) < 0.045


def test_both_clocks_jump_together() -> None:
    arriving = [(s, t - (50.0 if t >= 4.0 else 0.0)) for s, t in merged(ticks(25, 8), ticks(25, 8))]
    pairs, _ = run(PairingConfig(), arriving)
    assert len(pairs) >= 197
    assert sum("clock-jump" in p.flags for p in pairs) >= 1
    assert max(abs(p.skew_s) for p in pairs) < 1e-6


def test_a_stall_of_both_is_no_jump() -> None:
    stamps = ticks(25, 4) + ticks(25, 4, 9.0)
    pairs, _ = run(PairingConfig(), merged(stamps, stamps))
    assert len(pairs) == 200
    assert not any("clock-jump" in p.flags for p in pairs)


@pytest.mark.parametrize("mode", ["nearest", "hold"])
@pytest.mark.parametrize(("gone", "flag"), [("ir", "ir-lost"), ("vi", "vi-lost")])
def test_a_side_that_falls_silent_and_comes_back(mode: str, gone: str, flag: str) -> None:
    """One camera is silent from 4 to 9 s: the other one is passed on alone and flagged, then pairs resume."""
    full, holes = ticks(25, 14), ticks(25, 4) + ticks(25, 5, 9.0)
    ir, vi = (holes, full) if gone == "ir" else (full, holes)
    pairs, _ = run(PairingConfig(mode=mode), merged(ir, vi))
    alone = [p for p in pairs if flag in p.flags]
    assert all((p.ir is None) == (gone == "ir") and (p.vi is None) == (gone == "vi") for p in alone)
    assert len(alone) >= 25 * 5 - 26
    assert all(3.9 < p.stamp < 9.1 for p in alone)
    assert sum(p.ir is not None and p.vi is not None for p in pairs if p.stamp >= 9.1) >= 25 * 4.9 - 2
    assert not any("clock-jump" in p.flags for p in pairs)


def test_a_side_that_never_comes() -> None:
    for mode in ("nearest", "hold"):
        pairs, pairer = run(PairingConfig(mode=mode), [("vi", t) for t in ticks(25, 3)])
        assert len(pairs) >= 48
        assert all(p.ir is None and p.flags == {"ir-lost"} for p in pairs)
        assert pairer.is_lost("ir")
        assert not pairer.is_lost("vi")


@pytest.mark.parametrize("mode", ["nearest", "hold"])
def test_a_source_reported_lost(mode: str) -> None:
    """`lost` does not wait for the silence: waiting frames are passed on at once, until the side has a frame again."""
    pairer = Pairer(PairingConfig(mode=mode))
    feed(pairer, "i0 v0 i40 v40 i80 v80 i120 v120")
    waiting = pairer.push("vi", frame(0.160))
    waiting += pairer.lost("ir")
    assert stamps_of(waiting)[-1] == (None, 160) or mode == "hold"
    assert stamps_of(pairer.push("vi", frame(0.200))) == [(None, 200)]
    after = pairer.push("ir", frame(0.240)) + pairer.push("vi", frame(0.240))
    assert stamps_of(after)[-1] == (240, 240)
    assert not pairer.is_lost("ir")


def test_files_wait_however_far_one_is_ahead() -> None:
    """All of one stream up to its limit, then the other: back-pressure instead of drops."""
    for mode in ("nearest", "hold"):
        for ir_fps, vi_fps in ((25.0, 25.0), (9.0, 60.0), (60.0, 9.0)):
            ir, vi = ticks(ir_fps, 6), [t for t in ticks(vi_fps, 6) if not 2 < t < 4]
            pairer = Pairer(PairingConfig(mode=mode, capacity=4).offline())
            ordered, _ = run(PairingConfig(mode=mode).offline(), merged(ir, vi))
            rest: dict[Side, list[float]] = {"ir": ir[::-1], "vi": vi[::-1]}
            pairs = []
            while all(rest.values()):
                # As much as possible of one side first.
                side: Side = "ir" if pairer.wants("ir") else "vi"
                assert pairer.wants(side)
                pairs += pairer.push(side, frame(rest[side].pop()))
            assert not any(reason in ("overflow", "late") for _, reason in pairer.dropped)
            pairs += pairer.flush()
            assert len(pairs) > 30
            assert stamps_of(pairs)[5:30] == stamps_of(ordered)[5:30]


def test_stamps_that_are_no_numbers_are_dropped() -> None:
    pairer = Pairer()
    assert pairer.push("ir", frame(math.nan)) == []
    assert pairer.push("vi", frame(math.inf)) == []
    assert dict(pairer.dropped) == {("ir", "no-stamp"): 1, ("vi", "no-stamp"): 1}
    assert len(feed(pairer, "i0 v0 i40 v40")) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "exact"}, "mode='exact': expected 'nearest' or 'hold'"),
        ({"ir_offset_s": math.nan}, "ir_offset_s=nan: expected a finite number"),
        ({"max_age_s": -1.0}, "max_age_s=-1.0: expected seconds of at least 0"),
        ({"max_skew_s": math.nan}, "max_skew_s=nan"),
        ({"capacity": 1}, "capacity=1: expected at least 2"),
    ],
)
def test_bad_configuration(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PairingConfig(**values)  # type: ignore[arg-type]


stamps = st.one_of(
    st.floats(-10, 10, allow_nan=False),
    st.integers(0, 100).map(lambda k: k / 25),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e9, -1e9]),
)
arrivals = st.lists(st.tuples(st.sampled_from(["ir", "vi"]), stamps), max_size=80)


@settings(max_examples=300, deadline=None)
@given(arrivals, st.sampled_from(["nearest", "hold"]), st.integers(2, 6), st.booleans())
def test_no_frame_is_used_twice_or_lost_uncounted(
    arriving: list[tuple[Side, float]], mode: str, capacity: int, offline: bool
) -> None:
    config = PairingConfig(mode=mode, capacity=capacity)
    pairer = Pairer(config.offline() if offline else config)
    given_frames: dict[str, list[Frame]] = {"ir": [], "vi": []}
    pairs: list[FramePair] = []
    for k, (side, stamp) in enumerate(arriving):
        given_frames[side].append(frame(stamp, k))
        pairs += pairer.push(side, given_frames[side][-1])
        assert pairer.wants("ir") or pairer.wants("vi") or not offline
        for queue in (pairer._ir, pairer._vi):
            assert len(queue.frames) <= capacity
    pairs += pairer.flush()
    for side in ("ir", "vi"):
        out = [id(f) for p in pairs if (f := getattr(p, side)) is not None]
        fresh = [f for f in out if out.count(f) == 1 or mode == "nearest" or side == "vi"]
        assert len(set(fresh)) == len(fresh)
        dropped = sum(n for (s, _), n in pairer.dropped.items() if s == side)
        assert len(set(out)) + dropped == len(given_frames[side])
    for pair in pairs:
        assert pair.ir is not None or pair.vi is not None
        assert math.isfinite(pair.skew_s)
        if mode == "nearest" and pair.ir and pair.vi:
            assert abs(pair.skew_s) <= config.max_skew_s + 1e-9


@settings(max_examples=100, deadline=None)
@given(
    ir_fps=st.floats(5, 60),
    vi_fps=st.floats(5, 60),
    phase=st.floats(0, 1),
    jitter=st.floats(0, 0.2),
    lost=st.floats(0, 0.2),
    seed=st.integers(0, 1000),
)
def test_streams_of_any_rate(
    ir_fps: float, vi_fps: float, phase: float, jitter: float, lost: float, seed: int
) -> None:
    """Both keep their order, each frame comes once, and jittered, lossy streams are paired near their pace."""
    rng = np.random.default_rng(seed)
    streams = []
    for fps, shift in ((ir_fps, 0.0), (vi_fps, phase)):
        n = int(6 * fps)
        times = (np.arange(n) + shift + rng.uniform(-jitter, jitter, n) / 2) / fps
        streams.append(times[rng.random(n) >= lost].tolist())
    pairs, _ = run(PairingConfig(max_skew_s=0.12), merged(*streams))
    for side in ("ir", "vi"):
        out = [f.timestamp for p in pairs if (f := getattr(p, side)) is not None]
        assert out == sorted(set(out))
    expected = min(len(streams[0]), len(streams[1])) * (1 - lost) * (1 - jitter)
    assert len(pairs) >= 0.8 * expected - 3
