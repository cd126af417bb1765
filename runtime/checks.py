"""Checks of what fusing needs on this machine, each with the command that repairs it.

They raise nothing and work without OpenCV, because they run where everything else fails.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ufuser.runtime.errors import first_line

OLDEST, NEWEST = (3, 10), (3, 13)
_JETSON = Path("/etc/nv_tegra_release")
_VIDEO = Path("/sys/class/video4linux")
_NVPMODEL = "nvpmodel"
_JETPACK_OPENCV = (
    "sudo apt install python3-opencv, and a virtual environment with --system-site-packages, no opencv wheel "
    "in it"
)


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


def all_checks() -> Iterator[Check]:
    """All checks, made one by one, the needed ones first."""
    yield check_python()
    yield from (_imported(*row) for row in _NEEDED)
    yield check_default_path()
    yield from check_opencv()
    yield from (_imported(*row) for row in _OPTIONAL)
    yield check_providers()
    yield from check_cuda()
    yield from check_jetson()
    yield from check_cameras()


_Row = tuple[str, str, str, bool, str]
_NEEDED: tuple[_Row, ...] = (
    ("NumPy", "numpy", 'pip install "ufuser[cpu]"', True, "default path"),
    (
        "OpenCV",
        "cv2",
        'pip install "ufuser[cpu]" (on a server without a desktop: sudo apt install libgl1 libglib2.0-0); on a '
        f"Jetson: {_JETPACK_OPENCV}",
        True,
        "default path",
    ),
    ("ONNX Runtime", "onnxruntime", 'pip install "ufuser[cpu]"', True, "default path"),
)
_OPTIONAL: tuple[_Row, ...] = (
    ("OpenVINO", "openvino", 'pip install "ufuser[openvino]"', False, "engines"),
    ("prometheus_client (web server)", "prometheus_client", 'pip install "ufuser[metrics]"', False, "video"),
    ("PyAV (video files)", "av", 'pip install "ufuser[cpu]"', False, "video"),
    (
        "SciPy (calibrate)",
        "scipy",
        'pip install "ufuser[calibrate]"; on a Jetson: sudo apt install python3-scipy',
        False,
        "calibration",
    ),
    (
        "TensorRT",
        "tensorrt",
        'pip install "ufuser[tensorrt]"; on a Jetson: sudo apt install python3-libnvinfer',
        False,
        "engines",
    ),
    (
        "PyCUDA",
        "pycuda.driver",
        'CUDA_ROOT=/usr/local/cuda PATH=$PATH:/usr/local/cuda/bin pip install "ufuser[tensorrt]"',
        False,
        "engines",
    ),
    ("Polygraphy (builds engines)", "polygraphy", 'pip install "ufuser[tensorrt]"', False, "engines"),
)


def check_python() -> Check:
    """The interpreter's version."""
    found = sys.version_info[:2]
    span = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    remedy = "" if OLDEST <= found <= NEWEST else f"python3.12 -m venv .venv (expected {span})"
    # A newer version may work; an older one does not.
    return Check("Python", found >= OLDEST, platform.python_version(), remedy, True, "default path")


def _imported(name: str, module: str, remedy: str, needed: bool, group: str) -> Check:
    """Whether a module can be imported, and its version and place."""
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as e:
        if e.name and module.split(".")[0] == e.name.split(".")[0]:
            return Check(name, False, "not installed", remedy, needed, group)
        return Check(name, False, first_line(e), remedy, needed, group)
    except Exception as e:  # a broken extension module may raise anything
        return Check(
            name, False, f"installed, but cannot be imported: {first_line(e)}", remedy, needed, group
        )
    found = _version(loaded, module)
    where = getattr(loaded, "__file__", None)
    return Check(name, True, f"{found} ({Path(where).parent})" if where else found, "", needed, group)


def _version(loaded: Any, module: str) -> str:
    with suppress(AttributeError):
        return str(loaded.__version__)
    try:
        return version(module.partition(".")[0])
    except PackageNotFoundError:
        return "unknown version"


def check_default_path() -> Check:
    """Fuse a small pair with the model shipped for CPUs."""
    name, group = "Fusing with the shipped model", "default path"
    try:
        import numpy as np

        from ufuser.runtime.fuser import Fuser
        from ufuser.runtime.models import AUTO

        ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
        with Fuser.open(AUTO, threads=1) as fuser:
            fused = fuser.fuse(ramp, ramp.T)
        if not (np.isfinite(fused).all() and fused.std() > 0):
            return Check(
                name,
                False,
                "the fused picture is blank",
                'pip install --force-reinstall "ufuser[cpu]"',
                True,
                group,
            )
        return Check(name, True, fuser.engine.name, "", True, group)
    except Exception as e:  # any error is the finding
        return Check(name, False, first_line(e), 'pip install "ufuser[cpu]"', True, group)


def check_opencv() -> Iterator[Check]:
    """OpenCV's back ends for cameras and videos, as its registry knows them; its build text is not reliable."""
    try:
        cv2: Any = import_module("cv2")
    except Exception:  # the check of OpenCV itself reports it
        return
    backends = (
        ("GStreamer", cv2.CAP_GSTREAMER, f"pip's OpenCV has none: {_JETPACK_OPENCV}"),
        ("FFmpeg", cv2.CAP_FFMPEG, 'pip install "ufuser[cpu]"'),
        ("V4L2", cv2.CAP_V4L2, "Linux only; " + 'pip install "ufuser[cpu]"'),
    )
    for label, backend, remedy in backends:
        there = bool(cv2.videoio_registry.hasBackend(backend))
        finding = "in this OpenCV" if there else "not in this OpenCV"
        yield Check(f"OpenCV with {label}", there, finding, "" if there else remedy, False, "video")


def check_providers() -> Check:
    """ONNX Runtime's execution providers."""
    name = "ONNX Runtime on a GPU"
    try:
        providers = import_module("onnxruntime").get_available_providers()
    except Exception as e:  # a broken installation may raise anything
        return Check(name, False, first_line(e), 'pip install "ufuser[cpu]"', False, "engines")
    short = [str(p).removesuffix("ExecutionProvider") for p in providers]
    there = "CUDA" in short or "Tensorrt" in short
    remedy = "" if there else 'where CUDA is: pip uninstall onnxruntime && pip install "ufuser[gpu]"'
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


def check_jetson(release: Path = _JETSON) -> Iterator[Check]:
    """JetPack, Jetson Linux and the power mode."""
    try:
        text = release.read_text(errors="replace").strip()
    except OSError:
        yield Check("Jetson Linux (L4T)", False, "this machine is no Jetson", "", False, "Jetson")
        return
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    release_number = f"{match[1]}.{match[2]}" if match else text.splitlines()[0]
    yield Check("Jetson Linux (L4T)", True, release_number, "", False, "Jetson")
    jetpack = _output("dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack")
    remedy = "" if jetpack else "sudo apt update && sudo apt install nvidia-jetpack"
    yield Check("JetPack", bool(jetpack), jetpack or "package not installed", remedy, False, "Jetson")
    mode = _output(_NVPMODEL, "-q")
    name = next((line.partition(":")[2].strip() for line in mode.splitlines() if "Power Mode" in line), "")
    best = "MAXN" in name
    remedy = (
        ""
        if best
        else "sudo nvpmodel -m N && sudo jetson_clocks (N of the highest mode: nvpmodel -p --verbose)"
    )
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
