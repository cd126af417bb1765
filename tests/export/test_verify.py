"""`ufuser verify` through its entry point, on networks whose difference is known."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ufuser.export.verify import main


def write_model(path: Path, offset: float, precision: str = "fp32") -> Path:
    """fused = max(ir, vi) + offset · ir⁸: the error is largest where infrared is brightest."""
    shape = ("batch", 1, "height", "width")
    nodes = [
        helper.make_node("Max", ["ir", "vi"], ["max"]),
        helper.make_node("Pow", ["ir", "eight"], ["peak"]),
        helper.make_node("Mul", ["peak", "offset"], ["error"]),
        helper.make_node("Add", ["max", "error"], ["fused"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("ir", "vi")],
        [helper.make_tensor_value_info("fused", TensorProto.FLOAT, shape)],
        [
            onnx.numpy_helper.from_array(np.array(value, np.float32), name)
            for name, value in (("offset", offset), ("eight", 8.0))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"model": "max", "shape_multiple": "8", "precision": precision})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "same": write_model(folder / "same.onnx", 0),
        "near": write_model(folder / "near.onnx", 5e-5),
        "off": write_model(folder / "off.onnx", 5e-3),
        "half": write_model(folder / "half.onnx", 5e-4, "fp16"),
        "int8": write_model(folder / "int8.onnx", 5e-2, "int8"),
    }


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two pairs of 50×70, in one of which a single infrared pixel is bright."""
    for side in ("ir", "vi"):
        (tmp_path / "data" / side).mkdir(parents=True)
    for name in ("a", "b"):
        ir = np.full((50, 70), 60, np.uint8)
        if name == "b":
            ir[31, 44] = 255
        cv2.imwrite(str(tmp_path / "data" / "ir" / f"{name}.png"), ir)
        cv2.imwrite(str(tmp_path / "data" / "vi" / f"{name}.png"), np.full((50, 70), 100, np.uint8))
    return tmp_path / "data"


def report(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict]:
    code = main([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_finds_the_worst_place_in_real_pairs(
    models: dict[str, Path], pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = report(capsys, models["same"], models["off"], "--pairs", pairs)
    (found,) = told["compared"]
    assert code == 1
    assert found["largest"] == pytest.approx(5e-3, rel=1e-3)
    assert (found["worst"], found["place"]) == ("b", [31, 44])
    assert found["samples"] == 2
    assert not found["passed"]
    assert "largest error 5.00e-03, expected at most 1.00e-04" in found["failures"][0]
    # One pixel of 3,500 in one of two pictures; the others' eighth powers are nothing beside it.
    assert found["psnr_db"] == pytest.approx(-10 * np.log10(5e-3**2 / 3500 / 2), abs=0.1)
    assert found["lowest_psnr_db"] == pytest.approx(-10 * np.log10(5e-3**2 / 3500), abs=0.1)


@pytest.mark.parametrize(
    ("other", "words", "passes"),
    [
        ("near", [], True),
        ("near", ["--max-error", "1e-6"], False),
        ("near", ["--mean-error", "1e-9"], False),
        ("near", ["--mean-error", "1e-3"], True),
        ("off", [], False),
        ("off", ["--max-error", "0.01"], True),
        ("half", [], True),
        ("half", ["--psnr", "120"], False),
        ("half", ["--max-error", "1e-5"], False),
        ("int8", [], False),
        ("int8", ["--psnr", "20"], True),
    ],
)
def test_tolerances(
    models: dict[str, Path], capsys: pytest.CaptureFixture[str], other: str, words: list[str], passes: bool
) -> None:
    code, told = report(capsys, models["same"], models[other], *words)
    assert code == (0 if passes else 1)
    assert told["compared"][0]["passed"] == passes
    assert bool(told["compared"][0]["failures"]) != passes


def test_several_at_once(models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--shapes", "1x16x24", "2x64x64", "--threads", 1)
    code, told = report(capsys, models["same"], models["near"], models["half"], *words)
    assert code == 0
    assert [c["precision"] for c in told["compared"]] == ["fp32", "fp16"]
    assert [c["samples"] for c in told["compared"]] == [2, 2]
    assert told["reference"]["nodes"] == 4
    assert told["reference"]["size"] == models["same"].stat().st_size


def test_engines_are_chosen_by_prefix(models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    code, told = report(capsys, models["same"], f"openvino:{models['near']}")
    assert code == 0
    assert told["compared"][0]["runs_on"].startswith("OpenVINO")


def test_the_heat_map_shows_where(models: dict[str, Path], pairs: Path, tmp_path: Path) -> None:
    heat = tmp_path / "heat.png"
    assert main([str(models["same"]), str(models["off"]), "--pairs", str(pairs), "--heatmap", str(heat)]) == 1
    sheet = cv2.imread(str(heat))
    # Three tiles; the brightest warm point of the third is the place of the worst element.
    third = sheet[68:, 2 * sheet.shape[1] // 3 :]
    assert third.max() > 200
    assert sheet.shape[1] > 3 * 400


def test_an_engine_against_its_onnx(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], double: SimpleNamespace
) -> None:
    pytest.importorskip("polygraphy")
    from ufuser.export.to_tensorrt import main as build

    out = tmp_path / "x.engine"
    words = [
        "--onnx",
        models["near"],
        "--min",
        "1x16x16",
        "--opt",
        "1x64x64",
        "--max",
        "1x240x320",
        "--out",
        out,
    ]
    assert build([str(w) for w in words]) == 0
    capsys.readouterr()
    code, told = report(capsys, models["same"], out, "--threads", 1)
    assert code == 0
    assert told["compared"][0]["runs_on"] == "TensorRT 10.3.0, Double GPU"
    assert told["compared"][0]["largest"] == pytest.approx(5e-5, rel=0.1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["{same}", "gone.onnx"], "no model file gone.onnx"),
        (["{same}", "gone.safetensors"], "no checkpoint gone.safetensors"),
        (["{same}", "onnxruntime:gone.safetensors"], "a checkpoint runs in PyTorch"),
        (["{same}", "{same}", "--pairs", "nowhere"], "no folder nowhere/ir"),
        (["{same}", "{same}", "--list", "x.txt"], "--list: expected --pairs too"),
        (["{same}", "{same}", "--shapes", "1x60x64"], "nearest is 1x64x64"),
        (["{same}", "{same}", "--threads", "0"], "--threads 0"),
        (["{same}", "{same}", "--heatmap", "x.jpg"], "ends in .png"),
        (["{same}", "{same}", "--heatmap", "no/folder/x.png"], "no folder"),
        (["{same}", "onnxruntime-cuda:{same}"], "has no CUDAExecutionProvider"),
    ],
)
def test_bad_input(
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([w.format(**models) for w in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert list(tmp_path.iterdir()) == []
