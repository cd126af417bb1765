"""Models and engines that are missing, broken or of another kind; the choice of `auto`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ufuser import Fuser, InputError
from ufuser.runtime.engines import CPU_ENGINES, GPU_ENGINES, fastest_installed, open_engine
from ufuser.runtime.engines.operators import operators_of
from ufuser.runtime.models import find_model, fitting, shipped


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.pth"])
def test_a_checkpoint_is_answered_with_the_command_that_exports_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(InputError) as error:
        find_model(tmp_path / name)
    command = f"ufuser export --checkpoint {tmp_path / 'mine.safetensors'} --out {tmp_path / 'mine.onnx'}"
    assert f"export it first: `{command}`" in str(error.value)


def test_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown model 'ufusser'") as caught:
        Fuser.open("ufusser")
    for name in shipped():
        assert name in str(caught.value)


@pytest.mark.parametrize("path", ["gone.onnx", "gone/ufuser"])
def test_missing_file(path: str) -> None:
    with pytest.raises(InputError, match=f"no model file {path}"):
        Fuser.open(path)


def test_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model file"):
        Fuser.open(tmp_path)


@pytest.mark.parametrize(
    ("engine", "model"),
    [("auto", "lite"), ("onnxruntime", "lite"), ("openvino", "lite"), ("tensorrt", "ufuser")]
    + [(name, "ufuser") for name in GPU_ENGINES],
)
def test_auto_model_of_each_engine(engine: str, model: str) -> None:
    assert fitting(engine) == model
    assert model in shipped()


def test_a_fuser_names_its_model() -> None:
    assert Fuser.open("auto", engine="onnxruntime").model == "lite"
    assert Fuser.open("ufuser", engine="onnxruntime").model == "ufuser"


@pytest.mark.parametrize(("shared", "entry"), [(True, "0"), (False, "")])
def test_shared_threads_of_onnx_runtime_sleep(
    monkeypatch: pytest.MonkeyPatch, max_model: Path, shared: bool, entry: str
) -> None:
    import onnxruntime

    found = []
    session = onnxruntime.InferenceSession

    def watched(path: str, options: onnxruntime.SessionOptions, **rest: Any) -> onnxruntime.InferenceSession:
        found.append("")
        with contextlib.suppress(RuntimeError):  # raised for an entry that is not set
            found[-1] = options.get_session_config_entry("session.intra_op.allow_spinning")
        return session(path, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    fused = Fuser.open(max_model, shared=shared).fuse(*np.full((2, 16, 16), 7, np.uint8))
    assert found == [entry]
    assert (fused == 7).all()


def test_unknown_engine_names_the_known_ones(max_model: Path) -> None:
    with pytest.raises(InputError, match=f"unknown engine 'tensorflow'.*{CPU_ENGINES[0]}"):
        Fuser.open(max_model, engine="tensorflow")


@pytest.mark.parametrize(("engine", "extra"), [("onnxruntime", "cpu"), ("openvino", "openvino")])
def test_engine_not_installed_names_the_extra(
    max_model: Path, monkeypatch: pytest.MonkeyPatch, engine: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(InputError, match=rf"not installed.*ufuser\[{extra}\]"):
        Fuser.open(max_model, engine)


@pytest.mark.parametrize("threads", [0, -3, 100_000])
def test_threads(max_model: Path, threads: int) -> None:
    with pytest.raises(InputError, match=f"threads={threads}: expected 1 to"):
        Fuser.open(max_model, threads=threads)


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("content", [b"", b"not a model at all", None], ids=["empty", "text", "cut off"])
def test_broken_file(max_model: Path, tmp_path: Path, content: bytes | None, engine: str) -> None:
    path = tmp_path / "broken.onnx"
    whole = max_model.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match=r"broken\.onnx") as caught:
        Fuser.open(path, engine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_model_of_another_kind(make_model: Any, engine: str) -> None:
    path = make_model("classifier", [("Relu", ["image"], ["fused"], {})], inputs=["image"])
    with pytest.raises(InputError, match=r"no fusion model.*image.*expected inputs ir, vi"):
        Fuser.open(path, engine)


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("layout", [("b", 3, "h", "w"), (1, 1, 64, 64), ("b", "h", "w")])
def test_model_of_another_shape(make_model: Any, layout: tuple[int | str, ...], engine: str) -> None:
    path = make_model("shaped", layout=layout)
    with pytest.raises(InputError, match=r"no fusion model.*dynamic height and width"):
        Fuser.open(path, engine)


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("value", [None, "", "eight", "0", "-8", "32", "9" * 5000])
def test_shape_multiple_must_be_there(make_model: Any, value: str | None, engine: str) -> None:
    path = make_model(
        "bare", metadata={"model": "bare"} | ({} if value is None else {"shape_multiple": value})
    )
    with pytest.raises(InputError, match=r"shape_multiple.*ufuser export"):
        Fuser.open(path, engine)


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize(
    ("name", "nodes", "message"),
    [
        ("nan", [("Sub", ["ir", "vi"], ["zero"], {}), ("Div", ["zero", "zero"], ["fused"], {})], "holds NaN"),
        ("transposed", [("Transpose", ["ir"], ["fused"], {"perm": [0, 1, 3, 2]})], "failed|shape"),
    ],
)
def test_an_output_that_is_no_picture(
    make_model: Any, name: str, nodes: Any, message: str, engine: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(engine)
    zeros = np.zeros((32, 40), np.uint8)
    with Fuser.open(make_model(name, nodes), engine) as fuser:
        for _ in range(3):  # OpenVINO compiles the second time
            with pytest.raises(InputError, match=message):
                fuser.fuse(zeros, zeros)
    assert capfd.readouterr().err == ""


def test_a_name_that_is_not_utf8(max_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(max_model.read_bytes().replace(b"fused", b"f\xb4sed"))
    with pytest.raises(InputError, match=r"broken\.onnx is not an ONNX file"):
        Fuser.open(path)


@pytest.mark.parametrize(("name", "said"), [("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")])
def test_metadata_and_name(max_model: Path, name: str, said: str) -> None:
    pytest.importorskip(name)
    engine = Fuser.open(max_model, name).engine
    assert engine.metadata["model"] == "max"
    assert engine.metadata["shape_multiple"] == "8"
    assert engine.name.startswith(said)


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_a_batch_is_bound_as_one_and_single_pictures_after_it(max_model: Path, name: str) -> None:
    pytest.importorskip(name)
    engine = open_engine(name, max_model, 1)
    rng = np.random.default_rng(2)
    for batch in (3, 1, 3):
        shape = (24, 40) if batch == 1 else (batch, 24, 40)
        into_ir, into_vi, fused = engine.bind(24, 40, batch)
        assert fused.shape == shape
        into_ir[:], into_vi[:] = ir, vi = [rng.random(shape, np.float32) for _ in range(2)]
        engine.run()
        np.testing.assert_array_equal(fused, np.maximum(ir, vi))


def test_engines_agree_and_keep_single_precision() -> None:
    """OpenVINO must not use bfloat16 by default: its error is a hundred times this tolerance."""
    pytest.importorskip("openvino")
    rng = np.random.default_rng(5)
    fused = {name: Fuser.open("lite", name, threads=1) for name in CPU_ENGINES}
    for size in ((64, 96), (41, 67), (64, 96)):
        ir, vi = (rng.random(size, np.float32) for _ in range(2))
        answers = [fuser.fuse(ir, vi) for fuser in fused.values()]
        np.testing.assert_allclose(answers[0], answers[1], atol=2e-5)
        assert answers[0].std() > 0.05


def test_auto_takes_onnx_runtime_for_small_networks_and_openvino_for_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    small.write_bytes(bytes(1000))
    large.write_bytes(bytes(2 << 20))
    installed = {"onnxruntime", "openvino"}
    monkeypatch.setattr("ufuser.runtime.engines.find_spec", lambda name: name if name in installed else None)
    assert [fastest_installed(p) for p in (small, large)] == ["onnxruntime", "openvino"]
    installed.remove("onnxruntime")
    assert fastest_installed(small) == "openvino"
    assert fastest_installed(tmp_path / "x.engine") == "tensorrt"
    installed.clear()
    assert fastest_installed(large) == "onnxruntime"  # whose absence is then said


def _endless(folder: Path, wrapped: bool) -> Path:
    """A model whose loop has no end: in the graph, or in a branch."""
    onnx = pytest.importorskip("onnx")
    helper, axes = onnx.helper, ("b", 1, "h", "w")
    tensor, flag = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Max", ["x", "vi"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("n", onnx.TensorProto.INT64, ()),
            helper.make_tensor_value_info("on", flag, ()),
            helper.make_tensor_value_info("x", tensor, axes),
        ],
        [helper.make_tensor_value_info("still", flag, ()), helper.make_tensor_value_info("y", tensor, axes)],
    )
    loop = helper.make_node("Loop", ["", "true", "ir"], ["fused"], body=body)
    ends = [helper.make_tensor_value_info(name, tensor, axes) for name in ("ir", "vi", "fused")]
    true = onnx.numpy_helper.from_array(np.asarray(True), "true")
    if wrapped:
        branch = helper.make_graph([loop], "branch", [], ends[2:])
        loop = helper.make_node("If", ["true"], ["fused"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([loop], "endless", ends[:2], ends[2:], [true])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"shape_multiple": "8"})
    onnx.save(model, folder / "endless.onnx")
    return folder / "endless.onnx"


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_loops_and_branches_are_refused_when_a_model_is_opened(
    tmp_path: Path, engine: str, wrapped: bool
) -> None:
    """Native code does not hear Ctrl-C: an endless loop would have to be killed."""
    pytest.importorskip(engine)
    operator = "If" if wrapped else "Loop"
    with pytest.raises(InputError, match=f"has the operator {operator}: expected .* without loops") as caught:
        Fuser.open(_endless(tmp_path, wrapped), engine)
    assert "\n" not in str(caught.value)


def test_the_operators_of_shipped_models_are_found() -> None:
    onnx = pytest.importorskip("onnx")
    for name in shipped():
        path = find_model(name)
        expected = {node.op_type for node in onnx.load(path).graph.node}
        assert set(operators_of(path)) == expected


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("content", [b"", b"\x0b\x0c", b"\x3a\x05ab", b"\x08" + b"\xff" * 20, b"\x08\x07"])
def test_what_is_no_network_is_refused_before_an_engine_sees_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], engine: str, content: bytes
) -> None:
    pytest.importorskip(engine)
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(InputError, match="is not an ONNX file"):
        Fuser.open(tmp_path / "x.onnx", engine)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("name", [b"fused", b"shape_multiple"])
def test_names_that_are_not_utf8_are_refused_without_noise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], max_model: Path, engine: str, name: bytes
) -> None:
    """ONNX Runtime prints before it tries the same provider again; OpenVINO's bindings raise UnicodeDecodeError."""
    pytest.importorskip(engine)
    (tmp_path / "x.onnx").write_bytes(max_model.read_bytes().replace(name, name[:-1] + b"\xff"))
    with pytest.raises(InputError):
        Fuser.open(tmp_path / "x.onnx", engine)
    assert capfd.readouterr() == ("", "")
