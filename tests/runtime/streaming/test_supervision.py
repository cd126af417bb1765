"""Any exception of a camera or a sink is a failure of that part alone: counted, reported, tried again."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ufuser
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.sources.playback import Faults
from ufuser.runtime.streaming import StreamConfig
from ufuser.runtime.streaming.camera_worker import Patience
from ufuser.runtime.streaming.context import StreamContext
from ufuser.runtime.streaming.states import TRANSITIONS, CameraLifecycle, CameraState
from ufuser.runtime.streaming.supervisor import BackOff, Supervisor
from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.video import Encoder

ERRORS = [
    FileNotFoundError(2, "No such file or directory", "/dev/video0"),
    RuntimeError("driver"),
    ValueError("rtsp://admin:hunter2@cam/1 sent nothing"),
]


# States


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(CameraState)
    reached = set().union(*TRANSITIONS.values())
    assert reached == set(CameraState), "every state can be reached"
    assert all(state not in following for state, following in TRANSITIONS.items())


@pytest.mark.parametrize(("before", "after"), list(itertools.product(CameraState, CameraState)))
def test_only_legal_transitions_are_made(before: CameraState, after: CameraState) -> None:
    reported: list[CameraState] = []
    lifecycle = CameraLifecycle(reported.append)
    lifecycle._state = before
    if after is before:
        assert not lifecycle.move(after)
    elif after in TRANSITIONS[before]:
        assert lifecycle.move(after)
        assert reported == [CameraState.OPENING, after]
    else:
        with pytest.raises(RuntimeError, match=f"from {before.value} to {after.value}"):
            lifecycle.move(after)
        assert lifecycle.state is before


def test_a_move_may_be_bound_to_a_state() -> None:
    lifecycle = CameraLifecycle(lambda state: None)
    assert not lifecycle.move(CameraState.SILENT, only_from=CameraState.LIVE)
    lifecycle.move(CameraState.LIVE)
    assert lifecycle.move(CameraState.SILENT, only_from=CameraState.LIVE)


def test_a_camera_goes_through_its_states(
    start_stream: Any, collect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[str] = []
    monkeypatch.setattr(
        Telemetry, "state", lambda self, side, state: states.append(state) if side == "ir" else None
    )
    faults = Faults(silent=((1, 6),), gone=((8, 9),))
    config = StreamConfig(patience=Patience(silent=3.0, back_off=BackOff(0.5, 1.0)))
    run = start_stream([collect()], config, speed=5.0, faults={"ir": faults})
    run.until(lambda: "failed" in states and states[-1] == "live", 20)
    order = [state for state, _ in itertools.groupby(states)]
    assert order[:5] == ["opening", "live", "silent", "lost", "opening"]
    assert order[-3:] == ["failed", "opening", "live"]


# Back-off


def test_pauses_grow_and_the_same_reason_is_reported_once() -> None:
    class Standing(Clock):
        at = 0.0

        def now(self) -> float:
            return self.at

    clock, events = Standing(), []
    context = StreamContext(clock, Telemetry({}, clock), events.append)
    supervisor = Supervisor("ir", "infrared camera", context, BackOff(0.5, 3.0))
    pauses = []
    for error in (*ERRORS[:1] * 4, ERRORS[1], ERRORS[2]):
        supervisor.failed(error)
        assert supervisor.waiting()
        pauses.append(supervisor.retry_at - clock.at)
        clock.at = supervisor.retry_at
        assert not supervisor.waiting()
    supervisor.worked()
    supervisor.worked()
    assert pauses == [0.5, 1, 2, 3, 3, 3]
    assert [(event.severity, str(event)) for event in events] == [
        (
            "error",
            "infrared camera: failed: FileNotFoundError: [Errno 2] No such file or directory: '/dev/video0'",
        ),
        ("error", "infrared camera: failed: RuntimeError: driver"),
        ("error", "infrared camera: failed: ValueError: rtsp://***@cam/1 sent nothing"),
        ("info", "infrared camera: works again after 12.5 s"),
    ]
    assert context.telemetry.report()["failures"] == {"ir": 6}


# Cameras


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_camera_that_cannot_be_opened_again_leaves_the_other_alone(
    start_stream: Any, collect: Any, error: Exception
) -> None:
    """As a device that disappears while it is being opened."""
    sink = collect()
    run = start_stream([sink], speed=5.0, faults={"ir": Faults(gone=((1, 2),))})
    open_camera, tries = run.cameras.open, []

    def fails_twice(side: str) -> Any:
        tries.append(side)
        if len(tries) <= 2:
            raise error
        return open_camera(side)

    run.cameras.open = fails_twice
    run.until(lambda: any("works again" in text for text in run.said), 20)
    seen = len(sink.frames)
    run.until(lambda: len(sink.frames) > seen + 10)
    assert {"ir-lost"} in [frame.flags for frame in sink.frames], "the visible camera went on alone"
    assert run.stream.error is None
    report = run.stream.telemetry.report()
    assert report["failures"]["ir"] >= 3
    assert report["cameras"]["ir"]["state"] == "live"
    assert any(f"failed: {type(error).__name__}" in text for text in run.said)
    assert "hunter2" not in str(report) + str(run.said)


@pytest.mark.parametrize("method", ["read", "close"])
def test_a_camera_whose_driver_raises(
    start_stream: Any, collect: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    sink = collect()
    run = start_stream([sink], speed=5.0, faults={"ir": Faults(gone=((2, 3),))})
    from ufuser.runtime.sources.playback import Player

    original, raised = getattr(Player, method), []

    def once(self: Any, *given: Any) -> Any:
        if self.name.endswith("ir") and not raised:
            raised.append(True)
            raise OSError(5, "Input/output error")
        return original(self, *given)

    monkeypatch.setattr(Player, method, once)
    run.until(lambda: any("works again" in text for text in run.said), 20)
    assert run.stream.error is None
    expected = {
        "read": "infrared camera: failed: OSError: [Errno 5] Input/output error",
        "close": "infrared camera: could not be closed: OSError: [Errno 5] Input/output error",
    }
    assert expected[method] in run.said


def test_a_file_that_cannot_be_read_ends_the_stream_with_an_input_error(
    start_stream: Any, collect: Any
) -> None:
    sink = collect()
    run = start_stream([sink], live=False, count=1000, fuse_seconds=0.01)

    def fails(index: int) -> Any:
        raise OSError(5, "Input/output error")

    run.until(lambda: len(sink.frames) > 3)
    run.cameras.feeds["ir"].picture = fails
    with pytest.raises(InputError, match=r"test://ir cannot be read any further: OSError: \[Errno 5\]"):
        run.until(lambda: False)


# Sinks


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_sink_that_raises_is_tried_again_and_leaves_the_others_alone(
    start_stream: Any, collect: Any, error: Exception
) -> None:
    class Flaky(collect):  # type: ignore[misc]
        tries = 0

        def write(self, frame: Any) -> None:
            self.tries += 1
            if self.tries in (3, 4):
                raise error
            super().write(frame)

    flaky, other = Flaky(name="flaky:"), collect()
    run = start_stream([flaky, other], speed=5.0)
    run.until(lambda: len(flaky.frames) > 5)
    assert len(other.frames) > len(flaky.frames) + 2
    assert run.stream.error is None
    assert any(text.startswith(f"flaky:: failed: {type(error).__name__}") for text in run.said)
    assert any("flaky:: works again after" in text for text in run.said)
    report = run.stream.telemetry.report()
    assert report["failures"] == {"flaky:": 2}
    assert report["drops"]["flaky:: sink-down"] > 2, "frames of the pauses count too"
    assert run.stream.sink_workers[0].error, "it makes the exit code 1"
    assert "hunter2" not in str(run.said) + str(report)


def test_of_files_a_sink_that_raises_is_over(start_stream: Any, collect: Any) -> None:
    class Broken(collect):  # type: ignore[misc]
        def write(self, frame: Any) -> None:
            super().write(frame)
            if len(self.frames) == 3:
                raise RuntimeError("encoder")

    broken, other = Broken(name="broken:"), collect()
    run = start_stream([broken, other], live=False, count=30)
    run.until(lambda: run.stream.wait(0.05))
    assert (len(broken.frames), len(other.frames)) == (3, 30), "no output with a gap"
    assert broken.closed.is_set()


def test_an_exception_that_is_no_error_ends_the_stream(start_stream: Any, collect: Any) -> None:
    class Interrupted(collect):  # type: ignore[misc]
        def write(self, frame: Any) -> None:
            raise KeyboardInterrupt

    sink = Interrupted()
    run = start_stream([sink])
    with pytest.raises(KeyboardInterrupt):
        run.until(lambda: False, 5)
    run.stream.stop()
    assert sink.closed.is_set()


# What identical frames mean


@pytest.mark.parametrize(("name", "frozen"), [("still.mp4", False), ("still.mkv", True)])
def test_a_still_scene_is_a_correction_only_where_the_source_can_tell(
    tmp_path: Path, max_model: Path, name: str, frozen: bool
) -> None:
    """H.264 makes the frames of a still scene identical; a lossless file keeps a sensor's noise."""
    pytest.importorskip("av")
    still = np.full((64, 64), 90, np.uint8)
    codec = "ffv1" if name.endswith("mkv") else "h264"
    encoder = Encoder(str(tmp_path / name), codec, still)
    for index in range(25):
        encoder.write(still, index / 25)
    encoder.close()
    frames = ufuser.stream(f"{tmp_path}/{name}?live=1", "sim://visible?size=64x64", model=str(max_model))
    flags = [frame.flags for frame in itertools.islice(frames, 8)]
    frames.close()
    assert any("frozen" in found for found in flags) is frozen


# Arrays a program gets


def test_a_program_cannot_change_the_next_frame(start_stream: Any, collect: Any) -> None:
    sink = collect()
    run = start_stream([sink])
    run.until(lambda: len(sink.frames) > 3)
    for array in (sink.frames[-1].image, sink.frames[-1].ir, sink.frames[-1].vi):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 255
        array.copy()[:] = 255
