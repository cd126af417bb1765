"""Our uses of TensorRT, PyCUDA and Polygraphy fit every supported version: mypy checks them.

It takes TensorRT's types from stubs of the vendor's bindings, PyCUDA's from the test double (which is compared with
PyCUDA itself), and Polygraphy's from its source.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOUBLE = Path(__file__).parent / "double"
FOREIGN = re.compile(r"^\s*(?:import|from) (?:tensorrt|pycuda|polygraphy)\b", re.MULTILINE)
SOURCES = [
    path.relative_to(ROOT)
    for room in ("runtime", "export")
    for path in sorted((ROOT / room).rglob("*.py"))
    if FOREIGN.search(path.read_text(encoding="utf-8"))
]
CONFIG = """
[mypy]
ignore_errors = True
check_untyped_defs = True
disallow_subclassing_any = True
disable_error_code = type-arg
follow_untyped_imports = True
[mypy-torch.*,onnx.*,openvino.*,onnxruntime.*,cv2.*,av.*]
follow_imports = skip
ignore_missing_imports = True
"""


def mypy_errors(bindings: Any, folder: Path, sources: Mapping[str, str]) -> list[str]:
    """What mypy says about modules, given by name with their text, beside our own."""
    pytest.importorskip("mypy")
    (folder / "ufuser").mkdir()
    for inside in (ROOT / "ufuser").iterdir():
        (folder / "ufuser" / inside.name).symlink_to(inside)
    for room in ("runtime", "export"):
        (folder / "ufuser" / room).symlink_to(ROOT / room)
    (folder / "pycuda").symlink_to(DOUBLE / "pycuda")
    (folder / "tensorrt").symlink_to(bindings.types / "tensorrt")
    for name, text in sources.items():
        if "." not in name:
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
    config = folder / "mypy.ini"
    config.write_text(f"{CONFIG}[mypy-{','.join(sources)}]\nignore_errors = False\n", encoding="utf-8")
    cache = bindings.types.parent / "mypy"
    command = [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", cache]
    done = subprocess.run(
        [*command, *(word for name in sources for word in ("-m", name))],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def test_every_use_fits(bindings: Any, tmp_path: Path) -> None:
    modules = ["ufuser." + ".".join(path.with_suffix("").parts) for path in SOURCES]
    assert len(modules) >= 3
    assert mypy_errors(bindings, tmp_path, dict.fromkeys(modules, "")) == []


MISTAKES = """
import pycuda.driver as cuda
import tensorrt as trt
from polygraphy.backend import trt as polygraphy

class Recorder(trt.IErrorRecorder):
    def report_error(self, val: trt.ErrorCodeTRT) -> bool:  # an argument short
        return False

def build(builder: trt.Builder, context: trt.IExecutionContext, engine: trt.ICudaEngine) -> None:
    builder.create_network(flag=1)  # name of an argument
    builder.build_engine()  # gone since 10
    context.execute_async_v2(bindings=[], stream_handle=0)  # gone since 10
    context.execute_async_v3()  # an argument short
    context.set_input_shape("ir", 8)  # type of an argument
    trt.Runtime(trt.Logger()).deserialize_cuda_engine(b"").whatever  # attribute of a result
    engine.get_tensor_shape("ir").deeper  # attribute of a result
    trt.ProfilingVerbosity.DETAILLED  # member of an enumeration
    trt.Runtime(trt.Logger(), 3)  # an argument too many
    trt.nothing()  # name in the module

def run(stream: cuda.Stream, memory: cuda.DeviceAllocation) -> None:
    cuda.mem_allocate(3)  # name in the module
    cuda.memcpy_htod_async(memory, source=None)  # name of an argument
    stream.synchronise()  # name of a method
    cuda.Event().time_since()  # an argument short

def plan() -> None:
    polygraphy.EngineBytesFromNetwork(None, configuration=None)  # name of an argument
    polygraphy.Profile().add("ir", minimum=1, opt=1, max=1)  # name of an argument
    polygraphy.Nothing()  # name in the module
"""
GONE_IN_11 = (
    "trt.BuilderFlag.FP16",
    "trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "trt.IInt8Calibrator",
)


def test_mistakes_are_found(bindings: Any, tmp_path: Path) -> None:
    text = MISTAKES + "".join(f"{name}\n" for name in GONE_IN_11)
    expected = {number for number, line in enumerate(text.splitlines(), 1) if "  # " in line}
    assert len(expected) == 18
    if bindings.release.startswith("11"):
        expected |= {number for number, line in enumerate(text.splitlines(), 1) if line in GONE_IN_11}
    errors = mypy_errors(bindings, tmp_path, {"mistakes": text})
    assert {int(error.split(":")[1]) for error in errors} == expected, "\n".join(errors)


# The doubles have nothing that the real modules have not


def described(file: Path) -> dict[str, dict[str, list[list[str]]]]:
    """The public classes and functions of a file, each with its public members and the arguments of its overloads.

    Members of base classes in the file are included. A function is a class without members but `__call__`.
    """
    found: dict[str, dict[str, list[list[str]]]] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, {}).setdefault("__call__", []).append([a.arg for a in node.args.args])
        elif isinstance(node, ast.ClassDef):
            found[node.name] = members(node)
            for base in node.bases:
                found[node.name] = found.get(ast.unparse(base), {}) | found[node.name]
    return {name: value for name, value in found.items() if not name.startswith("_")}


def members(node: ast.ClassDef) -> dict[str, list[list[str]]]:
    """Members of a class: a method's overloads with the names of their arguments, nothing for other members."""
    found: dict[str, list[list[str]]] = {}
    for inside in node.body:
        if isinstance(inside, ast.FunctionDef):
            found.setdefault(inside.name, []).append([a.arg for a in inside.args.args[1:]])
        elif isinstance(inside, (ast.Assign, ast.AnnAssign)):
            targets = inside.targets if isinstance(inside, ast.Assign) else [inside.target]
            found |= {n.id: [] for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        elif isinstance(inside, ast.ClassDef):
            found[inside.name] = []
    return {name: overloads for name, overloads in found.items() if not name.startswith("_")}


def test_the_double_of_tensorrt_has_nothing_more(bindings: Any) -> None:
    # Polygraphy looks for these itself, in versions that have them.
    optional = {"OnnxParserFlag", "TacticSource", "PreviewFeature", "QuantizationFlag"}
    gone_in_11 = {"EXPLICIT_BATCH", "get_quantization_flag"}
    real = described(bindings.types / "tensorrt" / "__init__.pyi")
    for name, ours in described(DOUBLE / "tensorrt.py").items():
        if name in optional:
            continue
        assert name in real, name
        for member, overloads in ours.items():
            if member in gone_in_11:
                continue
            assert member in real[name], f"{name}.{member}"
            for arguments in overloads:
                theirs = real[name][member]
                fits = not theirs or any(arguments == known[: len(arguments)] for known in theirs)
                assert fits, f"{name}.{member}: {arguments}, TensorRT has {theirs}"


def test_our_error_recorder_has_every_method(bindings: Any) -> None:
    """TensorRT calls them all: a missing one would fail only on a GPU."""
    tree = ast.parse((ROOT / "export" / "tensorrt_build.py").read_text(encoding="utf-8"))
    (ours,) = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == "Recorder")
    theirs = described(bindings.types / "tensorrt" / "__init__.pyi")["IErrorRecorder"]
    methods = {name for name, overloads in theirs.items() if overloads and name.islower()}
    assert len(methods) >= 6
    assert methods <= set(members(ours))


def names_of_the_pycuda_double() -> set[str]:
    found = described(DOUBLE / "pycuda" / "driver.py")
    inside = {f"{name}.{member}" for name, ours in found.items() for member in ours if member != "__call__"}
    return set(found) | inside


def test_the_double_of_pycuda_has_nothing_more_than_its_source(pycuda_source: str) -> None:
    for name in names_of_the_pycuda_double():
        assert re.search(rf'["(]{name.split(".")[-1]}[,")]', pycuda_source), name


def test_the_double_of_pycuda_has_nothing_more_than_the_compiled_module(pycuda_names: set[str]) -> None:
    assert len(names_of_the_pycuda_double()) > 30
    assert names_of_the_pycuda_double() <= pycuda_names


def test_without_a_gpu_the_real_bindings_give_one_line(bindings: Any, tmp_path: Path) -> None:
    """Creating a builder fails here; our message is one line."""
    code = (
        "import sys; sys.path[:0] = [sys.argv[1], sys.argv[2]]\n"
        "from ufuser.export.to_tensorrt import main\n"
        "raise SystemExit(main(['--onnx', sys.argv[3], '--out', sys.argv[4]]))\n"
    )
    pycuda = tmp_path / "double"
    shutil.copytree(DOUBLE / "pycuda", pycuda / "pycuda")
    model = ROOT / "runtime" / "weights" / "ufuser.onnx"
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(bindings.folder), str(pycuda), str(model), str(out / "x.engine")],
        env={"LD_LIBRARY_PATH": str(bindings.libraries), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, done.stderr
    assert "TensorRT could not build x.engine" in lines[0]
    assert list(out.iterdir()) == []
