"""Checks of what fusing needs on this machine, each with the command that repairs it.

They raise nothing and work without OpenCV, because they run where everything else fails. Packages are imported in
processes of their own: a broken one may abort Python.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufuser.runtime.board import Jetson, offline_cores
from ufuser.runtime.isolated import Outcome, run_isolated
from ufuser.runtime.remedies import NUMPY_1, how_to_install

OLDEST, NEWEST = (3, 10), (3, 13)
_VIDEO = Path("/sys/class/video4linux")
_NVPMODEL = "nvpmodel"
_AT_ONCE = 4
"""Processes that run side by side."""
_POWER_MODE = "sudo nvpmodel -m N && sudo jetson_clocks (N of the highest mode: nvpmodel -p --verbose)"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    works: bool
    found: str
    """Version and place, or what is wrong."""
    remedy: str = ""
    """The command that repairs it; "" if it works."""
    needed: bool = False
    """Whether fusing on the CPU, the default path, fails without it."""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What the remedies depend on."""

    jetson: bool
    offline: tuple[int, ...] = ()
    """Cores that are switched off."""

    @classmethod
    def here(cls) -> Place:
        """This machine."""
        return cls(Jetson.find() is not None, offline_cores())

    def cores_on(self) -> str:
        """The command that switches all cores on; "" if they are."""
        if not self.offline:
            return ""
        if self.jetson:
            return "sudo nvpmodel -m N, then restart (N of a mode with all cores: nvpmodel -p --verbose)"
        return f"echo 1 | sudo tee /sys/devices/system/cpu/cpu{self.offline[0]}/online"


@dataclass(frozen=True, slots=True)
class _Package:
    """A package that is imported to see whether it works."""

    name: str
    module: str
    group: str
    needed: bool = False


_NEEDED = (
    _Package("NumPy", "numpy", "default path", True),
    _Package("OpenCV", "cv2", "default path", True),
    _Package("ONNX Runtime", "onnxruntime", "default path", True),
)
_OPTIONAL = (
    _Package("OpenVINO", "openvino", "engines"),
    _Package("prometheus_client (web server)", "prometheus_client", "video"),
    _Package("PyAV (video files)", "av", "video"),
    _Package("SciPy (calibrate)", "scipy", "calibration"),
    _Package("TensorRT", "tensorrt", "engines"),
    _Package("PyCUDA", "pycuda.driver", "engines"),
    _Package("Polygraphy (builds engines)", "polygraphy", "engines"),
    _Package("PyTorch (train, export)", "torch", "training and export"),
    _Package("onnx (export, build, bench)", "onnx", "training and export"),
    _Package("ONNX Script (export)", "onnxscript", "training and export"),
    _Package("Matplotlib (train, bench)", "matplotlib", "training and export"),
)


def all_checks() -> Iterator[Check]:
    """All checks, the needed ones first. The processes of the packages run side by side."""
    place = Place.here()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        needed = [pool.submit(check_package, package, place) for package in _NEEDED]
        default = pool.submit(check_default_path, place)
        opencv = pool.submit(lambda: list(check_opencv(place)))
        optional = [pool.submit(check_package, package, place) for package in _OPTIONAL]
        providers = pool.submit(check_providers, place)
        yield check_python()
        yield check_cores(place)
        yield from (found.result() for found in needed)
        yield default.result()
        yield from opencv.result()
        yield from (found.result() for found in optional)
        yield providers.result()
    yield from check_cuda()
    yield from check_jetson()
    yield from check_cameras()


def check_python() -> Check:
    """The interpreter's version."""
    found = sys.version_info[:2]
    span = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    remedy = "" if OLDEST <= found <= NEWEST else f"python3.12 -m venv .venv (expected {span})"
    # A newer version may work; an older one does not.
    return Check("Python", found >= OLDEST, platform.python_version(), remedy, True, "default path")


def check_cores(place: Place) -> Check:
    """Whether all cores are on: ONNX Runtime is known to abort on Arm boards where some are off."""
    off = ", ".join(map(str, place.offline))
    found = f"{os.cpu_count()} cores" + (f", offline: {off}" if off else "")
    return Check("Processor cores", not off, found, place.cores_on(), False, "default path")


_IMPORT = """
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
(name,) = arguments
module = import_module(name)
found = getattr(module, "__version__", None)
if found is None:
    try:
        found = version(name.partition(".")[0])
    except PackageNotFoundError:
        found = "unknown version"
value = [str(found), getattr(module, "__file__", None)]
"""


def check_package(package: _Package, place: Place) -> Check:
    """Whether a package can be imported, and its version and place."""
    top = package.module.partition(".")[0]
    remedy = how_to_install(top, place.jetson)
    outcome = run_isolated(_IMPORT, package.module)
    if outcome.error:
        if outcome.missing.partition(".")[0] == top:
            found = "not installed"
        elif outcome.died:
            found, remedy = (
                f"importing it fails: {outcome.error}",
                place.cores_on() or f"reinstall it: {remedy}",
            )
        else:
            found = f"installed, but cannot be imported: {outcome.error}"
            remedy = NUMPY_1 if _wants_numpy_1(outcome) else remedy
        return Check(package.name, False, found, remedy, package.needed, package.group)
    found, file = outcome.value
    found = f"{found} ({Path(file).parent})" if file else found
    return Check(package.name, True, found, "", package.needed, package.group)


def _wants_numpy_1(outcome: Outcome) -> bool:
    """Whether an extension that was compiled for NumPy 1 has met NumPy 2."""
    return "numpy.core.multiarray" in outcome.error or "_ARRAY_API" in outcome.error


_FUSE = """
import numpy as np
from ufuser.runtime.fuser import Fuser
from ufuser.runtime.models import AUTO
ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
with Fuser.open(AUTO, threads=1) as fuser:
    fused = fuser.fuse(ramp, ramp.T)
value = [fuser.engine.name, bool(np.isfinite(fused).all() and fused.std() > 0)]
"""


def check_default_path(place: Place) -> Check:
    """Fuse a small pair with the model shipped for CPUs."""
    name, group = "Fusing with the shipped model", "default path"
    remedy = place.cores_on() or how_to_install("onnxruntime", place.jetson)
    outcome = run_isolated(_FUSE)
    if outcome.error:
        remedy = NUMPY_1 if _wants_numpy_1(outcome) else remedy
        return Check(name, False, outcome.error, remedy, True, group)
    engine, plausible = outcome.value
    if not plausible:
        return Check(name, False, "the fused picture is blank", f"reinstall: {remedy}", True, group)
    return Check(name, True, engine, "", True, group)


_BACKENDS = """
import cv2
value = {n: bool(cv2.videoio_registry.hasBackend(getattr(cv2, "CAP_" + n.upper()))) for n in arguments}
value["wheel"] = "site-packages" in cv2.__file__
"""


def check_opencv(place: Place) -> Iterator[Check]:
    """OpenCV's back ends for cameras and videos, as its registry knows them; its build text is not reliable."""
    names = ("GStreamer", "FFmpeg", "V4L2")
    outcome = run_isolated(_BACKENDS, *names)
    if outcome.error:  # the check of OpenCV itself reports it
        return
    install = how_to_install("cv2", place.jetson)
    if not place.jetson:
        remedies = (
            f"pip's OpenCV has none: {how_to_install('cv2', True)}",
            install,
            f"Linux only; {install}",
        )
    elif outcome.value["wheel"]:
        remedies = (
            "pip uninstall opencv-python opencv-python-headless (a wheel hides JetPack's OpenCV)",
        ) * 3
    else:
        remedies = (install,) * 3
    for name, remedy in zip(names, remedies, strict=True):
        there = outcome.value[name]
        finding = "in this OpenCV" if there else "not in this OpenCV"
        yield Check(f"OpenCV with {name}", there, finding, "" if there else remedy, False, "video")


def check_providers(place: Place) -> Check:
    """ONNX Runtime's execution providers."""
    name = "ONNX Runtime on a GPU"
    outcome = run_isolated("import onnxruntime; value = onnxruntime.get_available_providers()")
    if outcome.error:
        remedy = place.cores_on() or how_to_install("onnxruntime", place.jetson)
        return Check(name, False, outcome.error, remedy, False, "engines")
    short = [str(p).removesuffix("ExecutionProvider") for p in outcome.value]
    there = "CUDA" in short or "Tensorrt" in short
    remedy = "" if there else how_to_install("onnxruntime-gpu", place.jetson)
    return Check(name, there, f"providers: {', '.join(short)}", remedy, False, "engines")


def check_cuda(load: Callable[[str], Any] = ctypes.CDLL) -> Iterator[Check]:
    """Driver and GPUs, from libcuda itself, because PyCUDA may be missing.

    Args:
        load: opens a shared library by name.
    """
    install = "sudo ubuntu-drivers install (then restart); on a Jetson: sudo apt install nvidia-jetpack"
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        yield Check("CUDA driver", False, "no libcuda.so.1", install, False, "GPU")
        return
    number = ctypes.c_int(0)
    cuda.cuDriverGetVersion(ctypes.byref(number))
    supported = f"up to CUDA {number.value // 1000}.{number.value % 1000 // 10}"
    status = int(cuda.cuInit(0))
    if status:
        remedy = "run nvidia-smi; in a container: docker run --gpus all (on a Jetson --runtime nvidia)"
        yield Check(
            "CUDA driver",
            False,
            f"{supported}, but no device can be used (error {status})",
            remedy,
            False,
            "GPU",
        )
        return
    yield Check("CUDA driver", True, supported, "", False, "GPU")
    count = ctypes.c_int(0)
    cuda.cuDeviceGetCount(ctypes.byref(count))
    for index in range(count.value):
        text = ctypes.create_string_buffer(256)
        cuda.cuDeviceGetName(text, 256, index)
        yield Check(f"GPU {index}", True, text.value.decode(errors="replace"), "", False, "GPU")


def check_jetson(root: Path = Path("/")) -> Iterator[Check]:
    """The board, JetPack, Jetson Linux and the power mode."""
    board = Jetson.find(root)
    if board is None:
        yield Check("Jetson Linux (L4T)", False, "this machine is no Jetson", "", False, "Jetson")
        return
    if board.model:
        yield Check("Board", True, board.model, "", False, "Jetson")
    release = board.l4t or "unknown: a container hides it"
    yield Check("Jetson Linux (L4T)", True, release, "", False, "Jetson")
    if board.l4t:
        jetpack = _output("dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack")
        remedy = "" if jetpack else "sudo apt update && sudo apt install nvidia-jetpack"
        yield Check("JetPack", bool(jetpack), jetpack or "package not installed", remedy, False, "Jetson")
    mode = _output(_NVPMODEL, "-q")
    name = next((line.partition(":")[2].strip() for line in mode.splitlines() if "Power Mode" in line), "")
    remedy = "" if "MAXN" in name else _POWER_MODE if board.l4t else f"outside the container: {_POWER_MODE}"
    yield Check("Power mode", bool(name), name or "unknown", remedy, False, "Jetson")


def check_cameras(folder: Path = _VIDEO, devices: Path = Path("/dev")) -> Iterator[Check]:
    """Video4Linux devices with their names, and whether this user may open them."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    if not found:
        yield Check(
            "Cameras",
            False,
            "none found",
            "connect one, then: v4l2-ctl --list-devices (sudo apt install v4l-utils)",
            False,
            "video",
        )
    for entry in found:
        device = devices / entry.name
        name = (entry / "name").read_text(errors="replace").strip() if (entry / "name").is_file() else "?"
        if os.access(device, os.R_OK | os.W_OK):
            yield Check(f"Camera {device}", True, name, "", False, "video")
        else:
            remedy = "sudo usermod -aG video $USER, then log in again"
            yield Check(f"Camera {device}", False, f"{name}: no permission", remedy, False, "video")


def _output(*command: str) -> str:
    """The output of a command; "" if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
