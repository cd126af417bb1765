"""Recipes, options, calibrations, points, manifests, results, URIs and flags."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tomllib

from tests.robustness.mutations import of_json, of_text
from tests.robustness.pictures import encoded, scene
from tests.robustness.reader import Case, Reader, Seed
from ufuser.benchmarks.peak import reached, reached_text
from ufuser.benchmarks.results import (
    Audited,
    ConvolutionPeak,
    CopyPeak,
    Cost,
    Energy,
    Error,
    Latency,
    OperatorShare,
    OperatorTimes,
    Results,
    merge,
    read,
)
from ufuser.cli import calibrate_options
from ufuser.cli.fuse import FuseOptions
from ufuser.runtime import schemes
from ufuser.runtime.alignment import Calibration, Lens, Residual
from ufuser.runtime.engines.manifest import DeviceFacts, Manifest, check_engine, manifest_path
from ufuser.runtime.engines.profiles import Extent, Profile
from ufuser.runtime.errors import InputError
from ufuser.runtime.options import from_flags, from_toml
from ufuser.runtime.sinks.opening import open_sink
from ufuser.runtime.sinks.sink import SinkContext
from ufuser.runtime.sources import open_source
from ufuser.runtime.streaming.options import StreamOptions
from ufuser.runtime.uri import mask, seconds
from ufuser.train.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "train" / "recipes"


def recipe_seeds(folder: Path) -> list[Seed]:
    """The shipped ones."""
    return [Seed(path.name, path.read_bytes()) for path in sorted(RECIPES.rglob("*.toml"))]


def read_recipe(case: Case) -> None:
    recipe = load_recipe(case.path)
    given = tomllib.loads(case.data.decode("utf-8-sig"))
    found = msgspec.to_builtins(recipe)
    _same(case, {**found, recipe.command: found["objective"]}, given)


def _same(case: Case, found: Any, given: Any, where: str = "") -> None:
    """Every number and text of the file is in what was read; texts may have been parsed."""
    if isinstance(given, dict):
        for key, value in given.items():
            _same(
                case,
                found[key] if key in found else found.get(key.replace("-", "_")),
                value,
                f"{where}.{key}",
            )
    elif isinstance(given, list):
        case.require(len(found) == len(given), f"{where}: {found}, the file has {given}")
        for index, value in enumerate(given):
            _same(case, found[index], value, f"{where}[{index}]")
    elif not isinstance(given, str) or isinstance(found, str):
        case.require(
            found == given or (found != found and given != given),
            f"{where} is {found!r}, the file has {given!r}",
        )


def option_seeds(folder: Path) -> list[Seed]:
    """Two settings files of `stream --config`."""
    one = 'ir = "sim://thermal"\nvi = "sim://visible?seed=3"\nout = ["null:", "x.mkv?codec=ffv1"]\nsync = "hold"\n'
    two = (
        'ir = "a.mkv?live=1"\nvi = "folder:b?fps=25"\nmax-skew = "40ms"\nir_offset = -0.01\nagc = "plateau"\n'
    )
    more = 'metrics = 9090\nbind = "127.0.0.1"\ntoken = "correct horse"\nduration = 10\nspeed = 1.0\nthreads = 2\n'
    return [Seed("one.toml", one.encode()), Seed("two.toml", (two + more).encode())]


def read_options(case: Case) -> None:
    values = from_toml(StreamOptions, case.path)
    if not {"ir", "vi"} <= values.keys():
        raise InputError("ir or vi missing")
    StreamOptions(**values)
    given = tomllib.loads(case.data.decode("utf-8-sig"))
    for key, value in given.items():
        found = values[key.replace("-", "_")]
        if isinstance(value, str) and not isinstance(found, str):
            value = [value] if isinstance(found, tuple) else seconds(value)
        _same(case, found, value, key)


FLAGS = (
    (
        StreamOptions,
        {"ir": "sim://thermal", "vi": "sim://visible", "max_skew": "40ms", "duration": "10", "threads": "2"},
    ),
    (
        StreamOptions,
        {"ir": "a.mkv", "vi": "b.mkv", "metrics": "0", "agc": "clahe", "out": ["null:"], "sync": "hold"},
    ),
    (
        FuseOptions,
        {"ir": "a.png", "vi": "b.png", "out": "c.png", "model": "lite", "engine": "auto", "threads": "1"},
    ),
    (
        calibrate_options.BoardOptions,
        {"ir": "a", "vi": "b", "board": "9x6", "spacing": "0.04", "out": "c.json"},
    ),
    (
        calibrate_options.RefineOptions,
        {"ir": "a", "vi": "b", "pairs": "4", "seconds": "10", "out": "c.json", "vi_fov": "50"},
    ),
    (calibrate_options.OffsetOptions, {"ir": "a", "vi": "b", "seconds": "20s"}),
)


def flag_seeds(folder: Path) -> list[Seed]:
    """Command lines, as JSON."""
    return [Seed(f"{n}.json", json.dumps(flags).encode()) for n, (_, flags) in enumerate(FLAGS)]


def read_flags(case: Case) -> None:
    try:
        given = json.loads(case.data)
    except (ValueError, RecursionError):
        raise InputError("no command line") from None
    kind = FLAGS[int(case.name[0])][0] if case.name[0].isdigit() else StreamOptions
    if not isinstance(given, dict):
        raise InputError("no command line")
    words = {
        name: [str(v) for v in value] if isinstance(value, list) else str(value)
        for name, value in given.items()
    }
    values = from_flags(kind, words)
    missing = [
        f for f in kind.__struct_fields__ if f in FLAGS[0][1] and f in ("ir", "vi", "out") and f not in values
    ]
    if missing and (kind is not StreamOptions or missing != ["out"]):
        raise InputError(f"{missing} missing")  # by argparse
    try:
        kind(**values)
    except TypeError as error:
        if "Missing required argument" not in str(error):
            raise
        raise InputError("missing") from None  # by argparse


def calibration_seeds(folder: Path) -> list[Seed]:
    """With and without lenses."""
    scale = np.array([[0.98, 0.01, 1.0], [-0.01, 1.02, -0.5], [1e-5, 0.0, 1.0]])
    lens = Lens(np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]]), np.array([-0.2, 0.05, 1e-3, 0, 0]))
    size, residual = (32, 24), Residual(0.5, 0.4, 1.2, 12)
    whole = Calibration(size, size, scale, lens, lens, "board", residual, 5.0, 0.06, 0.012)
    return [
        Seed(f"{name}.json", json.dumps(one.as_json(), indent=2).encode())
        for name, one in (("plain", Calibration(size, size, scale)), ("whole", whole))
    ]


def read_calibration(case: Case) -> None:
    """`calibrate check`, which warps; at times as the start of `calibrate points`."""
    if case.rng.random() < 0.2:
        (case.folder / "points.csv").write_bytes(_grid().encode())
        sizes = ("--vi-size", "32x24", "--ir-size", "32x24")
        points = ("--points", case.folder / "points.csv", "--start", case.path)
        case.command("calibrate", "points", *points, *sizes, "--out", case.out("out.json"))
        return
    for side in ("ir", "vi"):
        (case.folder / f"{side}.png").write_bytes(encoded(".png", scene()))
    pair = ("--ir", case.folder / "ir.png", "--vi", case.folder / "vi.png")
    case.command("calibrate", "check", *pair, "--calibration", case.path, "--out", case.out("out.png"))
    found, given = Calibration.load(case.path).as_json(), json.loads(case.data)
    close = np.allclose(found["homography"], given["homography"]) and found["vi_size"] == given["vi_size"]
    case.require(close, "other numbers than in the file")


def _grid() -> str:
    return "".join(
        f"{x},{y},{x * 0.9 + 1:.2f},{y * 0.9 + 1:.2f}\n" for x in (2, 12, 22, 30) for y in (2, 12, 22)
    )


def points_seeds(folder: Path) -> list[Seed]:
    """CSV with and without a heading, JSON."""
    rows = [[float(cell) for cell in line.split(",")] for line in _grid().splitlines()]
    heading = "# by hand\nir_x,ir_y,vi_x,vi_y\n"
    return [
        Seed("plain.csv", _grid().encode()),
        Seed("heading.csv", (heading + _grid()).encode()),
        Seed("rows.json", json.dumps(rows).encode()),
    ]


def read_point_pairs(case: Case) -> None:
    out, sizes = case.out("out.json"), ("--vi-size", "32x24", "--ir-size", "32x24")
    case.command("calibrate", "points", "--points", case.path, *sizes, "--out", out)
    homography = Calibration.load(out).homography
    case.require(np.isfinite(homography).all(), f"a homography of {homography.tolist()}")


def manifest_seeds(folder: Path) -> list[Seed]:
    """The manifest of an engine of seven bytes."""
    shape = Extent(1, 480, 640)
    facts = DeviceFacts("10.3.0", "Orin", "8.7", "12.6", "12.6", "36.4.3")
    digest = "239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5"
    one = Manifest(
        "k",
        "lite.onnx",
        "0",
        digest,
        7,
        facts,
        (Profile(shape, shape, shape),),
        {"fp16": True, "level": 3},
        {"model": "lite", "shape_multiple": "8"},
        {"Half": 3},
        "ufuser build lite.onnx",
        "0.1.0",
    )
    return [Seed("x.engine.json", one.as_json().encode())]


def read_manifest(case: Case) -> None:
    engine = case.folder / "e.engine"
    engine.write_bytes(b"payload")
    manifest_path(engine).write_bytes(case.data)
    manifest = Manifest.read(engine)
    _same(case, json.loads(manifest.as_json()), json.loads(case.data))
    check_engine(engine, b"payload", manifest, DeviceFacts("10.3.0", "Orin", "8.7", l4t="36.4.3"))


def results_seeds(folder: Path) -> list[Seed]:
    """A results file with every section, and one of latencies."""
    sizes = ((24, 32), (48, 64))
    error = Error("PyTorch eager, not rewritten", 1e-6, 120.0)
    runs = tuple(
        Latency.of(
            engine,
            "ufuser",
            size,
            threads,
            [0.01 * (1 + n / 9) for n in range(9)],
            peak_memory_mib=90.0,
            cold_start_s=0.4,
            error=error,
        )
        for engine in ("PyTorch eager", "onnxruntime")
        for size in sizes
        for threads in (1, 2)
    )
    share = OperatorShare("Conv", 1, 10**6, 10**5)
    whole = Results.here(
        latency=runs,
        operators=(OperatorTimes("onnxruntime", "ufuser", sizes[0], 2, {"Conv": 3.0, "Add": 1.0}),),
        cost=tuple(Cost("ufuser", size, 985_000, 10**8, 10**7, 10**6, (share,)) for size in sizes),
        audit=(Audited("FNet", "as published", "MACs (G)", sizes[0], 0.33, False, 44.34, "skipped"),),
        convolution_peaks=(ConvolutionPeak("onnxruntime", "fp32", 2, 100.0, "3x3"),),
        copy_peaks=(CopyPeak(2, 30.0),),
        energy=(Energy("onnxruntime", "ufuser", sizes[0], 2, "INA3221", 5.0, 15.0, 100, 2.0),),
        notes=("a | bar and <angles>",),
    )
    some = Results.here(latency=runs[:3])
    return [
        Seed(f"{name}.json", msgspec.json.encode(one)) for name, one in (("whole", whole), ("some", some))
    ]


def read_results(case: Case) -> None:
    """`bench compare` with the whole one, and what `bench peak --results` prints."""
    whole = case.folder / "whole_seed.json"
    whole.write_bytes(results_seeds(case.folder)[0].data)
    pair = [whole, case.path] if case.rng.random() < 0.5 else [case.path, whole]
    text = case.command("bench", "compare", *pair, good=(0, 1))
    case.require(not re.search(r"\bnan(%| ms)", text), "printed NaN")
    merged = merge([read(case.path)])
    peaks = (ConvolutionPeak("onnxruntime", "fp32", 2, 100.0, "3x3"),), (CopyPeak(2, 30.0),)
    for latency in merged.latency:
        found = reached(latency, merged.cost, *peaks)
        if found:
            reached_text(found)
    first = json.loads(case.data).get("latency") or [{}]
    case.require(
        not merged.latency or math.isclose(merged.latency[0].p50_ms, first[0]["p50_ms"]), "other numbers"
    )


def report_seeds(folder: Path) -> list[Seed]:
    """Results, and tables of quality."""
    methods = {
        name: {"mean": {"EN": 6.9, "SD": 40.0, "VIF": None}, "mean_rank": rank}
        for name, rank in (("mean", 2), ("ufuser", 1))
    }
    quality = {"conventions": {"EN": "8 bits"}, "methods": methods, "pairs": 3}
    return [*results_seeds(folder), Seed("quality.json", json.dumps(quality).encode())]


def read_report(case: Case) -> None:
    """`bench report --results`, or `--quality` for tables of quality."""
    words, out = ["--results", case.path], case.folder / "report"
    if case.name.startswith("quality"):
        whole = case.folder / "whole_seed.json"
        whole.write_bytes(results_seeds(case.folder)[0].data)
        words = ["--results", whole, "--quality", f"MSRS={case.path}"]
    try:
        case.command("bench", "report", *words, "--out", out)
    except InputError:
        case.require(not (out / "report.html").exists(), "refused, but wrote a page")
        raise
    case.require((out / "report.html").is_file() and (out / "report.md").is_file(), "no page")


URIS = (
    "v4l2:///dev/video0?format=Y16&size=640x512&fps=30",
    "csi://0?size=1280x720&fps=30&flip=2&mode=0",
    "gst:videotestsrc ! video/x-raw,format=GRAY8 ! appsink",
    "rtsp://user:pass@192.0.2.1:554/stream?channel=1",
    "rtsps://192.0.2.1/x",
    "folder:pictures?fps=25",
    "folder:pictures?live=1&fps=25&loop=1&drop=0.02&jitter=8ms",
    "file:a.mkv?live=1&stall=5&offset=12ms&seed=1&silent=3-4&gone=2-3",
    "clip.mp4?live=1",
    "pictures/a.png",
    "sim://thermal?seed=3&size=64x48&fps=30",
    "sim://visible?size=64x48&night=1",
    "window:",
    "null:",
    "mjpeg://127.0.0.1:8080",
    "mjpeg://[::1]:0/",
    "x.mkv?codec=ffv1",
    "x.avi",
    "folder:out",
    "rtsp://h/p",
    "plug:in?a=b",
)
_OPENED = ("", "file", "folder", "sim", "v4l2", "csi", "gst")


def uri_seeds(folder: Path) -> list[Seed]:
    """One or more of every scheme."""
    return [Seed(f"{n}.txt", text.encode()) for n, text in enumerate(URIS)]


def read_uri(case: Case) -> None:
    """Parsed as a source and as an output, and opened where that reaches no network, screen or port."""
    (case.folder / "pictures").mkdir()
    (case.folder / "pictures" / "a.png").write_bytes(encoded(".png", scene()))
    text = os.fsdecode(case.data).replace("\0", "")  # as words of a command line are
    mask(text)
    refused = []
    for group in (schemes.SOURCES, schemes.SINKS):
        try:
            uri = schemes.parse(group, text)
            case.require(uri.scheme == "" or text.lower().startswith(uri.scheme), "another scheme")
            if group == schemes.SOURCES and uri.scheme in _OPENED:
                open_source(text).close()
            elif group == schemes.SINKS and (uri.scheme == "null" or _is_here(uri.address, uri.scheme)):
                open_sink(text, SinkContext()).abort()
        except InputError as error:
            refused.append(error)
    if len(refused) == 2:
        raise refused[0]


def _is_here(address: str, scheme: str) -> bool:
    """Whether an output would lie in the folder of the case."""
    return scheme in ("", "file", "folder") and not address.startswith(("/", "~")) and ".." not in address


READERS = (
    Reader("recipes", recipe_seeds, of_text, read_recipe),
    Reader("options", option_seeds, of_text, read_options),
    Reader("flags", flag_seeds, of_json, read_flags),
    Reader("calibrations", calibration_seeds, of_json, read_calibration),
    Reader("points", points_seeds, of_text, read_point_pairs),
    Reader("manifests", manifest_seeds, of_json, read_manifest),
    Reader("results", results_seeds, of_json, read_results),
    Reader("reports", report_seeds, of_json, read_report, seconds=60.0),
    Reader("uris", uri_seeds, of_text, read_uri),
)
