"""Metrics of every method on every pair of two folders, on all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from ufuser.benchmarks.quality import ssim
from ufuser.benchmarks.quality.baselines import BASELINES
from ufuser.benchmarks.quality.images import Grey, stretch
from ufuser.benchmarks.quality.registry import evaluate
from ufuser.runtime.color import luma
from ufuser.runtime.errors import InputError
from ufuser.runtime.images import as_uint8, read_image
from ufuser.runtime.processes import become_worker
from ufuser.runtime.thermal.still import is_raw, tone_mapped

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# Queued pairs per worker: enough to keep it busy, without filling the memory.
QUEUED_PER_WORKER = 4

Fuse: TypeAlias = Callable[[Grey, Grey], Grey]
Values: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Pair:
    """One registered pair and its fused pictures."""

    name: str
    """The common file stem."""

    ir: Path
    """Infrared picture."""

    vi: Path
    """Visible picture; read as grey luma."""

    fused: Mapping[str, Path]
    """Method → fused picture."""


@dataclass(frozen=True)
class Options:
    """Options of a table, common to all rows."""

    baselines: bool = True
    """Measure ``baselines.BASELINES`` beside the methods."""

    stretched: bool = False
    """Stretch every fused picture to 0..255 first (EMMA's convention)."""

    ssim_convention: ssim.SSIMConvention = ssim.DEFAULT
    """Window and data range of SSIM."""


def index(folder: Path, role: str) -> dict[str, Path]:
    """Pictures of a folder by file stem. ``role`` names the folder in errors. Raises InputError."""
    if not folder.is_dir():
        raise InputError(
            f"{role} was given {folder}, which is not a folder; a folder of pictures is expected: check the path"
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in found:
            raise InputError(
                f"{role} holds both {found[path.stem].name} and {path.name}; one picture per name is"
                " expected: remove one"
            )
        found[path.stem] = path
    if not found:
        raise InputError(
            f"{role} was given {folder}, which holds no pictures; files ending in {', '.join(SUFFIXES)}"
            " are expected: check the path"
        )
    return found


def match(
    ir: Path, vi: Path, fused: Mapping[str, Path], names: Sequence[str] | None = None
) -> tuple[list[Pair], int]:
    """Pair the pictures of the folders by file stem.

    With ``names``, exactly these; every folder must hold each of them. Without, all names that all folders have
    in common, because methods can be compared on the same pairs only. The second result counts the names that
    some folder lacks.

    Raises InputError for a missing or empty folder, a name that a folder lacks, or no common name.
    """
    folders = {"--ir": index(ir, "--ir"), "--vi": index(vi, "--vi")}
    methods = {name: index(folder, f"--fused {name}") for name, folder in fused.items()}
    everything = folders | {f"--fused {name}": found for name, found in methods.items()}
    common = set.intersection(*(set(found) for found in everything.values()))
    if names is None:
        if not common:
            examples = ", ".join(f"{role} has {next(iter(found))}" for role, found in everything.items())
            raise InputError(
                f"the folders have no file name in common ({examples}); pictures of one pair must share"
                " their name: rename them"
            )
        chosen = sorted(common)
        left_out = len(set.union(*(set(found) for found in everything.values()))) - len(common)
    else:
        for name in names:
            for role, found in everything.items():
                if name not in found:
                    raise InputError(
                        f"{role} holds no picture named {name}, which --list asks for; every listed name"
                        " is expected in every folder: add the picture or drop the name"
                    )
        chosen = list(dict.fromkeys(names))
        left_out = 0
    return [
        Pair(
            name,
            folders["--ir"][name],
            folders["--vi"][name],
            {method: found[name] for method, found in methods.items()},
        )
        for name in chosen
    ], left_out


def read_grey(path: Path) -> Grey:
    """A picture as grey at 8 bits; colour by its luma (BT.601), 16 bits full scale to full scale. Raises InputError."""
    image = luma(read_image(path))
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path} holds {image.dtype} pixels; 8 or 16 bits a channel are expected")
    return as_uint8(image)


def holds_raw_counts(pair: Pair) -> bool:
    """Whether the infrared picture is a camera's raw counts, which are tone mapped. Raises InputError."""
    return is_raw(read_image(pair.ir))


def _same_size(picture: Grey, path: Path, ir: Grey, ir_path: Path) -> Grey:
    if picture.shape != ir.shape:
        (height, width), (ir_height, ir_width) = picture.shape, ir.shape
        raise InputError(
            f"{path} is {width}x{height} but {ir_path} is {ir_width}x{ir_height}; the pictures of a pair"
            " must have one size: register and resize them first"
        )
    return picture


def read_sources(pair: Pair) -> tuple[Grey, Grey]:
    """Read infrared and visible of a pair as grey pictures of one size. Raises InputError."""
    ir = as_uint8(tone_mapped(luma(read_image(pair.ir)))) if holds_raw_counts(pair) else read_grey(pair.ir)
    return ir, _same_size(read_grey(pair.vi), pair.vi, ir, pair.ir)


def measure_pair(pair: Pair, made: Mapping[str, Grey], options: Options) -> dict[str, Values]:
    """Metrics of all methods on one pair, ``{method: {metric: value}}``.

    ``made`` holds further fused pictures of this pair, beside those in files. Raises InputError if a picture
    cannot be read or measured.
    """
    ir, vi = read_sources(pair)
    pictures = {method: _same_size(read_grey(path), path, ir, pair.ir) for method, path in pair.fused.items()}
    pictures |= made
    if options.baselines:
        pictures |= {name: fuse(ir, vi) for name, fuse in BASELINES.items()}
    result = {}
    for method, fused in pictures.items():
        try:
            result[method] = evaluate(
                ir,
                vi,
                stretch(fused) if options.stretched else fused,
                ssim_convention=options.ssim_convention,
            )
        except ValueError as error:
            raise InputError(f"pair {pair.name}, method {method}: {error}") from error
    return result


def _start_worker() -> None:
    become_worker()
    # One thread per process: the processes already use all cores.
    cv2.setNumThreads(1)


def _tasks(pairs: Sequence[Pair], models: Mapping[str, Fuse]) -> Iterator[tuple[Pair, dict[str, Grey]]]:
    """Pairs with the pictures of the models, fused in this process because it owns the inference sessions."""
    for pair in pairs:
        made: dict[str, Grey] = {}
        if models:
            ir, vi = read_sources(pair)
            made = {name: fuse(ir, vi) for name, fuse in models.items()}
        yield pair, made


def _measure_in_processes(
    tasks: Iterator[tuple[Pair, dict[str, Grey]]], options: Options, workers: int
) -> dict[str, dict[str, Values]]:
    """Metrics by pair, then method."""
    results: dict[str, dict[str, Values]] = {}
    pending: list[tuple[str, Future[dict[str, Values]]]] = []
    # spawn: a fork would copy locks held by threads of OpenCV and the engines.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            for pair, made in tasks:
                if len(pending) >= QUEUED_PER_WORKER * workers:
                    name, future = pending.pop(0)
                    results[name] = future.result()
                pending.append((pair.name, pool.submit(measure_pair, pair, made, options)))
            for name, future in pending:
                results[name] = future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def measure(
    pairs: Sequence[Pair],
    options: Options,
    models: Mapping[str, Fuse] | None = None,
    workers: int | None = None,
) -> dict[str, dict[str, Values]]:
    """Metrics of all methods on all pairs, ``{method: {pair: {metric: value}}}``, in the order of ``pairs``.

    ``models``: functions (ir, vi) → fused on H×W uint8, by name. ``workers``: number of processes, all cores by
    default; with 1 everything runs in this process. Raises InputError.
    """
    if not pairs:
        raise InputError("there are no pairs to measure; at least one is expected: check folders and list")
    processes = min(workers if workers is not None else os.cpu_count() or 1, len(pairs))
    tasks = _tasks(pairs, models or {})
    if processes == 1:
        by_pair = {pair.name: measure_pair(pair, made, options) for pair, made in tasks}
    else:
        by_pair = _measure_in_processes(tasks, options, processes)
    methods = by_pair[pairs[0].name]
    return {method: {pair.name: by_pair[pair.name][method] for pair in pairs} for method in methods}


def means(measured: Mapping[str, Mapping[str, Values]]) -> dict[str, Values]:
    """Mean over pairs of the result of :func:`measure`, ``{method: {metric: mean}}``."""
    return {
        method: {
            metric: sum(values[metric] for values in by_pair.values()) / len(by_pair)
            for metric in next(iter(by_pair.values()))
        }
        for method, by_pair in measured.items()
    }
