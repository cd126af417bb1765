"""Every name of TensorRT, Polygraphy and PyCUDA that our sources use exists in every supported version."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for room in ("runtime", "export") for p in (ROOT / room).rglob("*.py"))
FOREIGN = {"tensorrt", "pycuda", "polygraphy"}
BINDINGS = (("10.3", "10.3.0"), ("10.13", "10.13.2.6"), ("11.4", "11.4.0.106"))


def walkers(usage: ModuleType, apis: dict[str, Any]) -> list[Any]:
    return usage.uses_in(iter(SOURCES), apis)


def apis_with(bindings: Any, double_api: dict[str, Any], polygraphy_api: dict[str, Any]) -> dict[str, Any]:
    return {
        "tensorrt": bindings.api,
        "pycuda.driver": double_api["pycuda.driver"],  # held against the real one below
        "polygraphy.backend.trt": polygraphy_api,
    }


def test_every_use_exists(
    bindings: Any, usage: ModuleType, double_api: dict[str, Any], polygraphy_api: dict[str, Any]
) -> None:
    apis = apis_with(bindings, double_api, polygraphy_api)
    found = walkers(usage, apis)
    uses = [use for walker in found for use in walker.uses]
    problems = [f"{use.where}: {why}" for use in uses if (why := usage.missing(use, apis))]
    assert problems == []
    assert [said for walker in found for said in walker.opaque] == [], "uses whose type could not be followed"
    names = {str(use) for use in uses if use.module == "tensorrt"}
    print(f"\nTensorRT {bindings.release}: {len(names)} uses, all there:", *sorted(names), sep="\n  ")
    # The walker itself must not have gone blind.
    assert {"IExecutionContext.execute_async_v3(1 positional, )", "Runtime(1 positional, )"} <= names
    assert len(names) > 35


def test_the_docs_list_what_is_used(
    bindings: Any, usage: ModuleType, double_api: dict[str, Any], polygraphy_api: dict[str, Any]
) -> None:
    found = usage.listed(walkers(usage, apis_with(bindings, double_api, polygraphy_api)), "tensorrt")
    page = (ROOT / "docs" / "tensorrt.md").read_text(encoding="utf-8")
    section = page.partition("## TensorRT names in use")[2].partition("Of Polygraphy")[0]
    told = re.findall(r"`([\w.]+)`[,.]", section.partition("as they are):")[2])
    assert sorted(told) == found
    assert all(release in page for _, release in BINDINGS)


def test_methods_we_override_take_what_tensorrt_gives(
    bindings: Any, usage: ModuleType, double_api: dict[str, Any], polygraphy_api: dict[str, Any]
) -> None:
    overrides = [
        pair
        for walker in walkers(usage, apis_with(bindings, double_api, polygraphy_api))
        for pair in walker.overrides
    ]
    assert {f"{use.owner}.{use.name}" for use, _ in overrides} >= {
        "ILogger.log",
        "IErrorRecorder.report_error",
    }
    for use, arguments in overrides:
        overloads = bindings.api[use.owner]["members"][use.name]["signatures"]
        assert len(arguments) in {len(overload["names"]) for overload in overloads}, use.where
    # TensorRT calls every method of a recorder: leaving one out fails only on a GPU.
    ours = {use.name for use, _ in overrides if use.owner == "IErrorRecorder"}
    theirs = {n for n, m in bindings.api["IErrorRecorder"]["members"].items() if m["kind"] == "method"}
    assert theirs - {"__init__"} <= ours


def test_the_double_has_nothing_that_tensorrt_has_not(bindings: Any, double_api: dict[str, Any]) -> None:
    # What Polygraphy itself asks about, on versions that have it.
    optional = {"OnnxParserFlag", "TacticSource", "PreviewFeature", "QuantizationFlag"}
    gone_in_11 = {"EXPLICIT_BATCH", "CALIBRATE_BEFORE_FUSION", "get_quantization_flag"}
    for name, described in double_api["tensorrt"].items():
        if name in optional and name not in bindings.api:
            continue
        if name[0].islower() and described["kind"] != "function":
            continue  # modules it imports
        if name in ("Any", "annotations"):
            continue
        assert name in bindings.api, name
        real = bindings.api[name]
        for member, ours in described.get("members", {}).items():
            if member in gone_in_11 or member in ("__init__", "name", "value") or name in optional:
                continue
            if member not in real["members"] and "Enum" in described["bases"]:
                pytest.fail(f"{name}.{member} is no member in {bindings.release}")
            if ours["kind"] == "method" and real["members"].get(member, {}).get("kind") == "method":
                names = ours["signatures"][0]["names"]
                overloads = [overload["names"] for overload in real["members"][member]["signatures"]]
                assert any(names == overload[: len(names)] for overload in overloads), (
                    f"{name}.{member}{names}"
                )
            elif ours["kind"] == "property" or (ours["kind"] == "method" and name[0] == "I"):
                assert member in real["members"], f"{name}.{member}"


def test_a_name_that_is_gone_is_found_out(
    bindings: Any,
    usage: ModuleType,
    double_api: dict[str, Any],
    polygraphy_api: dict[str, Any],
    tmp_path: Path,
) -> None:
    source = tmp_path / "old.py"
    source.write_text(
        "def build(tensorrt: Any, context: trt.IExecutionContext) -> None:\n"
        "    tensorrt.BuilderFlag.FP16\n"
        "    builder = tensorrt.Builder(None)\n"
        "    builder.create_network(flag=1)\n"
        "    context.execute_async_v2(bindings=[], stream_handle=0)\n"
        "    context.engine.whatever.deeper\n"
        "    import_tensorrt()\n",
        encoding="utf-8",
    )
    apis = apis_with(bindings, double_api, polygraphy_api)
    (walker,) = usage.uses_in(iter([source]), apis)
    said = {use.name: why for use in walker.uses if (why := usage.missing(use, apis))}
    assert set(said) - {"FP16", "whatever"} == {"create_network", "execute_async_v2"}
    assert "not 0 positional and flag" in said["create_network"]
    assert ("FP16" in said) == bindings.release.startswith("11")
    assert walker.opaque or "whatever" in said


def test_pycuda_names_exist_in_its_source(double_api: dict[str, Any], pycuda_source: str) -> None:
    """Without compiling it: the wrapper says what it exports."""
    for name, described in double_api["pycuda.driver"].items():
        if described["kind"] == "value" or name in ("Any", "Callable"):
            continue
        assert re.search(rf'["(]{name}[,")]', pycuda_source), name
        for member, ours in described.get("members", {}).items():
            if ours["kind"] == "method" and member != "__init__" and not described["bases"]:
                assert re.search(rf'["(]{member}[,")]', pycuda_source), f"{name}.{member}"


def test_pycuda_uses_exist_in_the_compiled_module(
    bindings: Any,
    usage: ModuleType,
    pycuda_api: dict[str, Any],
    polygraphy_api: dict[str, Any],
) -> None:
    apis = {"tensorrt": bindings.api, "pycuda.driver": pycuda_api, "polygraphy.backend.trt": polygraphy_api}
    found = walkers(usage, apis)
    uses = [use for walker in found for use in walker.uses if use.module == "pycuda.driver"]
    assert len({str(use) for use in uses}) > 20
    assert [f"{use.where}: {why}" for use in uses if (why := usage.missing(use, apis))] == []
    assert [said for walker in found for said in walker.opaque] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_modules_come_in_by_one_door(path: Path) -> None:
    """Other imports would be outside of what is walked, and would fail where the module is missing."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in typing_only:
            module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            assert (module or "").split(".")[0] not in FOREIGN


def test_without_a_gpu_the_real_bindings_give_one_line(
    bindings: Any, tmp_path: Path, double_api: Any
) -> None:
    """The real module as far as it goes here: creating a builder fails, and we say so in one line."""
    code = (
        "import sys; sys.path[:0] = [sys.argv[1], sys.argv[2]]\n"
        "from ufuser.export.to_tensorrt import main\n"
        "raise SystemExit(main(['--onnx', sys.argv[3], '--out', sys.argv[4]]))\n"
    )
    pycuda = tmp_path / "double"
    pycuda.mkdir()
    (pycuda / "pycuda").symlink_to(Path(__file__).parent / "double" / "pycuda")
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
    assert lines[0].startswith("error: TensorRT could not build x.engine")
    assert list(out.iterdir()) == []
