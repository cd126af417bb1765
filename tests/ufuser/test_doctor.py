"""`ufuser doctor`, on this machine and on machines where something is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ufuser.runtime import checks
from ufuser.runtime.checks import Check, check_cameras, check_cuda, check_jetson

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stderr == ""
    report = json.loads(done.stdout)
    return {check["name"]: check for check in report["checks"]} | {"healthy": report["healthy"]}


def test_this_machine(command: Command) -> None:
    done = command("doctor", "--json")
    assert done.returncode == 0
    found = findings(done)
    assert found["healthy"] is True
    for name in ("Python", "NumPy", "OpenCV", "ONNX Runtime", "Fusing with the shipped model"):
        assert found[name]["works"], name
        assert found[name]["needed"], name
    for name in (
        "OpenCV with GStreamer",
        "OpenCV with FFmpeg",
        "OpenCV with V4L2",
        "TensorRT",
        "PyCUDA",
        "CUDA driver",
    ):
        assert not found[name]["needed"], name
        assert found[name]["works"] or found[name]["remedy"], name


def test_every_failure_has_a_remedy(quick_command: Command) -> None:
    done = quick_command("doctor")
    assert done.returncode == 0
    assert "The default path works" in done.stdout
    lines = done.stdout.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  -  ") and "no Jetson" not in line:
            assert "-> " in lines[number + 1], line


def test_backends_of_opencv(quick_command: Command) -> None:
    import cv2

    found = findings(quick_command("doctor", "--json"))
    assert found["OpenCV with GStreamer"]["works"] == cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)
    assert found["OpenCV with FFmpeg"]["works"] == cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)


@pytest.mark.parametrize(
    ("module", "name"),
    [("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO"), ("av", "PyAV (video files)")],
)
def test_a_package_that_is_missing(
    quick_command: Command, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = quick_command("doctor", "--json")
    found = findings(done)
    assert not found[name]["works"]
    assert found[name]["found"] == "not installed"
    assert found[name]["remedy"].startswith("pip install")
    healthy = module != "onnxruntime"
    assert (found["healthy"], done.returncode) == (healthy, 0 if healthy else 1)
    assert found["Fusing with the shipped model"]["works"] == healthy


def run_with(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ufuser", *words],
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_doctor_works_without_opencv(tmp_path: Path) -> None:
    """The usual case on a server: the wheel is installed, a system library is missing."""
    why = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({why!r})\n", encoding="utf-8")
    done = run_with(tmp_path, "doctor", "--json")
    assert done.returncode == 1
    found = findings(done)
    assert found["OpenCV"]["found"] == f"installed, but cannot be imported: {why}"
    assert "libgl1" in found["OpenCV"]["remedy"]
    assert "OpenCV with FFmpeg" not in found
    done = run_with(tmp_path, "fuse", "--ir", "a", "--vi", "b", "--out", "c")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "libGL.so.1" in line
    assert "ufuser doctor" in line


class Driver:
    """libcuda with a number of GPUs."""

    def __init__(self, devices: int) -> None:
        self.devices = devices

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802 - CUDA's names
        number._obj.value = 12060
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0 if self.devices else 100

    def cuDeviceGetCount(self, number: Any) -> int:  # noqa: N802
        number._obj.value = self.devices
        return 0

    def cuDeviceGetName(self, text: Any, size: int, device: int) -> int:  # noqa: N802
        text.value = b"Orin"
        return 0


def test_cuda() -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    (check,) = check_cuda(missing)
    assert (check.works, check.found) == (False, "no libcuda.so.1")
    (check,) = check_cuda(lambda name: Driver(0))
    assert not check.works
    assert "up to CUDA 12.6, but no device can be used (error 100)" in check.found
    driver, gpu = check_cuda(lambda name: Driver(1))
    assert driver.works
    assert (gpu.name, gpu.found) == ("GPU 0", "Orin")


def test_a_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = tmp_path / "nv_tegra_release"
    release.write_text(
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n", encoding="utf-8"
    )
    answers = {"dpkg-query": "6.2+b77", "nvpmodel": "NV Power Mode: 15W\n0"}
    monkeypatch.setattr(checks, "_output", lambda *command: answers[command[0]])
    found = {check.name: check for check in check_jetson(release)}
    assert found["Jetson Linux (L4T)"].found == "36.4.3"
    assert found["JetPack"].found == "6.2+b77"
    assert found["Power mode"].found == "15W"
    assert "nvpmodel -m N" in found["Power mode"].remedy
    answers |= {"nvpmodel": "NV Power Mode: MAXN_SUPER\n2", "dpkg-query": ""}
    found = {check.name: check for check in check_jetson(release)}
    assert found["Power mode"].remedy == ""
    assert "nvidia-jetpack" in found["JetPack"].remedy
    (other,) = check_jetson(tmp_path / "none")
    assert "no Jetson" in other.found


def test_cameras(tmp_path: Path) -> None:
    (none,) = check_cameras(tmp_path / "none")
    assert (none.works, none.found) == (False, "none found")
    folder, devices = tmp_path / "class", tmp_path / "dev"
    devices.mkdir()
    for number, name in enumerate(("PureThermal", "HD Camera")):
        (folder / f"video{number}").mkdir(parents=True)
        (folder / f"video{number}" / "name").write_text(f"{name}\n", encoding="utf-8")
    (devices / "video0").touch()  # the other one does not exist: it can't be opened
    first, second = check_cameras(folder, devices)
    assert (first.works, first.found) == (True, "PureThermal")
    assert not second.works
    assert "usermod -aG video" in second.remedy


def test_a_python_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.sys, "version_info", (3, 9, 1))
    old: Check = checks.check_python()
    assert not old.works
    assert "3.10 to 3.13" in old.remedy
