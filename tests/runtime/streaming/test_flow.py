"""Bounded queues, overlapping stages, and sinks that delay nobody."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.pairing import PairingConfig
from ufuser.runtime.sinks.sink import SinkDown
from ufuser.runtime.streaming import StreamConfig
from ufuser.runtime.streaming.queues import Closed, MultiQueue, Queue

# Queues


def test_a_full_queue_drops_its_oldest_and_returns_it() -> None:
    queues: MultiQueue[int] = MultiQueue(("a", "b"), 2, drop_oldest=True)
    assert [queues.put("a", n) for n in range(4)] == [None, None, 0, 1]
    assert queues.put("b", 9) is None
    assert [queues.get(0) for _ in range(4)] == [("a", 2), ("a", 3), ("b", 9), None]


def test_items_come_in_order_of_arrival_over_all_queues_or_the_named_ones() -> None:
    queues: MultiQueue[int] = MultiQueue(("a", "b"), 3, drop_oldest=True)
    for name, item in (("a", 0), ("b", 1), ("a", 2)):
        queues.put(name, item)
    assert queues.get(0, ("b",)) == ("b", 1)
    assert queues.get(0, ("b",)) is None
    assert queues.get(0) == ("a", 0)


def test_a_full_queue_blocks_until_there_is_room() -> None:
    queue: Queue[int] = Queue(1, drop_oldest=False)
    queue.put(0)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (queue.put(1), done.set()))
    thread.start()
    assert not done.wait(0.05)
    assert queue.get(1) == 0
    assert done.wait(2)
    thread.join()


def test_closing_wakes_every_waiting_thread() -> None:
    queue: Queue[int] = Queue(1, drop_oldest=False)
    queue.put(0)
    raised = threading.Event()

    def wait_for_room() -> None:
        with pytest.raises(Closed):
            queue.put(1)
        raised.set()

    thread = threading.Thread(target=wait_for_room)
    thread.start()
    queue.close()
    assert raised.wait(2)
    thread.join()
    assert queue.get(1) == 0, "what was in it can still be had"
    with pytest.raises(Closed):
        queue.get(1)
    full: Queue[int] = Queue(1, drop_oldest=True)
    full.put(0)
    full.close(discard=True)
    with pytest.raises(Closed):
        full.get(1)


# Streams


def test_every_frame_of_files_arrives_in_order(start_stream: Any, collect: Any) -> None:
    slow, quick = collect(seconds=0.004), collect()
    run = start_stream([slow, quick], live=False, count=120)
    run.until(lambda: run.stream.wait(0.1), 20)
    for sink in (slow, quick):
        assert len(sink.frames) == 120
        assert [f.timestamp for f in sink.frames] == pytest.approx(np.arange(120) / 10)
        assert [int(f.vi[0, 0, 0]) for f in sink.frames] == list(range(120))
        assert [int(f.ir[0, 0]) for f in sink.frames] == list(range(120))
        assert sink.closed.is_set()
    report = run.stream.telemetry.report()
    assert report["drops"] == {}
    assert {at["state"] for at in report["cameras"].values()} == {"ended"}


@pytest.mark.parametrize(("mode", "count"), [("nearest", 40), ("hold", 100)])
def test_files_of_different_rates_are_paired_by_their_stamps(
    start_stream: Any, collect: Any, mode: str, count: int
) -> None:
    sink = collect()
    config = StreamConfig(PairingConfig(mode, max_skew_s=0.06, max_age_s=0.3))
    # The infrared file is much longer: the stream must not wait for its rest.
    run = start_stream([sink], config, live=False, fps=(10.0, 25.0), count=100)
    run.until(lambda: run.stream.wait(0.1), 20)
    assert len(sink.frames) == pytest.approx(count, abs=2)
    assert all(abs(f.skew) <= 0.1 for f in sink.frames)


def test_stages_overlap(start_stream: Any, collect: Any) -> None:
    each, count = 0.03, 30
    sink = collect(seconds=each)
    run = start_stream([sink], live=False, count=count, fuse_seconds=each)
    began = time.monotonic()
    run.until(lambda: run.stream.wait(0.05), 20)
    elapsed = time.monotonic() - began
    assert len(sink.frames) == count
    assert elapsed < 1.5 * count * each, "one after the other they take twice as long"


def test_a_slow_sink_does_not_slow_the_fusion(start_stream: Any, collect: Any) -> None:
    slow, quick = collect(seconds=0.3, name="slow:"), collect()
    run = start_stream([slow, quick], fps=(30.0, 30.0))
    run.until(lambda: run.moment > 2)
    run.stream.stop()
    report = run.stream.telemetry.report()
    assert report["fused"]["frames"] > 2 * 30 * 0.7
    assert len(quick.frames) >= report["fused"]["frames"] - 2
    assert len(slow.frames) < 15
    assert report["drops"]["slow:: sink-too-slow"] > 15
    stamps = [f.timestamp for f in slow.frames]
    assert stamps == sorted(stamps)


def test_a_slow_fusion_shows_the_newest_pictures(start_stream: Any, collect: Any) -> None:
    sink = collect()
    run = start_stream([sink], fps=(50.0, 50.0), fuse_seconds=0.15)
    run.until(lambda: run.moment > 2)
    run.stream.stop()
    report = run.stream.telemetry.report()
    assert report["fused"]["fps"] == pytest.approx(1 / 0.15, rel=0.25)
    assert report["drops"]["pairs: fusion-too-slow"] > 30
    # One being fused, one that waits for it, and a frame's time.
    assert report["capture_to_output_ms"]["p95"] < 600


def test_a_sink_that_fails_leaves_the_others_alone(start_stream: Any, collect: Any) -> None:
    class Full(collect):  # type: ignore[misc]
        def write(self, frame: Any) -> None:
            super().write(frame)
            if len(self.frames) == 3:
                raise InputError("cannot write x.mp4: No space left on device")

    full, other = Full(name="x.mp4"), collect()
    run = start_stream([full, other], fps=(30.0, 30.0))
    run.until(lambda: len(other.frames) > 20)
    assert len(full.frames) == 3
    assert full.closed.is_set()
    assert run.stream.sink_workers[0].error == "cannot write x.mp4: No space left on device"
    assert [text for text in run.said if "x.mp4" in text] == [
        "x.mp4: failed: cannot write x.mp4: No space left on device; the other outputs go on"
    ]


def test_without_any_sink_left_the_stream_ends(start_stream: Any, collect: Any) -> None:
    class Full(collect):  # type: ignore[misc]
        def write(self, frame: Any) -> None:
            raise InputError("No space left on device")

    run = start_stream([Full()])
    run.until(lambda: run.stream.wait(0.05), 5)


def test_a_sink_that_is_down_for_a_while_gets_later_frames(start_stream: Any, collect: Any) -> None:
    class Away(collect):  # type: ignore[misc]
        tries = 0

        def write(self, frame: Any) -> None:
            self.tries += 1
            if 3 < self.tries < 8:
                raise SinkDown("Connection refused")
            super().write(frame)

    away = Away(name="rtsp://***@there/")
    run = start_stream([away], fps=(30.0, 30.0), speed=10.0)
    run.until(lambda: len(away.frames) > 10)
    down, up = run.said
    assert down == "rtsp://***@there/: failed: Connection refused"
    assert up.startswith("rtsp://***@there/: works again after")
    report = run.stream.telemetry.report()
    assert report["failures"] == {"rtsp://***@there/": 4}
    assert report["drops"]["rtsp://***@there/: sink-down"] > 4, "those of the pauses too"
    assert not run.stream.sink_workers[0].error, "the exit code stays 0"


@pytest.mark.parametrize("fuse_seconds", [0.0, 0.6])
def test_stopping_is_quick_and_finishes_every_sink(
    start_stream: Any, collect: Any, fuse_seconds: float
) -> None:
    slow, quick = collect(seconds=0.3), collect()
    run = start_stream([slow, quick], fps=(30.0, 30.0), fuse_seconds=fuse_seconds)
    run.until(lambda: len(slow.frames) > 0)
    began = time.monotonic()
    run.stream.stop()
    assert time.monotonic() - began < 2
    assert slow.closed.is_set()
    assert quick.closed.is_set()


def test_a_sink_that_hangs_does_not_keep_the_stream_from_stopping(start_stream: Any, collect: Any) -> None:
    class Hangs(collect):  # type: ignore[misc]
        release = threading.Event()

        def write(self, frame: Any) -> None:
            self.release.wait(20)

    hangs, other = Hangs(name="hangs:"), collect()
    run = start_stream([hangs, other], fps=(30.0, 30.0))
    run.until(lambda: len(other.frames) > 10)
    began = time.monotonic()
    run.stream.stop()
    assert time.monotonic() - began < 2
    assert other.closed.is_set()
    assert run.stream.unfinished == (hangs.name,)
    assert not hangs.closed.is_set(), "only its own thread closes it"
    assert run.said[-1] == f"{hangs.name}: left unfinished: it does not answer"
    hangs.release.set()
    assert hangs.closed.wait(5)


def test_the_duration_ends_the_stream(start_stream: Any, collect: Any) -> None:
    sink = collect()
    run = start_stream([sink], StreamConfig(duration=5), speed=5.0)
    run.until(lambda: run.stream.wait(0.05), 5)
    assert run.moment == pytest.approx(5, abs=1.5)
    assert sink.closed.is_set()


def test_memory_does_not_grow(start_stream: Any, collect: Any) -> None:
    class Forget(collect):  # type: ignore[misc]
        count = 0

        def write(self, frame: Any) -> None:
            self.count += 1

    forget = Forget()
    run = start_stream([forget], live=False, count=700)
    # Not by tracemalloc: before Python 3.12.9, stopping it while a thread allocates corrupts memory.
    run.until(lambda: forget.count > 150, 60)
    early = sys.getallocatedblocks()
    run.until(lambda: forget.count > 650, 60)
    late = sys.getallocatedblocks()
    assert late - early < 400, "less than a block for each of five hundred frames"


def test_a_faster_clock_waits_less() -> None:
    clock = Clock(50.0)
    began, at = time.monotonic(), clock.now()
    clock.wait(threading.Event(), 5.0)
    assert clock.now() - at >= 5
    assert time.monotonic() - began < 2
    assert Clock().now() == pytest.approx(time.monotonic(), abs=0.1)
