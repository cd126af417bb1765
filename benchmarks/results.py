"""The results file: JSON that the measuring commands write and that `compare` and `report` read.

One file holds the results of one machine. Sections that a command did not measure are empty. `ufuser bench schema`
writes its JSON Schema, `docs/benchmarks/results.schema.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import write_bytes
from ufuser.runtime.machine import Machine, versions
from ufuser.runtime.structs import convert, read_json

SCHEMA = 1
"""Version of the format. It changes when older readers would misread the file."""

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
"""What is divided by, or drawn on an axis of logarithms."""
Level = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**18)]
Some = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Pixels = tuple[Some, Some]
"""Height and width."""


@dataclass(frozen=True, slots=True)
class Error:
    """Difference between a contender's fused picture and the reference's, with levels in [0, 1]."""

    reference: str
    """Name of the reference, such as "PyTorch eager, not rewritten"."""
    largest: Level
    """Largest absolute difference."""
    psnr_db: Level | None = None
    """Peak signal-to-noise ratio for a peak of 1; null if the pictures are identical."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Time per pair of one contender at one size."""

    engine: str
    """Such as "onnxruntime", "PyTorch eager" or "OpenCV"."""
    model: str
    size: Pixels
    """Height and width in pixels."""
    threads: Some
    p50_ms: Positive
    p95_ms: Positive
    p99_ms: Positive
    fps: Positive
    """Pairs divided by the sum of their durations; every pair of a batch counts."""
    samples_ms: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)]
    """All repetitions in the order of measurement. `compare` estimates the noise from them."""
    precision: str = "fp32"
    batch: Some = 1
    device: str = "CPU"
    peak_memory_mib: Level | None = None
    """Peak resident memory of the contender's own process."""
    cold_start_s: Level | None = None
    """Time from the start of the process to the first fused picture."""
    error: Error | None = None
    run: Count = 0
    """Index of the run among merged files. Only durations of the same run can be compared repetition by repetition."""

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
        """Summarise at least one repetition, in seconds. `more` sets any other field."""
        milliseconds = [1000 * s for s in samples_s]
        p50, p95, p99 = (float(p) for p in np.percentile(milliseconds, (50, 95, 99)))
        fps = more.get("batch", 1) * len(samples_s) / sum(samples_s)
        samples = tuple(round(s, 4) for s in milliseconds)
        return cls(engine, model, size, threads, p50, p95, p99, fps, samples, **more)

    @property
    def contender(self) -> tuple[str, str, str, str]:
        """Identity across sizes and threads: model, engine, precision, device."""
        return self.model, self.engine, self.precision, self.device

    @property
    def key(self) -> tuple[object, ...]:
        """Identity of the measurement."""
        return *self.contender, self.size, self.threads, self.batch


@dataclass(frozen=True, slots=True)
class OperatorTimes:
    """Time per operator type in an engine."""

    engine: str
    model: str
    size: Pixels
    threads: Some
    milliseconds: dict[str, Level]
    """Operator type → milliseconds per frame."""
    precision: str = "fp32"


@dataclass(frozen=True, slots=True)
class OperatorShare:
    """Cost of one operator type within a graph."""

    operator: str
    nodes: Count
    macs: Count
    bytes_moved: Count


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a graph at one size, from `ufuser.benchmarks.cost`."""

    model: str
    size: Pixels
    parameters: Count
    """Weights stored in the graph."""
    macs: Count
    bytes_moved: Count
    peak_activation_bytes: Count
    operators: tuple[OperatorShare, ...]
    batch: Some = 1


@dataclass(frozen=True, slots=True)
class Audited:
    """A printed figure and the recomputed one."""

    network: str
    definition: str
    """The network that was counted, such as "U-Fuser as published"."""
    quantity: str
    """ "parameters (K)", "MACs (G)" or "FLOPs (G)"."""
    size: Pixels
    printed: Positive
    scaled: bool
    """Whether the figure was printed for another size and is scaled by the number of pixels."""
    recomputed: Level
    reason: str
    """Why they differ by more than the tolerance; empty if they agree."""

    @property
    def difference(self) -> float:
        """Relative difference from the printed figure."""
        return self.recomputed / self.printed - 1


@dataclass(frozen=True, slots=True)
class ConvolutionPeak:
    """The fastest convolution measured on this machine: an upper bound for a convolutional network."""

    engine: str
    precision: str
    threads: Some
    gmacs_per_s: Positive
    layer: str
    """The layer that reached this rate."""


@dataclass(frozen=True, slots=True)
class CopyPeak:
    """The fastest copy of large arrays."""

    threads: Some
    gbytes_per_s: Positive
    """Read and written, 1e9 bytes."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The table of `ufuser bench quality --json`, with the name of the data set."""

    dataset: str
    conventions: dict[str, Any]
    means: dict[str, dict[str, Level | None]]
    """Method → metric → mean over the pairs."""
    mean_rank: dict[str, Level]


@dataclass(frozen=True, slots=True)
class Energy:
    """Power of one contender above idle."""

    engine: str
    model: str
    size: Pixels
    threads: Some
    meter: str
    """The meter and the part of the machine that it measures."""
    idle_w: Level
    busy_w: Level
    frames: Some
    seconds: Positive
    precision: str = "fp32"

    @property
    def millijoules(self) -> float:
        """Energy per frame, idle power subtracted."""
        return 1000 * (self.busy_w - self.idle_w) * self.seconds / self.frames


@dataclass(frozen=True, slots=True)
class Results:
    """All measurements of one machine."""

    machine: Machine
    versions: dict[str, str]
    date: str
    """Date of the measurement, ISO 8601."""
    latency: tuple[Latency, ...] = ()
    operators: tuple[OperatorTimes, ...] = ()
    cost: tuple[Cost, ...] = ()
    audit: tuple[Audited, ...] = ()
    convolution_peaks: tuple[ConvolutionPeak, ...] = ()
    copy_peaks: tuple[CopyPeak, ...] = ()
    quality: tuple[Quality, ...] = ()
    energy: tuple[Energy, ...] = ()
    energy_absent: str = ""
    """Why energy could not be measured; empty if it was measured or not requested."""
    notes: tuple[str, ...] = ()
    schema: int = field(default=SCHEMA)

    @classmethod
    def here(cls, more_versions: dict[str, str] | None = None, **sections: Any) -> Results:
        """Results of this machine with today's date."""
        today = datetime.now(timezone.utc).date().isoformat()
        return cls(Machine.here(), versions() | (more_versions or {}), today, **sections)


def write(path: Path, results: Results) -> None:
    """Write a results file atomically. Raises InputError if it cannot be written."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read(path: Path) -> Results:
    """Read a results file.

    Raises:
        InputError: the file is missing, is no results file or has another schema version.
    """
    found = read_json(path)
    if not isinstance(found, dict) or "schema" not in found:
        raise InputError(f"{path} is no results file: expected an object with the key 'schema'")
    if found["schema"] != SCHEMA:
        raise InputError(
            f"{path} has schema {str(found['schema'])[:20]}: expected {SCHEMA}; measure again with this version"
        )
    return convert(found, Results, f"{path} is no results file")


def read_quality(path: Path, dataset: str) -> Quality:
    """Read the JSON of `ufuser bench quality`. Raises InputError for any other file."""
    found = convert(read_json(path), _QualityFile, f"{path} was not written by `ufuser bench quality --json`")
    return Quality(
        dataset,
        found.conventions,
        {name: method.mean for name, method in found.methods.items()},
        {name: method.mean_rank for name, method in found.methods.items()},
    )


def merge(parts: Sequence[Results]) -> Results:
    """Concatenate the sections of several files of one machine. The date is the first file's.

    Raises:
        InputError: the files come from different machines, or hold two different costs of one model.
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
    """All latencies, with run indices that are unique across the files."""
    found: list[Latency] = []
    for part in parts:
        first = max((row.run for row in found), default=-1) + 1
        found += [replace(row, run=first + row.run) for row in part.latency]
    return tuple(found)


def _one_each(costs: Sequence[Cost]) -> tuple[Cost, ...]:
    """Costs without duplicates."""
    found: dict[tuple[object, ...], Cost] = {}
    for cost in costs:
        if found.setdefault((cost.model, cost.size, cost.batch), cost) != cost:
            raise InputError(
                f"two different costs of {cost.model} at {cost.size[0]}x{cost.size[1]}: the model has changed "
                f"between the files; measure all of them with the same model"
            )
    return tuple(found.values())


def json_schema() -> bytes:
    """The JSON Schema of a results file."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Results)), indent=1) + b"\n"


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description="Write the JSON Schema of results files.")
    parser.add_argument("out", type=file_path, metavar="FILE.json")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the schema. Returns 0; raises InputError if the file cannot be written."""
    write_bytes(args.out, json_schema())
    return 0


@dataclass(frozen=True, slots=True)
class _QualityMethod:
    mean: dict[str, Level | None]
    mean_rank: Level


@dataclass(frozen=True, slots=True)
class _QualityFile:
    conventions: dict[str, Any]
    methods: dict[str, _QualityMethod]
