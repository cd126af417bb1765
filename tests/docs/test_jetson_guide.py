"""The commands of the Jetson guide, in its order, over the doubles of TensorRT and PyCUDA."""

from __future__ import annotations

import re
import shlex
import subprocess
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from packaging.requirements import Requirement

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "jetson.md"
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
UNIT = re.compile(r"^```ini\n(.*?)^```", re.MULTILINE | re.DOTALL)
CSI_DEFAULT = "1920x1080"
"""What nvarguscamerasrc gives if no size is asked for."""


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    return BLOCK.findall(GUIDE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lines(blocks: list[str]) -> list[str]:
    """Each command of the guide on one line."""
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def the_line(lines: list[str], start: str) -> list[str]:
    """The words of the one command that begins so."""
    (line,) = (line for line in lines if line.startswith(start))
    return shlex.split(line, comments=True)


def test_the_shell_reads_it(blocks: list[str]) -> None:
    for block in blocks:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_pycuda_finds_what_it_compiles_with(lines: list[str]) -> None:
    words = the_line(lines, "sudo apt ")
    assert {"build-essential", "python3-dev", "python3-opencv", "python3-venv"} <= set(words)
    install = next(n for n, line in enumerate(lines) if line.startswith("pip install"))
    assert any("/usr/local/cuda/bin" in line for line in lines[:install])


def test_nothing_replaces_jetpacks_opencv_or_numpy(lines: list[str]) -> None:
    for line in lines:
        if line.startswith("pip install"):
            assert "numpy<2" in shlex.split(line, comments=True)
            assert not re.search(r"opencv|cpu|gpu|bench|dev", line)


def test_the_power_mode_is_set_before_anything_runs(lines: list[str]) -> None:
    """A mode with cores switched off makes ONNX Runtime abort."""
    mode = next(n for n, line in enumerate(lines) if "nvpmodel -m" in line)
    assert mode < next(n for n, line in enumerate(lines) if line.startswith("ufuser doctor"))


def test_the_service_may_open_the_gpu_and_the_cameras() -> None:
    (unit,) = UNIT.findall(GUIDE.read_text(encoding="utf-8"))
    (groups,) = re.findall(r"^SupplementaryGroups=(.*)$", unit, re.MULTILINE)
    assert {"video", "render"} <= set(groups.split())


def required(extra: str, machine: str) -> dict[str, Requirement]:
    """What pip installs for an extra on Python 3.10, by name."""
    setup = ConfigParser()
    setup.read(GUIDE.parents[1] / "setup.cfg", encoding="utf-8")
    environment = {"platform_machine": machine, "python_version": "3.10", "extra": ""}
    lines = [
        *setup["options"]["install_requires"].splitlines(),
        *setup["options.extras_require"][extra].splitlines(),
    ]
    found: dict[str, Requirement] = {}
    for line in filter(None, lines):
        if line.startswith("ufuser["):
            found |= required(line.removeprefix("ufuser[").rstrip("]"), machine)
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            found[requirement.name] = requirement
    return found


@pytest.mark.parametrize("extra", ["tensorrt", "gpu"])
def test_no_wheel_hides_jetpacks_packages(extra: str) -> None:
    here = required(extra, "aarch64")
    assert not {"opencv-python", "tensorrt"} & set(here)
    assert "1.21.5" in here["numpy"].specifier, "Ubuntu 22.04 has it"


def test_without_a_wheel_pip_refuses_the_extra_instead_of_leaving_the_engine_out() -> None:
    assert "onnxruntime-gpu" in required("gpu", "aarch64")
    assert {"onnxruntime-gpu", "opencv-python"} <= set(required("gpu", "x86_64"))


def camera(uri: str, channels: tuple[int, ...], folder: Path) -> str:
    """A folder of pictures in the size of a camera's URI."""
    import cv2

    given = parse_qs(urlsplit(uri).query)
    width, height = map(int, given.get("size", [CSI_DEFAULT])[0].split("x"))
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((height, width, *channels), 60 + number, np.uint8))
    return f"folder:{folder}?fps=30"


def cheap_model(path: Path) -> None:
    """The maximum of the two pictures, marked as FP16."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    shape = ("batch", 1, "height", "width")
    ir, vi, fused = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("ir", "vi", "fused")
    )
    graph = helper.make_graph([helper.make_node("Max", ["ir", "vi"], ["fused"])], "g", [ir, vi], [fused])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"model": "ufuser", "shape_multiple": "8", "precision": "fp16"})
    onnx.save(model, path)


@pytest.fixture
def jetson(double: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An Orin with the exported model in its working folder."""
    pytest.importorskip("polygraphy")
    double.cuda.gpu, double.cuda.capability, double.cuda.integrated = "Orin", (8, 7), True
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def guide_stream(jetson: Path, lines: list[str], quick_command: Any) -> Any:
    """Runs the guide's build, and then its stream with pictures instead of cameras and other words at its end."""
    build, stream = the_line(lines, "ufuser build"), the_line(lines, "ufuser stream")

    def run(*more: str, **cameras: str) -> Any:
        cheap_model(jetson / build[build.index("--onnx") + 1])
        done = quick_command(*build[1:])
        assert done.returncode == 0, done.stderr
        words = list(stream[1:])
        for flag, channels in (("ir", ()), ("vi", (3,))):
            where = words.index(f"--{flag}") + 1
            words[where] = camera(cameras.get(flag, words[where]), channels, jetson / flag)
        words[words.index("--out") + 1] = f"folder:{jetson / 'out'}"
        return quick_command(*words, *more)

    return run


def sizes(folder: Path) -> set[tuple[int, ...]]:
    import cv2

    return {cv2.imread(str(path)).shape[1::-1] for path in folder.iterdir()}


def test_build_then_stream(guide_stream: Any, jetson: Path) -> None:
    """The engine takes the size of the cameras."""
    done = guide_stream()
    assert done.returncode == 0, done.stderr
    assert "on TensorRT" in done.stdout
    assert sizes(jetson / "out") == {(1280, 720)}


def test_a_camera_that_does_not_fit_is_one_line_with_both_sizes_and_the_remedy(guide_stream: Any) -> None:
    done = guide_stream(vi="csi://0")
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    for part in ("1920x1080", "320x256 to 1280x720", "size=1280x720", "--scale"):
        assert part in line


def test_a_camera_that_does_not_fit_is_scaled_when_asked(guide_stream: Any, jetson: Path) -> None:
    done = guide_stream("--scale", vi="csi://0")
    assert done.returncode == 0, done.stderr
    assert "1920x1080 scaled to 1280x720" in done.stderr
    assert sizes(jetson / "out") == {(1280, 720)}
