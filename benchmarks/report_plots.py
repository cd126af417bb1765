"""Plots of the report as SVG, narrow enough for a phone, with text in the size of the page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ufuser.benchmarks.peak import Reached, reached
from ufuser.benchmarks.results import Latency, OperatorTimes, Quality, Results
from ufuser.benchmarks.sizes import Size, as_text, threads_text

_WIDTH, _HEIGHT = 4.8, 3.5  # inches; about the width of a phone at natural size
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444", "#8c564b")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_STYLE: Any = {
    "svg.fonttype": "none",  # keep text as text
    "svg.hashsalt": "ufuser",  # reproducible files
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e0",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_BARS = 12
"""Operators shown by name; the others share one bar."""


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure of the report."""

    name: str
    """File name without suffix."""
    title: str
    caption: str
    """Description below the plot."""
    svg: bytes
    figures: str = ""
    """The figures as text, for screen readers."""


@dataclass(frozen=True, slots=True)
class Point:
    """Speed of a contender and quality of its model."""

    name: str
    latency_ms: float
    mean_rank: float


def plots(results: Results, setting: tuple[Size, int] | None) -> list[Plot]:
    """All plots for which the results have figures.

    Args:
        results: the measurements.
        setting: size and threads for plots that compare contenders at one setting; see
            `report_tables.common_setting`.
    """
    made: list[Plot | None] = []
    if setting is not None:
        made += [quality_against_latency(table, results, setting) for table in results.quality]
        made += [latency_against_pixels(results, setting[1]), roofline(results, setting[1])]
    made += [operators(times, number) for number, times in enumerate(results.operators, start=1)]
    return [plot for plot in made if plot is not None]


def label(run: Latency) -> str:
    """Name of a contender without the size."""
    engine = run.engine if run.precision == "fp32" else f"{run.engine} {run.precision}"
    return f"{run.model}, {engine}" if run.model else engine


def method(run: Latency) -> str:
    """Name of the method in the quality table: the model, or the simple method."""
    name = alike(run.model or run.engine)
    return {"laplacianpyramid": "laplacian"}.get(name, name)


def alike(name: str) -> str:
    """Method name without case and punctuation, to match it across tables."""
    return "".join(c for c in name.lower() if c.isalnum())


def pareto(points: Sequence[Point]) -> list[Point]:
    """Points that no other point beats in both speed and rank, fastest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency_ms, p.mean_rank)):
        if not front or point.mean_rank < front[-1].mean_rank:
            front.append(point)
    return front


def quality_against_latency(table: Quality, results: Results, setting: tuple[Size, int]) -> Plot | None:
    """Mean rank against milliseconds, for models with both figures."""
    size, threads = setting
    ranks = {alike(name): rank for name, rank in table.mean_rank.items()}
    points = [
        Point(label(run), run.p50_ms, ranks[method(run)])
        for run in results.latency
        if (run.size, run.threads, run.batch) == (size, threads, 1) and method(run) in ranks
    ]
    if len(points) < 2:
        return None
    front = pareto(points)
    with _figure(_HEIGHT + 0.16 * len(points)) as (figure, axes, file):
        axes.plot(
            [p.latency_ms for p in front],
            [p.mean_rank for p in front],
            drawstyle="steps-post",
            color="#999999",
            linewidth=1.2,
            label="Pareto front",
            zorder=1,
        )
        for number, point in enumerate(points):
            axes.scatter(point.latency_ms, point.mean_rank, 34, **_mark(number), zorder=2, label=point.name)
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis, _decades((1,)))
        axes.invert_yaxis()
        axes.set_xlabel(f"milliseconds per pair, p50, {as_text(size)}, {threads_text(threads)}")
        axes.set_ylabel("mean rank (upwards is better)")
        _legend_below(figure, axes)
    best = "; ".join(p.name for p in front)
    return Plot(
        f"quality_{alike(table.dataset)}",
        f"Quality against latency, {table.dataset}",
        f"Mean rank over the metrics against the median time per pair. On the Pareto front: {best}.",
        file.getvalue(),
    )


def latency_against_pixels(results: Results, threads: int) -> Plot | None:
    """Medians against the number of pixels, with a fitted line per contender."""
    lines: dict[tuple[str, ...], list[Latency]] = {}
    for run in results.latency:
        if run.threads == threads and run.batch == 1:
            lines.setdefault(run.contender, []).append(run)
    lines = {key: runs for key, runs in lines.items() if len({run.size for run in runs}) > 1}
    if not lines:
        return None
    slopes = []
    with _figure(_HEIGHT + 0.16 * len(lines)) as (figure, axes, file):
        for number, runs in enumerate(lines.values()):
            pixels = np.array([prod(run.size) / 1e6 for run in runs])
            slope, start = fitted(runs)
            name = (
                f"{label(runs[0])}: {slope:.0f} ms/Mpx"
                if slope >= 10
                else f"{label(runs[0])}: {slope:.2g} ms/Mpx"
            )
            slopes.append(name)
            axes.scatter(pixels, [run.p50_ms for run in runs], 26, **_mark(number), label=name)
            along = np.geomspace(pixels.min(), pixels.max(), 50)
            line = slope * along + start
            axes.plot(along[line > 0], line[line > 0], color=_colour(number), linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis, _decades((1,)))
        axes.set_xlabel("megapixels")
        axes.set_ylabel(f"milliseconds a pair, p50, {threads_text(threads)}")
        sides = sorted({run.size for runs in lines.values() for run in runs}, key=prod)
        axes.set_xticks([prod(size) / 1e6 for size in sides], [f"{prod(size) / 1e6:.2g}" for size in sides])
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        _legend_below(figure, axes)
    return Plot(
        "pixels",
        "Latency against pixels",
        "Median time per pair against its pixels, with a fitted straight line. The legend gives its slope.",
        file.getvalue(),
        "; ".join(slopes),
    )


def fitted(runs: Sequence[Latency]) -> tuple[float, float]:
    """Slope in ms/Mpx and intercept in ms, by least squares of the relative errors."""
    pixels = np.array([prod(run.size) / 1e6 for run in runs])
    times = np.array([run.p50_ms for run in runs])
    columns = np.stack([pixels, np.ones_like(pixels)], axis=1) / times[:, None]
    (slope, start), *_ = np.linalg.lstsq(columns, np.ones_like(times), rcond=None)
    return float(slope), float(start)


def roofline(results: Results, threads: int) -> Plot | None:
    """MACs per second against MACs per byte, under the measured roofs."""
    found = [
        r
        for run in results.latency
        if run.threads == threads
        and (r := reached(run, results.cost, results.convolution_peaks, results.copy_peaks)) is not None
    ]
    if not found:
        return None
    bandwidth = max(c.gbytes_per_s for c in results.copy_peaks if c.threads == threads)
    roofs: dict[str, float] = {}
    for peak in results.convolution_peaks:
        if peak.threads == threads:
            roofs[peak.precision] = max(peak.gmacs_per_s, roofs.get(peak.precision, 0.0))
    groups: dict[tuple[str, ...], list[Reached]] = {}
    for r in found:
        groups.setdefault(r.latency.contender, []).append(r)
    with _figure(_HEIGHT + 0.16 * len(groups)) as (figure, axes, file):
        _draw_roofs(axes, bandwidth, roofs, [r.macs_per_byte for r in found])
        for number, members in enumerate(groups.values()):
            axes.scatter(
                [r.macs_per_byte for r in members],
                [r.gmacs_per_s for r in members],
                30,
                **_mark(number),
                zorder=3,
                label=label(members[0].latency),
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_numbers(axes.xaxis, _decades((1, 2, 5)))
        _plain_numbers(axes.yaxis, _decades((1, 2, 5)))
        axes.set_xlabel("MACs per byte (every operator through memory)")
        axes.set_ylabel(f"GMAC/s, {threads_text(threads)}")
        _legend_below(figure, axes)
    best = max(found, key=lambda r: r.share)
    return Plot(
        "roofline",
        "Roofline",
        f"Rate under the measured peaks of convolution and copy, one point per size. "
        f"{label(best.latency)} at {as_text(best.latency.size)} reaches {best.share:.0%} of the convolution peak.",
        file.getvalue(),
    )


def _draw_roofs(axes: Any, bandwidth: float, roofs: dict[str, float], intensities: Sequence[float]) -> None:
    left = min([*intensities, min(roofs.values()) / bandwidth]) / 2
    right = max([*intensities, max(roofs.values()) / bandwidth]) * 3
    along = np.geomspace(left, right, 200)
    for precision, roof in roofs.items():
        axes.plot(along, np.minimum(roof, along * bandwidth), color="#222222", linewidth=1.2)
        axes.annotate(
            f"{precision} convolution, {roof:.0f} GMAC/s",
            (right, roof),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    slanted = along[len(along) // 12]
    axes.annotate(
        f"copy, {bandwidth:.0f} GB/s",
        (slanted, slanted * bandwidth),
        xytext=(4, -10),
        textcoords="offset points",
        fontsize=8,
    )


def operators(times: OperatorTimes, number: int) -> Plot | None:
    """Bar chart of milliseconds per operator type."""
    total = sum(times.milliseconds.values())
    if not total:
        return None
    ordered = sorted(times.milliseconds.items(), key=lambda item: item[1], reverse=True)
    shown = ordered[:_BARS]
    rest = sum(ms for _, ms in ordered[_BARS:])
    if rest:
        shown.append((f"{len(ordered) - _BARS} others", rest))
    with _figure(1.0 + 0.22 * len(shown)) as (_, axes, file):
        names, values = zip(*reversed(shown), strict=True)
        bars = axes.barh(names, values, color=_COLOURS[0], height=0.7)
        axes.bar_label(bars, [f"{ms:.1f} ({ms / total:.0%})" for ms in values], padding=3, fontsize=8)
        axes.set_xlim(0, 1.28 * max(values))
        axes.set_xlabel("milliseconds per pair")
        axes.grid(axis="y", visible=False)
    engine = times.engine if times.precision == "fp32" else f"{times.engine} {times.precision}"
    setting = f"{times.model}, {engine}, {as_text(times.size)}, {threads_text(times.threads)}"
    three = ", ".join(f"{name} {ms / total:.0%}" for name, ms in ordered[:3])
    return Plot(
        f"operators_{number}",
        f"Time per operator: {setting}",
        f"Time per operator type in a profiled run of {total:.0f} ms. The largest: {three}.",
        file.getvalue(),
    )


@contextmanager
def _figure(height: float) -> Iterator[tuple[Figure, Any, io.BytesIO]]:
    """A figure, its axes and a file, into which the figure is saved on exit."""
    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure((_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot(), file
        figure.savefig(file, format="svg", metadata={"Date": None})


def _legend_below(figure: Figure, axes: Any) -> None:
    """Put the legend below the axes, where it hides no point and has the whole width."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=1, borderaxespad=0.2)


def _plain_numbers(axis: Any, ticks: Sequence[float]) -> None:
    """Plain numbers as ticks of a logarithmic axis, few enough for a phone."""
    low, high = axis.get_view_interval()
    shown = [t for t in ticks if low <= t <= high]
    axis.set_ticks(shown, labels=[f"{t:,g}" for t in shown])
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def _decades(steps: Sequence[int]) -> list[float]:
    """The given steps in all decades that a plot may need."""
    return [step * 10.0**decade for decade in range(-4, 8) for step in steps]


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _mark(number: int) -> dict[str, str]:
    # From the ninth on, colours repeat with another marker.
    return {
        "color": _colour(number),
        "marker": _MARKERS[(number + number // len(_MARKERS)) % len(_MARKERS)],
    }
