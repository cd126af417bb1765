"""A stream's figures in Prometheus' text format: base units, `_total` for counters, histograms with buckets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.telemetry.histogram import BOUNDS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


def exposition(telemetry: Telemetry) -> str:
    """The text of `/metrics`."""
    report, drops = telemetry.report(), telemetry.drops()
    with telemetry.frozen():
        stages, latency, skew = telemetry.histograms()
        lines = [
            *_cameras(report["cameras"]),
            *_family(
                "ufuser_fused_frames_total", "counter", "Frames fused.", [({}, report["fused"]["frames"])]
            ),
            *_family(
                "ufuser_flagged_frames_total",
                "counter",
                "Fused frames by what is special about them.",
                [({"flag": flag}, n) for flag, n in sorted(report["flags"].items())],
            ),
            *_family(
                "ufuser_dropped_frames_total",
                "counter",
                "Frames dropped, by place and reason.",
                [({"at": at, "reason": why}, n) for (at, why), n in sorted(drops.items())],
            ),
            *_histograms(
                "ufuser_capture_to_output_seconds",
                "From capture until a sink has written the frame.",
                [({"sink": sink}, h) for sink, h in latency.items()],
            ),
            *_histograms(
                "ufuser_stage_seconds",
                "Time in a stage.",
                [({"stage": name}, h) for name, h in stages.items()],
            ),
            *_histograms("ufuser_pair_skew_seconds", "Distance of a pair's stamps.", [({}, skew)]),
        ]
    gauges: tuple[tuple[str, str, list[tuple[Labels, float]]], ...] = (
        ("ufuser_healthy", "Whether frames flow.", [({}, int(report["healthy"]))]),
        ("ufuser_fused_frames_per_second", "Over the last 10 s.", [({}, report["fused"]["fps_lately"])]),
        ("ufuser_uptime_seconds", "Since the stream began.", [({}, report["seconds"])]),
        (
            "ufuser_resident_memory_bytes",
            "Of the process.",
            [({}, report["memory_bytes"]["end"])] if report["memory_bytes"]["end"] is not None else [],
        ),
        (
            "ufuser_temperature_celsius",
            "Thermal zones.",
            [({"zone": zone}, value) for zone, value in report["temperatures_c"].items()],
        ),
        (
            "ufuser_power_watts",
            "Rails.",
            [({"rail": rail}, value) for rail, value in report["power_w"].items()],
        ),
    )
    for name, text, values in gauges:
        lines += _family(name, "gauge", text, values)
    return "\n".join(lines) + "\n"


def _cameras(cameras: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for name, kind, text, key in (
        ("ufuser_camera_frames_total", "counter", "Frames a camera gave.", "frames"),
        ("ufuser_camera_frames_per_second", "gauge", "Over the last 10 s.", "fps_lately"),
        ("ufuser_camera_stalls_total", "counter", "Gaps between two frames that count as a stall.", "stalls"),
        ("ufuser_camera_stalled_seconds_total", "counter", "Their length.", "stalled_seconds"),
        ("ufuser_camera_reconnects_total", "counter", "Times a camera was opened again.", "reconnects"),
        ("ufuser_camera_ffc_total", "counter", "Flat-field corrections.", "ffc"),
        ("ufuser_camera_ffc_seconds_total", "counter", "Their length.", "ffc_seconds"),
    ):
        lines += _family(name, kind, text, [({"camera": side}, at[key]) for side, at in cameras.items()])
    up = [({"camera": side}, int(at["state"] == "live")) for side, at in cameras.items()]
    return lines + _family("ufuser_camera_up", "gauge", "Whether a camera gives frames.", up)


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> list[str]:
    lines = [f"{name}{_labels(labels)} {value:.10g}" for labels, value in samples]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines] if lines else []


def _histograms(name: str, text: str, samples: Iterable[tuple[Labels, Histogram]]) -> list[str]:
    lines = []
    for labels, histogram in samples:
        for bound, count in zip(BOUNDS, histogram.cumulative(), strict=True):
            lines.append(f"{name}_bucket{_labels({**labels, 'le': f'{bound:g}'})} {count}")
        lines.append(f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {histogram.count}")
        lines.append(f"{name}_sum{_labels(labels)} {histogram.total:.9g}")
        lines.append(f"{name}_count{_labels(labels)} {histogram.count}")
    return [f"# HELP {name} {text}", f"# TYPE {name} histogram", *lines] if lines else []


def _labels(labels: Labels) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    inside = ",".join(f'{key}="{escaped(value)}"' for key, value in labels.items())
    return f"{{{inside}}}" if inside else ""
