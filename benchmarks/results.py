"""What was measured, as JSON with a schema: the commands write it, `compare` and `report` read it.

One file holds one machine's results; sections that a command did not measure are empty. The JSON Schema of it,
`docs/benchmarks/results.schema.json`, is written by `ufuser bench schema`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes
from ufuser.runtime.machine import Machine, versions

SCHEMA = 1
"""Raised with every change that a reader of older files would misread."""


@dataclass(frozen=True, slots=True)
class Error:
    """How far a contender's picture is from the reference's, levels in [0, 1]."""

    reference: str
    """What it is compared with, as "PyTorch eager, not rewritten"."""
    largest: float
    """Largest absolute difference."""
    psnr_db: float | None = None
    """With a peak of 1; null where the pictures are identical."""


@dataclass(frozen=True, slots=True)
class Latency:
    """One contender at one size: how long a pair takes it."""

    engine: str
    """What ran it, as "onnxruntime", "PyTorch eager", "OpenCV"."""
    model: str
    size: tuple[int, int]
    """Height and width in pixels."""
    threads: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    fps: float
    """Pairs over the sum of their durations, all of a batch counted."""
    samples_ms: tuple[float, ...]
    """Every repetition in the order of measuring: `compare` finds the noise in it."""
    precision: str = "fp32"
    batch: int = 1
    device: str = "CPU"
    peak_memory_mib: float | None = None
    """Largest resident memory of a process of its own."""
    cold_start_s: float | None = None
    """From the start of a process to its first fused picture."""
    error: Error | None = None
    run: int = 0
    """Which of the runs that were merged it took turns in: durations of one are compared by turns, of two not."""

    @classmethod
    def of(
        cls,
        engine: str,
        model: str,
        size: tuple[int, int],
        threads: int,
        samples_s: Sequence[float],
        **more: Any,
    ) -> Latency:
        """Summarise repetitions, in seconds each; at least one. `more`: any other field."""
        milliseconds = [1000 * s for s in samples_s]
        p50, p95, p99 = (float(p) for p in np.percentile(milliseconds, (50, 95, 99)))
        fps = more.get("batch", 1) * len(samples_s) / sum(samples_s)
        samples = tuple(round(s, 4) for s in milliseconds)
        return cls(engine, model, size, threads, p50, p95, p99, fps, samples, **more)

    @property
    def contender(self) -> tuple[str, str, str, str]:
        """What is compared across sizes and threads: model, engine, precision, device."""
        return self.model, self.engine, self.precision, self.device

    @property
    def key(self) -> tuple[object, ...]:
        """What names the measurement."""
        return *self.contender, self.size, self.threads, self.batch


@dataclass(frozen=True, slots=True)
class OperatorTimes:
    """Where an engine's time goes."""

    engine: str
    model: str
    size: tuple[int, int]
    threads: int
    milliseconds: dict[str, float]
    """Operator type → milliseconds a frame."""
    precision: str = "fp32"


@dataclass(frozen=True, slots=True)
class OperatorShare:
    """One operator type's part in a graph's cost."""

    operator: str
    nodes: int
    macs: int
    bytes_moved: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a graph costs at one size, by `ufuser.benchmarks.cost`."""

    model: str
    size: tuple[int, int]
    parameters: int
    """Weights stored in the graph."""
    macs: int
    bytes_moved: int
    peak_activation_bytes: int
    operators: tuple[OperatorShare, ...]
    batch: int = 1


@dataclass(frozen=True, slots=True)
class Audited:
    """One printed figure beside the recomputed one."""

    network: str
    definition: str
    """What was counted."""
    quantity: str
    """ "parameters (K)", "MACs (G)" or "FLOPs (G)"."""
    size: tuple[int, int]
    printed: float
    scaled: bool
    """The figure was printed for another size and is scaled by the pixels."""
    recomputed: float
    reason: str
    """Why they differ by more than the tolerance; empty where they don't."""

    @property
    def difference(self) -> float:
        """Relative to the printed figure."""
        return self.recomputed / self.printed - 1


@dataclass(frozen=True, slots=True)
class ConvolutionPeak:
    """The fastest convolution found on this machine: what a network of convolutions could reach."""

    engine: str
    precision: str
    threads: int
    gmacs_per_s: float
    layer: str
    """The layer that reached it."""


@dataclass(frozen=True, slots=True)
class CopyPeak:
    """The fastest copy of large arrays."""

    threads: int
    gbytes_per_s: float
    """Read and written, 1e9 bytes."""


@dataclass(frozen=True, slots=True)
class Quality:
    """A table of `ufuser bench quality --json`, with the data set's name."""

    dataset: str
    conventions: dict[str, Any]
    means: dict[str, dict[str, float | None]]
    """Method → metric → mean over the pairs."""
    mean_rank: dict[str, float]


@dataclass(frozen=True, slots=True)
class Energy:
    """What one contender draws above idle."""

    engine: str
    model: str
    size: tuple[int, int]
    threads: int
    meter: str
    """What measured it, and which part of the machine it sees."""
    idle_w: float
    busy_w: float
    frames: int
    seconds: float
    precision: str = "fp32"

    @property
    def millijoules(self) -> float:
        """A frame, idle subtracted."""
        return 1000 * (self.busy_w - self.idle_w) * self.seconds / self.frames


@dataclass(frozen=True, slots=True)
class Results:
    """One machine's measurements."""

    machine: Machine
    versions: dict[str, str]
    date: str
    """Day of measuring, ISO 8601."""
    latency: tuple[Latency, ...] = ()
    operators: tuple[OperatorTimes, ...] = ()
    cost: tuple[Cost, ...] = ()
    audit: tuple[Audited, ...] = ()
    convolution_peaks: tuple[ConvolutionPeak, ...] = ()
    copy_peaks: tuple[CopyPeak, ...] = ()
    quality: tuple[Quality, ...] = ()
    energy: tuple[Energy, ...] = ()
    energy_absent: str = ""
    """Why no energy could be measured; empty where it was, or was not asked for."""
    notes: tuple[str, ...] = ()
    schema: int = field(default=SCHEMA)

    @classmethod
    def here(cls, more_versions: dict[str, str] | None = None, **sections: Any) -> Results:
        """Results of this machine, today."""
        today = datetime.now(timezone.utc).date().isoformat()
        return cls(Machine.here(), versions() | (more_versions or {}), today, **sections)


def write(path: Path, results: Results) -> None:
    """Write a results file whole. Raises InputError where it can't be written."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read(path: Path) -> Results:
    """Read a results file.

    Raises:
        InputError: no such file, no results, or written by a newer version; says where the first fault lies.
    """
    data = _bytes(path)
    version = _schema_version(path, data)
    if version != SCHEMA:
        raise InputError(f"{path} has schema {version}: expected {SCHEMA}; measure again with this version")
    try:
        return msgspec.json.decode(data, type=Results)
    except msgspec.ValidationError as e:
        raise InputError(f"{path} is no results file: {e}") from None


def read_quality(path: Path, dataset: str) -> Quality:
    """The JSON of `ufuser bench quality`. Raises InputError for anything else."""
    try:
        found = msgspec.json.decode(_bytes(path), type=_QualityFile)
    except (msgspec.ValidationError, msgspec.DecodeError) as e:
        raise InputError(f"{path} is not what `ufuser bench quality --json` writes: {e}") from None
    return Quality(
        dataset,
        found.conventions,
        {name: method.mean for name, method in found.methods.items()},
        {name: method.mean_rank for name, method in found.methods.items()},
    )


def merge(parts: Sequence[Results]) -> Results:
    """Results of one machine, of several files: the sections one after the other, the first's date.

    Raises:
        InputError: parts of different machines, or two costs of one model, which then has changed between them.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.machine != first.machine:
            raise InputError(
                f"results of {part.machine.cpu} ({part.machine.cores} cores) and of {first.machine.cpu} "
                f"({first.machine.cores} cores): expected one machine's; make a report for each"
            )
    joined: dict[str, Any] = {
        name: tuple(item for part in parts for item in getattr(part, name))
        for name in (
            "operators",
            "cost",
            "audit",
            "convolution_peaks",
            "copy_peaks",
            "quality",
            "energy",
            "notes",
        )
    }
    joined["cost"] = _one_each(joined["cost"])
    joined["latency"] = _of_runs(parts)
    absent = "" if joined["energy"] else next((p.energy_absent for p in parts if p.energy_absent), "")
    all_versions = {name: number for part in reversed(parts) for name, number in part.versions.items()}
    return replace(first, versions=all_versions, energy_absent=absent, **joined)


def _of_runs(parts: Sequence[Results]) -> tuple[Latency, ...]:
    """All latencies, those of each part with numbers of their own for the runs."""
    found: list[Latency] = []
    for part in parts:
        first = max((row.run for row in found), default=-1) + 1
        found += [replace(row, run=first + row.run) for row in part.latency]
    return tuple(found)


def _one_each(costs: Sequence[Cost]) -> tuple[Cost, ...]:
    """Costs without repetitions."""
    found: dict[tuple[object, ...], Cost] = {}
    for cost in costs:
        if found.setdefault((cost.model, cost.size, cost.batch), cost) != cost:
            raise InputError(
                f"two different costs of {cost.model} at {cost.size[0]}x{cost.size[1]}: the model has changed "
                f"between the results; measure all with the same"
            )
    return tuple(found.values())


def json_schema() -> bytes:
    """The JSON Schema of a results file."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Results)), indent=1) + b"\n"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("schema", help="write the JSON Schema of results files")
    parser.add_argument("out", type=Path, metavar="FILE.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the schema. Returns 0; raises InputError where it can't be written."""
    write_bytes(args.out, json_schema())
    return 0


@dataclass(frozen=True, slots=True)
class _QualityMethod:
    mean: dict[str, float | None]
    mean_rank: float


@dataclass(frozen=True, slots=True)
class _QualityFile:
    conventions: dict[str, Any]
    methods: dict[str, _QualityMethod]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}; expected a file of results") from None


def _schema_version(path: Path, data: bytes) -> object:
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError as e:
        raise InputError(f"{path} is not JSON: {e}") from None
    if not isinstance(found, dict) or "schema" not in found:
        raise InputError(f"{path} is no results file: expected an object with 'schema'")
    return found["schema"]
