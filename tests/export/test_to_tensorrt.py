"""`ufuser build`: plans without a GPU, builds through the real Polygraphy over the test double, and for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.export.small_networks import MODELS, SmallGraphs
from ufuser import Fuser
from ufuser.export import int8
from ufuser.export.tensorrt_build import check_types, find_device, layer_types
from ufuser.export.tensorrt_checks import make_plan
from ufuser.export.tensorrt_plan import BuildFlags
from ufuser.export.to_tensorrt import flags_of, get_parser, main, profiles_of
from ufuser.runtime.engines.manifest import DeviceFacts, Manifest
from ufuser.runtime.errors import InputError
from ufuser.runtime.models import find_model

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ("--min", "1x64x64", "--opt", "1x96x128", "--max", "1x128x256")
SECOND = ("--min", "1x256x320", "--opt", "1x480x640", "--max", "1x512x768")


def write_model(
    path: Path,
    precision: str = "fp32",
    inputs: Sequence[str] = ("ir", "vi"),
    shape: Sequence[int | str] = ("batch", 1, "height", "width"),
    zero: np.ndarray | None = None,
) -> Path:
    """fused = max of the inputs; with a zero point, the first goes through quantisation."""

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes, constants, names = [], [], list(inputs)
    if zero is not None:
        constants = [
            onnx.numpy_helper.from_array(np.array(1 / 256, np.float32), "scale"),
            onnx.numpy_helper.from_array(zero, "zero"),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", [names[0], "scale", "zero"], ["q"], "quantise"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "dequantise"),
        ]
        names[0] = "d"
    nodes.append(helper.make_node("Max", names, ["fused"]))
    graph = helper.make_graph(nodes, "g", [value(n) for n in inputs], [value("fused")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"model": "max", "shape_multiple": "8", "precision": precision})
    onnx.save(model, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "max.onnx")


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_dry_run_prints_plan_key_and_trtexec(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "F.engine"
    assert run("--onnx", model, *PROFILE, "--out", out, "--workspace", 512, "--dry-run") == 0
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.startswith("trtexec")]
    for word in (
        f"--onnx={model}",
        f"--saveEngine={out}",
        "--stronglyTyped",
        "--minShapes=ir:1x1x64x64,vi:1x1x64x64",
        "--optShapes=ir:1x1x96x128,vi:1x1x96x128",
        "--maxShapes=ir:1x1x128x256,vi:1x1x128x256",
        "--memPoolSize=workspace:512",
        "--noTF32",
        f"--timingCacheFile={out}.timing",
    ):
        assert word in line.split()
    assert "--fp16" not in line  # the graph says its types
    assert "no GPU here" in text
    assert len([p for p in tmp_path.iterdir() if p != model]) == 0


def test_dry_run_as_json(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--onnx", model, *PROFILE, *SECOND, "--out", tmp_path / "F.engine", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert [p["opt"] for p in plan["profiles"]] == ["1x96x128", "1x480x640"]
    assert len(plan["trtexec"]) == 2
    assert plan["device"] is None
    assert len(plan["key"]) == 64


def test_the_key_depends_on_everything_that_makes_the_engine(model: Path, tmp_path: Path) -> None:
    def plan(*words: str, onnx_file: Path = model) -> Any:
        args = get_parser().parse_args(["--onnx", str(onnx_file), *words])
        flags = flags_of(args)
        return make_plan(onnx_file, profiles_of(args), flags, tmp_path / "F.engine")

    here = DeviceFacts("10.3.0", "Orin", "8.7", driver="12.6")
    other = write_model(tmp_path / "other.onnx", "fp16")
    keys = [
        plan(*PROFILE).key(here),
        plan(*SECOND).key(here),
        plan(*PROFILE, *SECOND).key(here),
        plan(*PROFILE, onnx_file=other).key(here),
        *(
            plan(*PROFILE, *flag).key(here)
            for flag in (
                ["--workspace", "5"],
                ["--optimization-level", "5"],
                ["--tf32"],
                ["--version-compatible"],
                ["--hardware-compatible"],
                ["--refit"],
            )
        ),
        *(
            plan(*PROFILE).key(device)
            for device in (
                DeviceFacts("10.13.2", "Orin", "8.7"),
                DeviceFacts("10.3.0", "Thor", "8.7"),
                DeviceFacts("10.3.0", "Orin", "11.0"),
                None,
            )
        ),
    ]
    assert len(set(keys)) == len(keys)
    assert plan(*PROFILE).key(here) == keys[0]
    # What doesn't make another engine doesn't make another key.
    assert plan(*PROFILE).key(DeviceFacts("10.3.0", "Orin", "8.7", driver="13.0")) == keys[0]


def test_hardware_compatible_engines_are_refused_on_a_jetson(
    model: Path, tmp_path: Path, double: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """NVIDIA excludes JetPack from hardware compatibility."""
    double.cuda.gpu, double.cuda.capability = "Orin", (8, 7)
    arguments = ("--onnx", model, *PROFILE, "--hardware-compatible")
    for end in (("--out", tmp_path / "x.engine"), ("--script", tmp_path / "x.sh")):
        assert run(*arguments, *end) == 2
        assert said(capsys).startswith("error: --hardware-compatible: ")
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


def test_script_for_a_jetson(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "build.sh"
    out = tmp_path / "F.engine"
    assert run("--onnx", model, *PROFILE, "--out", out, "--script", script) == 0
    assert os.access(script, os.X_OK)
    # A trtexec and a ufuser that record their arguments.
    for name in ("trtexec", "ufuser"):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n', encoding="utf-8")
        tool.chmod(0o755)
    environment = {"TRTEXEC": str(tmp_path / "trtexec"), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run([str(script)], env=environment, check=True)
    built, adopted = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert f"--saveEngine={out}" in built
    assert adopted.endswith(f"--out {out} --adopt")
    assert run("--onnx", model, *PROFILE, *SECOND, "--out", out, "--script", script) == 2
    assert "engines of one profile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--min", "1x128x128", "--opt", "1x64x64", "--max", "1x256x256"], "min <= opt <= max"),
        (["--min", "1x64x64", "--opt", "1x512x512", "--max", "1x256x256"], "min <= opt <= max"),
        (["--min", "1x64x64", "--opt", "2x64x64", "--max", "1x256x256"], "min <= opt <= max"),
        (["--min", "1x60x64", "--opt", "1x64x64", "--max", "1x64x64"], "nearest is 1x64x64"),
        (["--min", "64", "--opt", "1x64x64", "--max", "1x64x64"], "expected BATCHxHEIGHTxWIDTH"),
        (["--min", "1x64x64"], "expected the same number of each"),
        ([*PROFILE, *PROFILE], "would never be chosen"),
        ([*PROFILE, "--workspace", "0"], "--workspace 0"),
        ([*PROFILE, "--optimization-level", "6"], "expected 0 to 5"),
    ],
)
def test_profiles_and_flags_are_checked_before_anything_is_built(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert run("--onnx", model, "--out", tmp_path / "F.engine", *arguments) == 2
    assert expected in said(capsys)
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"inputs": ("ir", "visible")}, r"it has ir FLOAT"),
        ({"inputs": ("ir",)}, "expected inputs ir, vi"),
        ({"shape": (1, 1, 64, 64)}, "dynamic height and width"),
        ({"zero": np.array(128, np.uint8)}, "quantized for a CPU"),
        ({"zero": np.array(3, np.int8)}, "--int8-for tensorrt"),
    ],
)
def test_a_model_tensorrt_should_not_get(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], expected: str
) -> None:
    path = write_model(tmp_path / "m.onnx", **change)
    assert run("--onnx", path, *PROFILE, "--out", tmp_path / "F.engine", "--dry-run") == 2
    assert expected in said(capsys)


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_no_onnx_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    assert run("--onnx", path, "--dry-run") == 2
    assert "m.onnx" in said(capsys)


@pytest.mark.parametrize("out", ["F.trt", "no/folder/F.engine"])
def test_a_place_that_cannot_be_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    assert run("--onnx", model, *PROFILE, "--out", tmp_path / out) == 2
    assert "F." in said(capsys)


def test_not_installed(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    double: SimpleNamespace,
) -> None:
    out = tmp_path / "F.engine"
    for module, name in (
        ("polygraphy.backend.trt", "Polygraphy"),
        ("pycuda.driver", "PyCUDA"),
        ("tensorrt", "TensorRT"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        assert run("--onnx", model, *PROFILE, "--out", out) == 2
        line = said(capsys)
        assert f"{name} cannot be imported" in line
        assert "ufuser[tensorrt]" in line
    assert list(tmp_path.iterdir()) == [model]


def test_no_gpu(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], double: SimpleNamespace
) -> None:
    double.cuda.no_device = True
    assert run("--onnx", model, *PROFILE, "--out", tmp_path / "F.engine") == 2
    assert "no CUDA device" in said(capsys)


@pytest.fixture
def polygraphy() -> None:
    pytest.importorskip("polygraphy")


@pytest.mark.usefixtures("polygraphy")
def test_builds_through_polygraphy_and_runs(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], double: SimpleNamespace
) -> None:
    out = tmp_path / "F.engine"
    flags = ("--workspace", 64, "--optimization-level", 4, "--tf32", "--refit", "--version-compatible")
    assert run("--onnx", model, *PROFILE, *SECOND, "--out", out, *flags) == 0
    assert double.tensorrt.built_with == {
        "strongly_typed": True,
        "flags": {"TF32", "REFIT", "VERSION_COMPATIBLE"},
        "workspace": 64 << 20,
        "optimization_level": 4,
        "hardware": "NONE",
        "cached": b"",
    }
    manifest = Manifest.read(out)
    assert manifest.device == DeviceFacts("10.3.0", "Double GPU", "8.9", "12.6.0", "12.6", "")
    assert manifest.engine_bytes == out.stat().st_size
    assert manifest.metadata["model"] == "max"
    assert manifest.layer_types == {"float32": 2}
    assert [str(p.best) for p in manifest.profiles] == ["1x96x128", "1x480x640"]
    assert "--tf32" in manifest.rebuild
    ir, vi = (np.random.default_rng(i).random((90, 100), np.float32) for i in range(2))
    np.testing.assert_array_equal(Fuser.open(out, "tensorrt").fuse(ir, vi), np.maximum(ir, vi))
    assert "2 profile(s)" in capsys.readouterr().out


@pytest.mark.usefixtures("polygraphy")
def test_without_flags_tf32_is_off_and_the_cache_is_used_again(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], double: SimpleNamespace
) -> None:
    out = tmp_path / "F.engine"
    assert run("--onnx", model, *PROFILE, "--out", out) == 0
    assert double.tensorrt.built_with["flags"] == set()
    double.tensorrt.built_with.clear()
    assert run("--onnx", model, *PROFILE, "--out", out) == 0
    assert double.tensorrt.built_with == {}, "the same key is not built twice"
    assert "nothing to build" in capsys.readouterr().err
    assert run("--onnx", model, *PROFILE, "--out", out, "--force") == 0
    assert double.tensorrt.built_with["cached"].startswith(b"timings")
    out.write_bytes(out.read_bytes()[:-1])
    double.tensorrt.built_with.clear()
    assert run("--onnx", model, *PROFILE, "--out", out) == 0
    assert double.tensorrt.built_with, "a damaged engine is built again"


@pytest.mark.usefixtures("polygraphy")
def test_without_a_place_it_is_kept_where_the_runtime_looks(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, double: SimpleNamespace
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run("--onnx", model, *PROFILE) == 0
    fuser = Fuser.open(model, "tensorrt")
    ir, vi = (np.random.default_rng(i).random((90, 100), np.float32) for i in range(2))
    np.testing.assert_array_equal(fuser.fuse(ir, vi), np.maximum(ir, vi))


@pytest.mark.usefixtures("polygraphy")
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "[virtualMemoryBuffer.cpp] OutOfMemory (Requested size was 8 bytes.)",
            "lower --workspace (1024 MiB now)",
        ),
        ("Could not find any implementation for node conv: insufficient workspace", "lower --workspace"),
        ("Unsupported operator FooBar", "could not build F.engine"),
    ],
)
def test_a_build_that_fails_writes_nothing(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    double: SimpleNamespace,
    message: str,
    expected: str,
) -> None:
    double.tensorrt.build_error = message
    assert run("--onnx", model, *PROFILE, "--out", tmp_path / "F.engine") == 2
    line = said(capsys)
    assert expected in line
    assert message[:20] in line
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.usefixtures("polygraphy")
@pytest.mark.parametrize(
    ("precision", "layer", "passes"),
    [
        ("fp16", "Half", True),
        ("fp16", "Row major linear FP16 format", True),
        ("fp16", "Float", False),
        ("fp16", "Channel major FP32 format", False),
        ("int8", "Thirty-two wide channel vectorized row major Int8 format", True),
        ("int8", "Half", False),
        ("fp32", "Float", True),
        ("fp32", "Half", False),
    ],
)
def test_an_engine_of_another_precision_fails(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    double: SimpleNamespace,
    precision: str,
    layer: str,
    passes: bool,
) -> None:
    model = write_model(tmp_path / "m.onnx", precision)
    double.tensorrt.layer_type = layer
    assert run("--onnx", model, *PROFILE, "--out", tmp_path / "F.engine") == (0 if passes else 2)
    if not passes:
        assert f"for a graph in {precision}" in said(capsys)
        assert not (tmp_path / "F.engine").exists()


@pytest.mark.usefixtures("polygraphy")
def test_an_engine_of_trtexec_is_adopted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], double: SimpleNamespace
) -> None:
    out = tmp_path / "F.engine"
    arguments = ("--onnx", model, *PROFILE, "--out", out)
    assert run(*arguments, "--adopt") == 2
    assert "expected the engine to adopt" in said(capsys)
    assert run(*arguments) == 0
    whole = Manifest.read(out)
    (tmp_path / "F.engine.json").unlink()
    assert run(*arguments, "--adopt") == 0
    assert Manifest.read(out) == whole
    other = ("--min", "1x64x64", "--opt", "1x64x64", "--max", "1x512x512")
    assert run("--onnx", model, *other, "--out", out, "--adopt") == 2
    refused = said(capsys)
    for profile in (*whole.profiles, "1x64x64 to 1x512x512, best 1x64x64"):
        assert str(profile) in refused
    assert Manifest.read(out) == whole
    out.write_bytes(b"something else")
    assert run(*arguments, "--adopt") == 2
    assert "cannot be loaded by TensorRT" in capsys.readouterr().err


def test_a_jetson_needs_no_pytorch(model: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['train'] = None\n"
        "from ufuser.export.to_tensorrt import main; raise SystemExit(main(sys.argv[1:]))"
    )
    words = ["--onnx", str(model), "--out", str(tmp_path / "F.engine"), "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_types_that_cannot_be_read_are_not_taken_for_right(model: Path, tmp_path: Path) -> None:
    names_only = json.dumps({"Layers": ["conv_1", "conv_2"]})
    assert layer_types(names_only) == {"layers": {}, "convolutions": {}}
    plan = make_plan(
        model, profiles_of(get_parser().parse_args(["--onnx", "x"])), BuildFlags(), tmp_path / "F.engine"
    )
    with pytest.raises(InputError, match="names no layer's type"):
        check_types(plan, layer_types(names_only))


# Every network of the toolkit: the shipped fp32 graphs, and small ones that are kept in every precision.


@pytest.fixture(scope="module")
def quantized(small_graphs: SmallGraphs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small fp32 graphs with every quantizable layer in INT8 for TensorRT, ranges from noise."""
    rng = np.random.default_rng(5)
    crops = [tuple(rng.random((2, 1, 1, 32, 48), np.float32)) for _ in range(2)]
    folder = tmp_path_factory.mktemp("int8")
    made = {}
    for name in MODELS:
        tool, layers = int8.prepare(onnx.load(small_graphs.path(name, "fp32")), crops, "tensorrt")
        proto = tool.quantized([node for nodes in layers.values() for node in nodes])
        onnx.helper.set_model_props(proto, {"model": name, "shape_multiple": "8", "precision": "int8"})
        made[name] = folder / f"{name}.onnx"
        onnx.save(proto, made[name])
    return made


KEPT = [f"{m} {p}" for m in ("fnet", "daefuse") for p in ("fp32", "fp16", "int8")]


@pytest.fixture
def graph(request: pytest.FixtureRequest, small_graphs: SmallGraphs) -> SimpleNamespace:
    """One network in one precision: `path`, `model`, `precision`."""
    model, precision = request.param.split()
    if precision == "shipped":
        return SimpleNamespace(path=find_model(model), model=model, precision="fp32")
    if precision == "int8":
        return SimpleNamespace(
            path=request.getfixturevalue("quantized")[model], model=model, precision="int8"
        )
    return SimpleNamespace(path=small_graphs.path(model, precision), model=model, precision=precision)


@pytest.mark.parametrize("graph", ["ufuser shipped", "lite shipped", "fnet shipped", *KEPT], indirect=True)
def test_every_network_is_planned_in_every_precision(
    graph: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "F.engine"
    assert run("--onnx", graph.path, *PROFILE, *SECOND, "--out", out, "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["precision"] == graph.precision
    assert all("--stronglyTyped" in line and "--fp16" not in line for line in plan["trtexec"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("polygraphy")
@pytest.mark.parametrize("graph", ["lite shipped", *KEPT], indirect=True)
def test_every_network_is_built_strongly_typed_and_answers_as_its_graph(
    graph: SimpleNamespace, tmp_path: Path, double: SimpleNamespace
) -> None:
    out = tmp_path / "F.engine"
    double.tensorrt.layer_type = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}[graph.precision]
    assert run("--onnx", graph.path, *PROFILE, "--out", out) == 0
    assert double.tensorrt.built_with["strongly_typed"] is True
    assert double.tensorrt.built_with["flags"] == set()
    assert Manifest.read(out).metadata["model"] == graph.model
    ir, vi = (np.random.default_rng(i).random((64, 72), np.float32) for i in range(2))
    built, direct = (
        Fuser.open(path, engine).fuse(ir, vi)
        for path, engine in ((out, "tensorrt"), (graph.path, "onnxruntime"))
    )
    # One optimises the graph, the other doesn't: half precision is rounded elsewhere.
    np.testing.assert_allclose(built, direct, rtol=0, atol=1e-5 if graph.precision == "fp32" else 0.02)
    double.tensorrt.layer_type = "Half" if graph.precision == "fp32" else "Float"
    assert run("--onnx", graph.path, *PROFILE, "--out", out, "--force") == 2, "of another precision"


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (helper.make_node("Einsum", ["ir"], ["x"], "sum", equation="bchw->bchw"), "operator Einsum ('sum')"),
        (
            helper.make_node("Fancy", ["ir"], ["x"], "own", domain="com.acme"),
            "operator com.acme:Fancy ('own')",
        ),
        (helper.make_node("Resize", ["ir", "", "by"], ["x"], "big", mode="cubic"), "Resize with mode cubic"),
        (
            helper.make_node("Resize", ["ir", "", "by"], ["x"], "big", mode="linear", antialias=1),
            "Resize with antialias",
        ),
        (helper.make_node("Sigmoid", ["wide"], ["x"], "s"), "Sigmoid of DOUBLE ('s')"),
    ],
    ids=["operator", "domain", "cubic", "antialias", "type"],
)
def test_what_tensorrts_parser_does_not_take_is_told_before_a_build(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], node: onnx.NodeProto, expected: str
) -> None:
    proto = onnx.load(model)
    wide = onnx.numpy_helper.from_array(np.zeros((1, 1, 1, 1)), "wide")
    scales = onnx.numpy_helper.from_array(np.ones(4, np.float32), "by")
    proto.graph.initializer.extend([wide, scales])
    proto.graph.node.insert(0, node)
    path = tmp_path / "odd.onnx"
    onnx.save(proto, path)
    assert run("--onnx", path, *PROFILE, "--out", tmp_path / "F.engine", "--dry-run") == 2
    assert expected in said(capsys)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_real_gpu(tmp_path: Path, precision: str) -> None:
    """Builds, runs and compares with ONNX Runtime on the CPU: the shipped network."""
    try:
        find_device()
    except InputError as e:
        pytest.skip(str(e))
    shipped = model = ROOT / "runtime" / "weights" / "ufuser.onnx"
    python = [sys.executable, "-m"]
    if precision != "fp32":
        model = tmp_path / "half.onnx"
        words = [
            "ufuser.export.to_onnx",
            "--checkpoint",
            ROOT / "train" / "weights" / "ufuser.safetensors",
            "--out",
            model,
            "--precision",
            precision,
        ]
        subprocess.run([*python, *map(str, words)], cwd=ROOT, check=True)
    out = tmp_path / "F.engine"
    words = [
        "ufuser.export.to_tensorrt",
        "--onnx",
        model,
        *PROFILE,
        *SECOND,
        "--out",
        out,
        "--optimization-level",
        1,
    ]
    subprocess.run([*python, *map(str, words)], cwd=ROOT, check=True)
    shapes = ("--shapes", "1x64x64", "1x128x256", "1x480x640")
    words = ["ufuser.export.verify", shipped, out, *shapes]
    subprocess.run([*python, *map(str, words)], cwd=ROOT, check=True)
