"""`ufuser bench energy`: millijoules per fused frame above the idle power.

Two meters are supported: the INA3221 and INA238 of Jetson boards through the kernel's hwmon files, and NVML for desktop
GPUs.
On other machines the command reports that there is no meter.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ufuser.benchmarks.results import Energy, Results, write
from ufuser.benchmarks.sizes import Size, as_text, parse_size
from ufuser.runtime.command import Parser, file_path
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import require_writable
from ufuser.runtime.models import find_model
from ufuser.runtime.outputs import check_outputs
from ufuser.runtime.telemetry.sensors import SYSTEM, Rail, input_rails, rails

_PERIOD = 0.02  # seconds between two readings of a meter without a counter


class NoMeterError(Exception):
    """No power meter was found; the message lists the meters that were tried."""


class Meter(Protocol):
    """Reads the power of a machine or a part of it."""

    @property
    def name(self) -> str:
        """Name of the meter and the part that it measures."""

    @property
    def sees_cpu(self) -> bool:
        """Whether the figure includes the processor."""

    def watts(self) -> float:
        """Current power."""

    def joules(self) -> float | None:
        """Energy since an arbitrary moment; None if the meter has no counter."""


@dataclass(frozen=True, slots=True)
class JetsonMeter:
    """The power monitors of a Jetson: its input rail if it has one, else the rails that make up the input."""

    rails: tuple[Rail, ...]
    sees_cpu = True

    @classmethod
    def find(cls, system: Path = SYSTEM) -> JetsonMeter:
        """Find the monitors under /sys.

        Raises:
            NoMeterError: there is none with readable, named channels.
        """
        found = input_rails(rails(system))
        if not found:
            raise NoMeterError(f"no INA3221 or INA238 under {system / 'class/hwmon'}")
        return cls(found)

    @property
    def name(self) -> str:
        chips = " and ".join(dict.fromkeys(rail.chip for rail in self.rails))
        return f"{chips}, {' + '.join(rail.label for rail in self.rails)}"

    def watts(self) -> float:
        return sum(_read(rail) for rail in self.rails)

    def joules(self) -> float | None:
        return None


def _read(rail: Rail) -> float:
    """Watts of a rail. An OSError here is a fault of the machine, not of the input."""
    watts = rail.watts()
    if watts is None:
        raise OSError(f"the power monitor of {rail.label} cannot be read any more: {rail.millivolts}")
    return watts


class Nvml:
    """The board power of one NVIDIA desktop or server GPU."""

    sees_cpu = False

    def __init__(self, nvml: Any, index: int = 0) -> None:
        """`nvml`: the module pynvml, initialised."""
        self._nvml = nvml
        self._gpu = nvml.nvmlDeviceGetHandleByIndex(index)
        name = nvml.nvmlDeviceGetName(self._gpu)
        self._name = name.decode() if isinstance(name, bytes) else str(name)

    @classmethod
    def find(cls) -> Nvml:
        """Open the first GPU. Raises NoMeterError if the library, the driver or a GPU is missing."""
        try:
            import pynvml  # type: ignore[import-untyped, unused-ignore]
        except ImportError:
            raise NoMeterError("no NVML (pip install nvidia-ml-py)") from None
        try:
            pynvml.nvmlInit()
            meter = cls(pynvml)
            meter.watts()
        except pynvml.NVMLError as e:
            raise NoMeterError(f"NVML finds no GPU to read ({e})") from None
        return meter

    @property
    def name(self) -> str:
        return f"NVML, board power of {self._name}"

    def watts(self) -> float:
        return float(self._nvml.nvmlDeviceGetPowerUsage(self._gpu)) / 1000

    def joules(self) -> float | None:
        try:  # available from Volta on; finer than the averaged power
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu)) / 1000
        except self._nvml.NVMLError:
            return None


def find_meter(system: Path = SYSTEM) -> Meter:
    """Find the machine's meter; a Jetson's has precedence. Raises NoMeterError."""
    try:
        return JetsonMeter.find(system)
    except NoMeterError as jetson:
        try:
            return Nvml.find()
        except NoMeterError as desktop:
            raise NoMeterError(f"{jetson}; {desktop}") from None


def mean_power(meter: Meter, work: Callable[[], object]) -> tuple[float, float]:
    """Mean power in watts and duration of `work` in seconds, from the counter or from readings every 20 ms."""
    counted = meter.joules()
    start = time.perf_counter()
    if counted is not None:
        work()
        seconds = time.perf_counter() - start
        return ((meter.joules() or 0.0) - counted) / seconds, seconds
    readings: list[tuple[float, float]] = []
    done = threading.Event()

    def read() -> None:
        while True:
            readings.append((time.perf_counter(), meter.watts()))
            if done.wait(_PERIOD):
                readings.append((time.perf_counter(), meter.watts()))
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        work()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        reader.join()
    times, watts = (np.array(column) for column in zip(*readings, strict=True))
    return float(np.sum((watts[1:] + watts[:-1]) / 2 * np.diff(times)) / (times[-1] - times[0])), seconds


@dataclass(frozen=True, slots=True)
class Load:
    """Description of the workload."""

    engine: str
    model: str
    size: Size
    threads: int


def measure(meter: Meter, fuse: Callable[[], object], load: Load, idle_s: float, busy_s: float) -> Energy:
    """Measure the idle power with everything loaded, then the power while fusing.

    Args:
        meter: the power meter.
        fuse: fuses one pair; it is called a few times to warm up.
        load: description for the result.
        idle_s, busy_s: durations in seconds.
    """
    for _ in range(3):
        fuse()
    time.sleep(min(1.0, idle_s))  # clocks and regulators settle
    idle, _ = mean_power(meter, lambda: time.sleep(idle_s))
    frames = 0

    def work() -> None:
        nonlocal frames
        until = time.perf_counter() + busy_s
        while time.perf_counter() < until:
            fuse()
            frames += 1

    busy, seconds = mean_power(meter, work)
    return Energy(load.engine, load.model, load.size, load.threads, meter.name, idle, busy, frames, seconds)


def get_parser(prog: str) -> Parser:
    """The command line, apart from its execution."""
    parser = Parser(prog=prog, description="Millijoules per frame, on a Jetson or an NVIDIA GPU.")
    parser.add_argument("--model", default="ufuser", help="shipped model or ONNX file (default: ufuser)")
    parser.add_argument("--engine", default="onnxruntime", help="(default: onnxruntime)")
    parser.add_argument("--size", default="480x640", metavar="HxW", help="(default: 480x640)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--idle", type=float, default=10, metavar="SECONDS", help="(default: 10)")
    parser.add_argument("--busy", type=float, default=20, metavar="SECONDS", help="(default: 20)")
    parser.add_argument("--json", type=file_path, metavar="FILE", help="also write the figures to this file")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure and print, or print why not. Returns 0; raises InputError for bad input."""
    if not (args.idle > 0 and args.busy > 0):
        raise InputError(f"--idle {args.idle} --busy {args.busy}: expected seconds above 0")
    size = parse_size(args.size)
    find_model(args.model)
    check_outputs({"json": args.json}, (args.model,))
    if args.json:
        require_writable(args.json)
    try:
        measured = _measured(args, find_meter(), size)
    except NoMeterError as e:
        print(f"energy not measured: {e}")
        results = Results.here(energy_absent=str(e))
    else:
        print(
            f"{measured.model} in {measured.engine} at {as_text(size)}: {measured.millijoules:.0f} mJ per frame above "
            f"idle ({measured.busy_w:.2f} W busy, {measured.idle_w:.2f} W idle, {measured.frames} frames in "
            f"{measured.seconds:.1f} s; {measured.meter})"
        )
        results = Results.here(energy=(measured,))
    if args.json:
        write(args.json, results)
    return 0


def _measured(args: argparse.Namespace, meter: Meter, size: Size) -> Energy:
    from ufuser.runtime.fuser import Fuser

    fuser = Fuser.open(args.model, args.engine, args.threads)
    if "CPU" in fuser.engine.name and not meter.sees_cpu:
        raise NoMeterError(f"{meter.name} does not measure the processor, which runs {fuser.engine.name}")
    rng = np.random.default_rng(0)
    ir, vi = rng.integers(0, 256, size, np.uint8), rng.integers(0, 256, (*size, 3), np.uint8)
    name = Path(args.model).stem if Path(args.model).suffix else args.model
    load = Load(args.engine, name, size, args.threads)
    return measure(meter, lambda: fuser.fuse(ir, vi), load, args.idle, args.busy)
