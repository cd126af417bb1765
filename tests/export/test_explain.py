"""`ufuser explain`: on a tiny graph whose parts are known, by the real command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

from ufuser.export.explain import add_outputs, explain
from ufuser.export.fnet_parts import FEATURES, PARTS
from ufuser.runtime.images import read_image, write_image

MakeModel = Callable[..., Path]
Command = Callable[..., Any]
THETA, RHO = [0.2, 0.1], [0.0, 0.3]
TABLE = {part: {"theta": THETA, "rho": RHO} for part in PARTS}
METADATA = {
    "model": "fnet",
    "shape_multiple": "8",
    "thresholds": json.dumps(TABLE),
    "feature_scale": "100.0",
}
# fused = ir/2 + (−ir·vi) + vi/2; features are two channels, the infrared ones 100·ir and −100·ir.
NODES = [
    ("Mul", ["ir", "half"], ["unique_ir"], {}),
    ("Mul", ["vi", "half"], ["unique_vi"], {}),
    ("Mul", ["ir", "vi"], ["product"], {}),
    ("Neg", ["product"], ["common"], {}),
    ("Sum", ["unique_ir", "common", "unique_vi"], ["fused"], {}),
    ("Mul", ["ir", "two"], ["features_ir"], {}),
    ("Mul", ["vi", "two"], ["features_vi"], {}),
    ("Mul", ["product", "two"], ["features_common"], {}),
]
CONSTANTS = {
    "half": np.array(0.5, np.float32),
    "two": np.array([100, -100], np.float32).reshape(1, 2, 1, 1),
}


@pytest.fixture(scope="session")
def parts_model(make_model: MakeModel) -> Path:
    return make_model("parts", NODES, metadata=METADATA, constants=CONSTANTS)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    write_image(tmp_path / "ir.png", rng.integers(0, 256, (35, 50), np.uint8))
    write_image(tmp_path / "vi.png", rng.integers(0, 256, (35, 50, 3), np.uint8))
    write_image(tmp_path / "small.png", rng.integers(0, 256, (20, 50), np.uint8))
    return tmp_path


def test_the_parts_add_up_at_a_size_that_has_to_be_padded(parts_model: Path) -> None:
    ir, vi = np.random.default_rng(0).random((2, 21, 37), np.float32)
    found = explain(parts_model, ir, vi, threads=1)
    np.testing.assert_allclose(found.parts["unique_ir"], ir / 2, atol=1e-6)
    np.testing.assert_allclose(found.parts["common"], -ir * vi, atol=1e-6)
    np.testing.assert_allclose(sum(found.parts.values()), found.fused, atol=1e-6)
    np.testing.assert_allclose(found.features["features_ir"], ir, atol=1e-5)
    assert found.kept["unique_ir"] == pytest.approx((ir > THETA[-1]).mean(), abs=0.01)
    assert found.thresholds["common"].rho == tuple(RHO)


def test_outputs_are_added_to_those_that_are_there(parts_model: Path) -> None:
    model = onnx.load(parts_model)
    add_outputs(model, ["common", "product"])
    assert [v.name for v in model.graph.output] == ["fused", "common", "product"]
    assert len(model.graph.node) == len(NODES)


def test_pictures_and_numbers(files: Path, parts_model: Path, command: Command) -> None:
    done = command("explain", "--ir", "ir.png", "--vi", "vi.png", "--model", parts_model, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "unique infrared: mean +0.2" in done.stdout
    assert "theta 0.2000 0.1000   rho 0.000 0.300" in done.stdout
    names = {p.name for p in (files / "out").iterdir()}
    assert names == {*(f"{n}.png" for n in ("fused", "sheet", *PARTS, *FEATURES)), "explanation.json"}
    told = json.loads((files / "out" / "explanation.json").read_text())
    assert told["parts"]["common"]["theta"] == THETA
    ir = read_image(files / "ir.png").astype(float) / 255
    part = read_image(files / "out" / "unique_ir.png").astype(float) / 255
    expected = 0.5 + ir / 2 / (2 * told["parts_scale"])
    assert np.abs(part - np.clip(expected, 0, 1)).max() < 0.005
    assert read_image(files / "out" / "common.png").mean() < 127  # below zero is darker than mid-grey
    assert read_image(files / "out" / "fused.png").shape == (35, 50, 3)
    sheet = cv2.imread(str(files / "out" / "sheet.png"))
    assert sheet is not None
    assert sheet.std() > 10


def test_json(files: Path, parts_model: Path, quick_command: Command) -> None:
    words = ("--ir", "ir.png", "--vi", "vi.png", "--model", parts_model, "--out", "out", "--json")
    done = quick_command("explain", *words)
    assert list(json.loads(done.stdout)["parts"]) == list(PARTS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--ir": "gone.png"}, ("no file gone.png",)),
        ({"--ir": "small.png"}, ("infrared is 50x20, visible is 50x35",)),
        ({"--out": "ir.png"}, ("--out ir.png is a file", "expected a folder")),
        ({"--model": "ufusser"}, ("unknown model 'ufusser'",)),
        ({"--model": "ir.png"}, ("ir.png", "not an ONNX file")),
        ({"--threads": "0"}, ("--threads 0",)),
    ],
)
def test_bad_input(
    files: Path, parts_model: Path, quick_command: Command, change: dict[str, str], said: tuple[str, ...]
) -> None:
    before = sorted(files.iterdir())
    words = {"--ir": "ir.png", "--vi": "vi.png", "--model": str(parts_model), "--out": "out"} | change
    done = quick_command("explain", *(x for pair in words.items() for x in pair))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in said), done.stderr
    assert sorted(files.iterdir()) == before


def test_a_network_without_parts_and_damaged_files(
    files: Path, max_model: Path, make_model: MakeModel, quick_command: Command
) -> None:
    def said(model: Path) -> str:
        done = quick_command("explain", "--ir", "ir.png", "--vi", "vi.png", "--out", "out", "--model", model)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        return str(done.stderr)

    assert "holds the network 'max', whose answer has no parts: expected fnet" in said(max_model)
    unnamed = make_model("unnamed", metadata=METADATA)
    assert "does not name its parts (unique_ir, common, unique_vi): export it again" in said(unnamed)
    for key, value in (("thresholds", "{}"), ("feature_scale", "0"), ("shape_multiple", "x")):
        damaged = make_model(f"damaged_{key}", NODES, metadata={**METADATA, key: value}, constants=CONSTANTS)
        assert "damaged 'thresholds', 'feature_scale' or 'shape_multiple'" in said(damaged)
    assert not (files / "out").exists()
