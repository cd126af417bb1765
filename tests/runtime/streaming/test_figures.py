"""Figures of a running stream, in bounded memory."""

from __future__ import annotations

import json
import math
import re
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ufuser.runtime.clock import Clock
from ufuser.runtime.frame import Frame
from ufuser.runtime.telemetry import Rate, Telemetry, sensors
from ufuser.runtime.telemetry.events import Event
from ufuser.runtime.telemetry.histogram import BOUNDS, Histogram
from ufuser.runtime.telemetry.prometheus import exposition


@given(st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=300), st.sampled_from([50, 95, 99]))
def test_percentiles_are_right_to_a_percent_or_two(values: list[float], percent: int) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = float(np.percentile(values, percent, method="inverted_cdf"))
    assert histogram.percentile(percent) == pytest.approx(exact, rel=0.021)
    assert histogram.percentile(100) == pytest.approx(max(values), rel=0.021)
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(math.fsum(values))
    assert histogram.cumulative() == [sum(v <= bound for v in values) for bound in BOUNDS]


def test_empty_and_odd_durations() -> None:
    histogram = Histogram()
    assert histogram.summary_ms() == {"frames": 0, "p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    for value in (-1.0, 0.0, 1e9):
        histogram.add(value)
    assert histogram.percentile(50) == 0
    assert histogram.most == 1e9


def test_a_histogram_does_not_grow() -> None:
    histogram = Histogram()
    before = sys.getsizeof(histogram._fine)
    for index in range(20_000):
        histogram.add(index / 1000)
    assert sys.getsizeof(histogram._fine) == before


def test_rates() -> None:
    rate = Rate()
    for index in range(250):
        rate.add(100 + index / 10)
    assert rate.overall() == pytest.approx(10)
    assert rate.lately(124.9) == pytest.approx(10, rel=0.12)
    assert rate.lately(130) == pytest.approx(10 * 5 / 10, rel=0.25)
    assert rate.lately(200) == 0
    assert Rate().lately(5) == Rate().overall() == 0


class Ticking(Clock):
    """A clock that is set by hand."""

    at = 1000.0

    def now(self) -> float:
        return self.at


def frame(index: int, fps: float = 10.0, flags: frozenset[str] = frozenset()) -> Frame:
    at = 1000 + index / fps
    return Frame(np.zeros((4, 6), np.uint8), at, index, "x", flags, at)


@pytest.fixture
def telemetry() -> Telemetry:
    """Telemetry of two cameras, on a clock that is set by hand."""
    return Telemetry({"ir": "rtsp://***@cam/1", "vi": "sim://visible"}, Ticking())


def test_stalls_are_gaps(telemetry: Telemetry) -> None:
    for index in (*range(10), *range(40, 50), *range(55, 60)):
        telemetry.arrived("ir", frame(index))
    camera = telemetry.report()["cameras"]["ir"]
    assert (camera["frames"], camera["stalls"]) == (25, 1)
    assert camera["stalled_seconds"] == pytest.approx(3.1)
    assert camera["size"] == (6, 4)


def test_flat_field_corrections_are_timed(telemetry: Telemetry) -> None:
    for index in range(100):
        frozen = 20 <= index < 26 or 80 <= index < 86
        telemetry.toned(frame(index, flags=frozenset({"frozen"}) if frozen else frozenset()))
    camera = telemetry.report()["cameras"]["ir"]
    assert camera["ffc"] == 2
    assert camera["ffc_seconds"] == pytest.approx(1.2)


def test_healthy_only_while_frames_flow(telemetry: Telemetry) -> None:
    clock = telemetry._clock
    assert isinstance(clock, Ticking)
    assert not telemetry.healthy()
    telemetry.fused(frozenset())
    assert telemetry.healthy()
    clock.at += 4.9
    assert telemetry.healthy()
    clock.at += 0.2
    assert not telemetry.healthy()
    telemetry.fused(frozenset({"ir-lost"}))
    assert telemetry.healthy()


def test_events_are_bounded(telemetry: Telemetry) -> None:
    for index in range(1000):
        telemetry.event(Event(float(index), "error", "infrared camera", f"failed {index}"))
    report = telemetry.report()
    assert len(report["events"]) == 64
    assert report["event_count"] == 1000
    latest = {"time": 999.0, "severity": "error", "subject": "infrared camera", "text": "failed 999"}
    assert report["events"][-1] == latest


def test_report_is_json_and_has_all(telemetry: Telemetry) -> None:
    telemetry.paired(0.004)
    telemetry.paired(-0.012)
    telemetry.drop("pairs", "fusion-too-slow", 3)
    telemetry.set_drops("ir", "surplus", 7)
    telemetry.set_drops("ir", "late", 0)
    telemetry.written("x.mp4", 0.05)
    telemetry.written("x.mp4", None)
    with telemetry.stage("fuse"):
        time.sleep(0.01)
    report = json.loads(json.dumps(telemetry.report()))
    assert report["skew_ms"]["mean"] == pytest.approx(-4)
    assert report["skew_ms"]["max"] == pytest.approx(12)
    assert report["drops"] == {"pairs: fusion-too-slow": 3, "ir: surplus": 7}
    assert report["capture_to_output_ms"]["frames"] == 1
    assert report["capture_to_output_ms"]["p50"] == pytest.approx(50, rel=0.02)
    assert report["stages_ms"]["fuse"]["p50"] >= 10
    assert report["memory_bytes"]["start"] is None or report["memory_bytes"]["start"] > 1e6


SAMPLE = re.compile(
    r'^[a-z_]+(\{[a-z]+="(?:[^"\\]|\\.)*"(,[a-z]+="(?:[^"\\]|\\.)*")*\})? [-+0-9.e]+(inf|nan)?$'
)


def test_prometheus_text(telemetry: Telemetry) -> None:
    telemetry.fused(frozenset({"ir-lost"}))
    telemetry.drop('a "sink"\\', "sink-too-slow", 2)
    telemetry.written("x.mp4", 0.03)
    with telemetry.stage("fuse"):
        pass
    telemetry.failed("vi")
    text = exposition(telemetry).decode()
    assert text.endswith("\n")
    declared: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in declared
            declared[name] = kind
        elif not line.startswith("# HELP "):
            assert SAMPLE.match(line), line
            base = re.sub(r"_(bucket|sum|count)$", "", line.split("{")[0].split(" ")[0])
            name = line.split("{")[0].split(" ")[0]
            assert name in declared or declared[base] == "histogram", line
    for name, kind in declared.items():
        assert name.startswith("ufuser_")
        assert (kind == "counter") == name.endswith("_total"), name
    assert 'ufuser_dropped_frames_total{at="a \\"sink\\"\\\\",reason="sink-too-slow"} 2.0' in text
    assert 'ufuser_capture_to_output_seconds_bucket{le="0.025",sink="x.mp4"} 0.0' in text
    assert 'ufuser_capture_to_output_seconds_bucket{le="0.05",sink="x.mp4"} 1.0' in text
    assert 'ufuser_capture_to_output_seconds_bucket{le="+Inf",sink="x.mp4"} 1.0' in text
    assert 'ufuser_flagged_frames_total{flag="ir-lost"} 1.0' in text
    assert 'ufuser_failures_total{at="vi"} 1.0' in text


def test_a_jetsons_sensors(tmp_path: Path) -> None:
    zone, chip, other = (
        tmp_path / "class/thermal/thermal_zone0",
        tmp_path / "class/hwmon/hwmon3",
        tmp_path / "class/hwmon/hwmon1",
    )
    for folder in (zone, chip, other):
        folder.mkdir(parents=True)
    for path, text in (
        (zone / "type", "tj-thermal\n"),
        (zone / "temp", "51250\n"),
        (chip / "name", "ina3221\n"),
        (chip / "in1_label", "VDD_IN\n"),
        (chip / "in1_input", "19040\n"),
        (chip / "curr1_input", "512\n"),
        (chip / "in2_label", "VDD_CPU_GPU_CV\n"),
        (chip / "in2_input", "19040\n"),
        (other / "name", "nvme\n"),
        (other / "in1_input", "1\n"),
        (other / "curr1_input", "1\n"),
    ):
        path.write_text(text)
    assert sensors.temperatures(tmp_path) == {"tj-thermal": 51.25}
    assert sensors.powers(tmp_path) == {"VDD_IN": pytest.approx(9.748, abs=1e-3)}
    assert sensors.temperatures(tmp_path / "gone") == sensors.powers(tmp_path / "gone") == {}


def test_nvtx_ranges_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges: list[str] = []
    fake = types.ModuleType("nvtx")
    fake.push_range = ranges.append  # type: ignore[attr-defined]
    fake.pop_range = lambda: ranges.append("pop")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nvtx", fake)
    telemetry = Telemetry({"ir": "a", "vi": "b"}, Clock())
    with telemetry.stage("fuse"), telemetry.stage("align"):
        pass
    assert ranges == ["fuse", "align", "pop", "pop"]
