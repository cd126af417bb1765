"""Cameras that stall, disappear and come back: the frames shown meanwhile, and the events."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ufuser.runtime.errors import InputError
from ufuser.runtime.pairing import IR_LOST, VI_LOST, PairingConfig
from ufuser.runtime.sources.playback import Faults
from ufuser.runtime.streaming import StreamConfig
from ufuser.runtime.streaming.camera_worker import Patience
from ufuser.runtime.streaming.sink_worker import STALE
from ufuser.runtime.streaming.supervisor import BackOff

SPEED = 5.0
"""The streams run at five times real time."""
LOST_AFTER = 1.5
"""On the stream's clock: 0.3 s of real time, which a busy machine may need."""
PATIENT = Patience(silent=60.0)


def config(**options: Any) -> StreamConfig:
    return StreamConfig(**{"pairing": PairingConfig(lost_after_s=LOST_AFTER), "patience": PATIENT, **options})


def flags_of(frames: list[Any]) -> list[frozenset[str]]:
    return [frame.flags & {IR_LOST, VI_LOST, STALE} for frame in frames]


@pytest.mark.parametrize(
    ("side", "flag", "level"), [("ir", IR_LOST, 120), ("vi", VI_LOST, 60)], ids=["thermal", "visible"]
)
def test_one_camera_stalls_and_the_other_is_shown_alone(
    start_stream: Any, collect: Any, side: str, flag: str, level: int
) -> None:
    sink = collect()
    run = start_stream([sink], config(), speed=SPEED, faults={side: Faults(silent=((2, 6),))})
    run.until(lambda: run.moment > 8)
    run.stream.stop()
    flags = flags_of(sink.frames)
    began, back = flags.index({flag}), len(flags) - flags[::-1].index({flag})
    assert flags == [frozenset()] * began + [{flag}] * (back - began) + [frozenset()] * (len(flags) - back)
    assert began >= 5
    assert len(flags) - back >= 5
    # About 2.5 of the 4 seconds, at ten frames per second.
    assert 15 <= back - began <= 42
    alone = sink.frames[began + 1]
    assert alone.image.shape == (48, 64, 3)
    assert int(np.median(alone.image)) == level
    assert (alone.ir is None, alone.vi is None) == (side == "ir", side == "vi")
    assert alone.skew is None
    assert int(np.median(sink.frames[0].image)) == 90, "the mean of both while both are there"
    stamps = [frame.timestamp for frame in sink.frames]
    assert stamps == sorted(stamps)
    report = run.stream.telemetry.report()
    assert report["cameras"][side]["stalls"] == 1
    assert report["cameras"][side]["stalled_seconds"] == pytest.approx(4, abs=0.6)
    assert report["cameras"][side]["reconnects"] == 0
    assert report["flags"][flag] == back - began
    name, other = ("infrared", "visible") if side == "ir" else ("visible", "infrared")
    assert [(event.severity, str(event)) for event in run.events] == [
        ("warning", f"{name} camera: no frame for 1.5 s; only the {other} camera is shown"),
        ("info", f"{name} camera: gives frames again"),
    ]


def test_a_lost_camera_is_written_into_the_picture(start_stream: Any, collect: Any) -> None:
    sink = collect()
    faults = {"ir": Faults(silent=((1, 60),))}
    run = start_stream([sink], config(marks=True), speed=SPEED, faults=faults)
    run.until(lambda: run.moment > 4.5)
    run.stream.stop()
    first, last = sink.frames[0], sink.frames[-1]
    assert len(np.unique(first.image[1:])) == 1
    red = (last.image[..., 2].astype(int) - last.image[..., 1]) > 100
    assert red.sum() > 100, "a badge at the lower left"
    assert (last.vi[1:] == 120).all(), "the pictures beside it are not drawn upon"


def test_both_stall_and_the_last_frame_is_repeated(start_stream: Any, collect: Any) -> None:
    sink = collect()
    gone = Faults(silent=((2, 9),))
    run = start_stream([sink], config(), speed=SPEED, faults={"ir": gone, "vi": gone})
    run.until(lambda: run.moment > 1.5)
    assert run.stream.telemetry.healthy()
    run.until(lambda: run.moment > 8.5)
    assert not run.stream.telemetry.healthy()
    run.until(lambda: run.moment > 11)
    assert run.stream.telemetry.healthy()
    run.stream.stop()
    stale = [frame for frame in sink.frames if STALE in frame.flags]
    assert 7 <= len(stale) <= 13, "every half second, after one and a half, until the ninth"
    assert all({IR_LOST, VI_LOST} <= frame.flags for frame in stale)
    before = sink.frames[sink.frames.index(stale[0]) - 1]
    np.testing.assert_array_equal(stale[-1].image, before.image)
    assert flags_of(sink.frames)[-5:] == [frozenset()] * 5
    assert [f.sequence for f in sink.frames] == list(range(len(sink.frames)))
    stamps = [frame.timestamp for frame in sink.frames]
    assert stamps == sorted(stamps)
    assert stamps[-1] - stamps[0] > 8
    assert run.stream.telemetry.report()["capture_to_output_ms"]["max"] < 3000, (
        "repeated frames have no latency"
    )


def test_a_camera_that_disappears_is_opened_again_with_growing_pauses(
    start_stream: Any, collect: Any
) -> None:
    sink = collect()
    run = start_stream([sink], config(), speed=SPEED, faults={"ir": Faults(gone=((1, 6),))})
    run.until(lambda: run.moment > 6 and run.cameras.opened[-1][2], 20)
    back = run.moment
    run.until(lambda: run.moment > back + 2)
    run.stream.stop()
    tries = [moment for side, moment, _ in run.cameras.opened if side == "ir"]
    worked = [ok for side, _, ok in run.cameras.opened if side == "ir"]
    assert worked == [True] + [False] * (len(tries) - 2) + [True]
    pauses = np.diff(tries)
    assert (pauses[2:] > pauses[1:-1] * 1.5).all(), tries
    report = run.stream.telemetry.report()
    assert report["cameras"]["ir"]["reconnects"] == 1
    assert report["cameras"]["ir"]["state"] == "live"
    assert flags_of(sink.frames)[-5:] == [frozenset()] * 5
    assert any("the device has gone" in text for text in run.said)
    assert any("works again after" in text for text in run.said)


def test_a_silent_camera_is_opened_again(start_stream: Any, collect: Any) -> None:
    patience = Patience(silent=1.5, back_off=BackOff(0.2))
    faults = {"vi": Faults(silent=((1, 4),))}
    run = start_stream([collect()], config(patience=patience), speed=SPEED, faults=faults)
    run.until(lambda: run.moment > 6)
    assert [side for side, _, _ in run.cameras.opened].count("vi") >= 2
    assert run.stream.telemetry.report()["cameras"]["vi"]["reconnects"] >= 1
    assert any("no frame for 1.5 s" in text for text in run.said)


def test_a_camera_that_is_not_there_at_the_start_is_an_error(start_stream: Any, collect: Any) -> None:
    sink = collect()
    with pytest.raises(InputError, match="no such device"):
        start_stream([sink], faults={"vi": Faults(gone=((0, 5),))})
    assert sink.closed.is_set()


def test_drops_and_jitter_are_counted_and_survived(start_stream: Any, collect: Any) -> None:
    sink = collect()
    hold = config(pairing=PairingConfig("hold", lost_after_s=LOST_AFTER))
    run = start_stream([sink], hold, speed=SPEED, fps=(9.0, 25.0), timing={"drop": 0.1, "jitter_ms": 8.0})
    run.until(lambda: run.moment > 12)
    run.stream.stop()
    report = run.stream.telemetry.report()
    drops = report["drops"]
    assert drops["ir: never-came"] == pytest.approx(0.1 * 9 * 12, abs=9)
    assert drops["vi: never-came"] == pytest.approx(0.1 * 25 * 12, abs=20)
    assert report["skew_ms"]["p95"] < 250
    assert report["skew_ms"]["frames"] > 150
    stamps = [frame.timestamp for frame in sink.frames]
    assert (np.diff(stamps) > 0).all()


def test_the_resolution_changes_during_a_stream(start_stream: Any, collect: Any) -> None:
    sink = collect()
    sizes = {
        "vi": lambda index: (48, 64) if index < 20 else (96, 128),
        "ir": lambda index: (48, 64) if index < 35 else (24, 32),
    }
    run = start_stream([sink], config(), speed=SPEED, sizes=sizes)
    run.until(lambda: run.moment > 6)
    run.stream.stop()
    shapes = [frame.image.shape for frame in sink.frames]
    assert set(shapes) == {(48, 64, 3), (96, 128, 3)}
    assert shapes == sorted(shapes), "changes once"
    assert all(frame.ir.shape == frame.image.shape[:2] for frame in sink.frames)
    assert any("without a calibration the two are not aligned" in text for text in run.said)
    assert run.stream.error is None
