"""A stream's figures as Prometheus metrics. Needs prometheus_client, from the extra `metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.telemetry.histogram import BOUNDS, Histogram

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Of what `exposition` returns."""
_OF_A_CAMERA = {
    "frames": "Frames that a camera gave.",
    "stalls": "Gaps between two frames that count as a stall.",
    "stalled_seconds": "Length of these gaps.",
    "reconnects": "Times a camera was opened again.",
    "ffc": "Flat-field corrections.",
    "ffc_seconds": "Length of the flat-field corrections.",
}
"""Counters: key in the report and part of the metric's name, help."""


def exposition(telemetry: Telemetry) -> bytes:
    """The body of `/metrics`, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StreamCollector(telemetry))
    return generate_latest(registry)


class _StreamCollector(Collector):
    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def describe(self) -> Iterable[Metric]:
        """Nothing: it is alone in its registry, so that no names can clash."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics of the stream."""
        report = self._telemetry.report()
        yield from _counters(report, self._telemetry.drops())
        with self._telemetry.frozen():
            stages, latency, skew = self._telemetry.histograms()
            histograms = [
                _histogram(
                    "capture_to_output", "From capture until a sink has written the frame.", "sink", latency
                ),
                _histogram("stage", "Time in a stage.", "stage", stages),
                _histogram("pair_skew", "Distance of the two stamps of a pair.", "", {"": skew}),
            ]
        yield from histograms
        yield from _gauges(report)
        yield from _hardware(report["hardware"])


def _counters(report: Mapping[str, Any], drops: Mapping[tuple[str, str], int]) -> Iterator[Metric]:
    for key, text in _OF_A_CAMERA.items():
        family = CounterMetricFamily(f"ufuser_camera_{key}", text, labels=["camera"])
        for side, camera in report["cameras"].items():
            family.add_metric([side], camera[key])
        yield family
    yield CounterMetricFamily("ufuser_fused_frames", "Frames fused.", report["fused"]["frames"])
    for name, text, label, key in (
        ("flagged_frames", "Fused frames, by flag.", "flag", "flags"),
        ("failures", "Failures of cameras and sinks.", "at", "failures"),
    ):
        family = CounterMetricFamily(f"ufuser_{name}", text, labels=[label])
        for value, count in sorted(report[key].items()):
            family.add_metric([value], count)
        yield family
    family = CounterMetricFamily(
        "ufuser_dropped_frames", "Frames dropped, by place and reason.", labels=["at", "reason"]
    )
    for labels, count in sorted(drops.items()):
        family.add_metric(labels, count)
    yield family


def _gauges(report: Mapping[str, Any]) -> Iterator[Metric]:
    memory = report["memory_bytes"]["end"]
    yield GaugeMetricFamily("ufuser_healthy", "Whether frames flow.", report["healthy"])
    yield GaugeMetricFamily(
        "ufuser_fused_frames_per_second", "Over the last 10 s.", report["fused"]["fps_lately"]
    )
    yield GaugeMetricFamily("ufuser_uptime_seconds", "Since the stream began.", report["seconds"])
    if memory is not None:
        yield GaugeMetricFamily("ufuser_resident_memory_bytes", "Of the process.", memory)
    rates = {side: camera["fps_lately"] for side, camera in report["cameras"].items()}
    up = {side: camera["state"] == "live" for side, camera in report["cameras"].items()}
    for name, text, label, values in (
        ("camera_frames_per_second", "Over the last 10 s.", "camera", rates),
        ("camera_up", "Whether a camera gives frames.", "camera", up),
        ("temperature_celsius", "Thermal zones.", "zone", report["temperatures_c"]),
        ("power_watts", "Power rails.", "rail", report["power_w"]),
    ):
        family = GaugeMetricFamily(f"ufuser_{name}", text, labels=[label])
        for value, figure in values.items():
            family.add_metric([value], figure)
        yield family


def _hardware(figures: Mapping[str, Any]) -> Iterator[Metric]:
    """What the machine reports; a figure that it does not have is left out."""
    for name, text, key in (
        ("gpu_load_ratio", "Share of time in which the GPU works.", "gpu_load"),
        ("input_power_watts", "Power that goes into the board.", "input_w"),
    ):
        if figures[key] is not None:
            yield GaugeMetricFamily(f"ufuser_{name}", text, figures[key])
    for name, text, label, key in (
        ("clock_hertz", "Clocks of GPU and processor.", "domain", "clocks_hz"),
        ("cooling_state", "Above 0 the device slows something down, or turns a fan.", "device", "cooling"),
        ("memory_bytes", "Memory of the machine.", "kind", "memory_bytes"),
    ):
        family = GaugeMetricFamily(f"ufuser_{name}", text, labels=[label])
        for value, figure in figures[key].items():
            family.add_metric([value], figure)
        yield family
    events = CounterMetricFamily(
        "ufuser_over_current_events", "Times the clocks were cut for lack of power.", labels=["alarm"]
    )
    for alarm, count in figures["over_current_events"].items():
        events.add_metric([alarm], count)
    yield events
    if figures["power_mode"]:
        yield InfoMetricFamily("ufuser_power_mode", "Of a Jetson.", {"mode": figures["power_mode"]})


def _histogram(name: str, text: str, label: str, values: Mapping[str, Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"ufuser_{name}_seconds", text, labels=[label] if label else [])
    for key, histogram in values.items():
        counts = zip((f"{bound:g}" for bound in BOUNDS), histogram.cumulative(), strict=True)
        family.add_metric([key] if label else [], [*counts, ("+Inf", histogram.count)], histogram.total)
    return family
