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
from ufuser.runtime.checks import (
    Check,
    Place,
    check_cameras,
    check_cores,
    check_cuda,
    check_default_path,
    check_jetson,
    check_opencv,
    check_package,
    check_providers,
)
from ufuser.runtime.isolated import Outcome

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
def test_a_package_that_is_missing(tmp_path: Path, module: str, name: str) -> None:
    done = run_with(
        package(tmp_path, module, f"raise ModuleNotFoundError(name={module!r})"), "doctor", "--json"
    )
    found = findings(done)
    assert not found[name]["works"]
    assert found[name]["found"] == "not installed"
    assert found[name]["remedy"].startswith("pip install")
    healthy = module != "onnxruntime"
    assert (found["healthy"], done.returncode) == (healthy, 0 if healthy else 1)
    assert found["Fusing with the shipped model"]["works"] == healthy


def test_a_package_that_kills_python(tmp_path: Path) -> None:
    """ONNX Runtime aborts on import where cores are offline: doctor names what died and goes on."""
    kills = "import os, sys\nprint('cpuinfo: no such core', file=sys.stderr, flush=True)\nos.abort()\n"
    done = run_with(package(tmp_path, "onnxruntime", kills), "doctor", "--json")
    assert done.returncode == 1
    found = findings(done)
    assert "SIGABRT (cpuinfo: no such core)" in found["ONNX Runtime"]["found"]
    assert "SIGABRT" in found["Fusing with the shipped model"]["found"]
    assert found["NumPy"]["works"]
    assert found["CUDA driver"]["found"]


def test_cores_that_are_offline() -> None:
    check = check_cores(Place(jetson=True, offline=(4, 5)))
    assert not check.works
    assert check.found.endswith("offline: 4, 5")
    assert "nvpmodel -m N" in check.remedy
    assert "cpu4/online" in check_cores(Place(jetson=False, offline=(4, 5))).remedy
    assert check_cores(Place(jetson=True)).works


def test_a_package_that_dies_where_cores_are_offline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "run_isolated", lambda *_: Outcome(error="it died", died=True))
    (onnxruntime,) = (package for package in checks._NEEDED if package.module == "onnxruntime")
    assert "nvpmodel" in check_package(onnxruntime, Place(jetson=True, offline=(4,))).remedy
    assert check_package(onnxruntime, Place(jetson=True)).remedy.startswith(
        "reinstall it: pip install onnxruntime"
    )


@pytest.mark.parametrize("jetson", [True, False])
def test_remedies_do_not_break_a_jetson(monkeypatch: pytest.MonkeyPatch, jetson: bool) -> None:
    """There, an extra with a wheel of OpenCV would hide JetPack's, and NumPy 2 would break it."""
    for outcome in (
        Outcome(error="x", missing="x"),
        Outcome(value=dict.fromkeys(("GStreamer", "FFmpeg", "V4L2", "wheel"), False)),
    ):
        monkeypatch.setattr(checks, "run_isolated", lambda *_, o=outcome: o)
        remedies = [check.remedy for check in check_opencv(Place(jetson))]
        if outcome.error:
            remedies += [check_default_path(Place(jetson)).remedy, check_providers(Place(jetson)).remedy]
            remedies += [check_package(p, Place(jetson)).remedy for p in (*checks._NEEDED, *checks._OPTIONAL)]
        assert all(remedies)
        if jetson:
            assert not [r for r in remedies if "ufuser[" in r or "pip install opencv" in r]
        else:
            assert [r for r in remedies if "ufuser[cpu]" in r]


def test_an_opencv_wheel_over_jetpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"GStreamer": False, "FFmpeg": True, "V4L2": True, "wheel": True}
    monkeypatch.setattr(checks, "run_isolated", lambda *_: Outcome(value=value))
    gstreamer, *_ = check_opencv(Place(jetson=True))
    assert gstreamer.remedy.startswith("pip uninstall opencv-python")


def test_an_opencv_for_numpy_1_under_numpy_2(tmp_path: Path) -> None:
    found = findings(
        run_with(
            package(tmp_path, "cv2", "raise ImportError('numpy.core.multiarray failed to import')"),
            "doctor",
            "--json",
        )
    )
    assert (
        found["OpenCV"]["remedy"]
        == found["Fusing with the shipped model"]["remedy"]
        == 'pip install "numpy<2"'
    )


def package(folder: Path, name: str, code: str) -> Path:
    """A folder with a module of this name that hides the installed one."""
    (folder / f"{name}.py").write_text(f"{code}\n", encoding="utf-8")
    return folder


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
    release = tmp_path / "etc/nv_tegra_release"
    release.parent.mkdir()
    release.write_text(
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n", encoding="utf-8"
    )
    answers = {"dpkg-query": "6.2+b77", "nvpmodel": "NV Power Mode: 15W\n0"}
    monkeypatch.setattr(checks, "_output", lambda *command: answers[command[0]])
    found = {check.name: check for check in check_jetson(tmp_path)}
    assert found["Jetson Linux (L4T)"].found == "36.4.3"
    assert found["JetPack"].found == "6.2+b77"
    assert found["Power mode"].found == "15W"
    assert "nvpmodel -m N" in found["Power mode"].remedy
    answers |= {"nvpmodel": "NV Power Mode: MAXN_SUPER\n2", "dpkg-query": ""}
    found = {check.name: check for check in check_jetson(tmp_path)}
    assert found["Power mode"].remedy == ""
    assert "nvidia-jetpack" in found["JetPack"].remedy
    (other,) = check_jetson(tmp_path / "none")
    assert "no Jetson" in other.found


def test_a_jetson_in_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = tmp_path / "sys/devices/soc0/family"
    family.parent.mkdir(parents=True)
    family.write_text("Tegra\n", encoding="utf-8")
    monkeypatch.setattr(checks, "_output", lambda *command: "")
    release, mode = check_jetson(tmp_path)
    assert (release.works, release.found) == (True, "unknown: a container hides it")
    assert mode.remedy.startswith("outside the container: sudo nvpmodel")


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
