"""The exporter through its real entry point."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ufuser.export.exporter import count_macs, parity
from ufuser.export.exporter import export as run_export
from ufuser.export.fidelity import compare, onnx_network, synthetic_samples, torch_network
from ufuser.export.rewrite import rewrite
from ufuser.export.to_onnx import get_parser, main
from ufuser.runtime.errors import InputError
from ufuser.train.checkpoint import load_model
from ufuser.train.models import create

ROOT = Path(__file__).resolve().parents[2]


def test_dimensions_and_names(export: SimpleNamespace) -> None:
    graph = onnx.load(export.onnx).graph
    found = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    }
    assert found == {n: ["batch", 1, "height", "width"] for n in ("ir", "vi", "fused")}


def test_no_node_more_than_the_rewrites_leave(export: SimpleNamespace) -> None:
    graph = onnx.load(export.onnx).graph
    assert len(graph.node) <= 385  # a target that a Reshape computes would add several nodes to each
    assert sum(node.op_type == "Shape" for node in graph.node) <= 1


def test_metadata(export: SimpleNamespace) -> None:
    notes = {p.key: p.value for p in onnx.load(export.onnx).metadata_props}
    assert notes["model"] == "ufuser"
    network, _ = load_model(export.checkpoint)
    assert notes["parameters"] == str(sum(p.numel() for p in network.parameters()))
    assert notes["shape_multiple"] == "8"
    assert notes["value_range"] == "[0, 1]"
    assert notes["recipe"] == 'name = "test"'
    assert notes["checkpoint_sha256"] == hashlib.sha256(export.checkpoint.read_bytes()).hexdigest()
    rewritten = count_macs(rewrite(network), 264, 400)
    assert float(notes["macs_per_pixel"]) * 264 * 400 == pytest.approx(rewritten, rel=1e-3)


def test_the_shipped_file_is_of_the_whole_network_and_no_larger_than_it_need_be() -> None:
    shipped = onnx.load(ROOT / "runtime" / "weights" / "ufuser.onnx")
    notes = {p.key: p.value for p in shipped.metadata_props}
    assert notes["parameters"] == "1517657"
    assert 0 < float(notes["macs_per_pixel"]) * 264 * 400 <= 8.9e9
    assert len(shipped.graph.node) <= 1090  # docs/speed.md: why no fewer


@pytest.mark.parametrize("model", ["ufuser", "lite", "fnet"])
def test_the_shipped_file_answers_as_its_checkpoint(model: str) -> None:
    network, _ = load_model(ROOT / "train" / "weights" / f"{model}.safetensors")
    shipped = onnx_network((ROOT / "runtime" / "weights" / f"{model}.onnx").read_bytes())
    found = compare(torch_network(network), shipped, synthetic_samples([(1, 48, 64)]))
    assert found.largest < 1e-4, found


def test_no_machine_path_is_left_in_the_file(export: SimpleNamespace) -> None:
    content = export.onnx.read_bytes()
    assert str(Path.cwd()).encode() not in content
    assert b".py" not in content


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 24, 136), (2, 200, 40)])
def test_agrees_with_pytorch_at_shapes_it_was_not_traced_at(
    export: SimpleNamespace, shape: tuple[int, int, int]
) -> None:
    batch, height, width = shape
    rng = np.random.default_rng(1)
    ir, vi = (rng.random((batch, 1, height, width), np.float32) for _ in range(2))
    model, _ = load_model(export.checkpoint)
    with torch.no_grad():
        expected = model(torch.from_numpy(ir), torch.from_numpy(vi)).numpy()
    session = onnxruntime.InferenceSession(str(export.onnx), providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {"ir": ir, "vi": vi})
    assert expected.std() > 0.01
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_says_what_it_checked(export: SimpleNamespace) -> None:
    assert export.stderr.count("largest difference from PyTorch") == 3
    assert "GMACs at 264x400" in export.stdout


def test_verify_finds_checkpoint_and_export_equal(export: SimpleNamespace, tmp_path: Path) -> None:
    """`export/verify.py` as it stands in the docs; here, because an export takes half a minute."""
    heat = tmp_path / "heat.png"
    script = ROOT / "export" / "verify.py"
    words = [
        str(export.checkpoint),
        str(export.onnx),
        "--heatmap",
        str(heat),
        "--shapes",
        "1x64x64",
        "2x72x104",
    ]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pass" in done.stdout
    assert "PyTorch, CPU" in done.stdout
    assert cv2.imread(str(heat)) is not None


def test_parity_tells_another_network(export: SimpleNamespace) -> None:
    torch.manual_seed(4)
    other = create("ufuser", export.options).eval()
    errors = [error for _, error in parity(other, export.onnx.read_bytes())]
    assert min(errors) > 1e-4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--checkpoint", "{tmp}/none.safetensors", "--out", "{tmp}/x.onnx"], "no checkpoint"),
        (["--checkpoint", "{ckpt}", "--out", "{tmp}/no/folder/x.onnx"], "cannot write"),
        (["--checkpoint", "{ckpt}", "--out", "{tmp}"], "cannot write"),
        (["--checkpoint", "{ckpt}", "--out", "{tmp}/x.onnx", "--opset", "25"], "--opset 25"),
        (["--checkpoint", "{ckpt}", "--out", "{tmp}/x.onnx", "--model", "fnet"], "'ufuser', expected 'fnet'"),
        (["--checkpoint", "{onnx}", "--out", "{tmp}/x.onnx"], "not a readable safetensors file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    export: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    filled = [a.format(tmp=tmp_path, ckpt=export.checkpoint, onnx=export.onnx) for a in arguments]
    assert main(filled) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_differs_is_refused(
    export: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rewrite that isn't exact must not get through."""

    def wrong(model: torch.nn.Module) -> torch.nn.Module:
        other = create("ufuser", export.options).eval()
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            other.last[0].bias.add_(0.01)
        return other

    monkeypatch.setattr("ufuser.export.exporter.rewrite", wrong)
    monkeypatch.setattr("ufuser.export.exporter.trace", lambda model, opset: onnx.load(export.onnx))
    monkeypatch.setattr("ufuser.export.exporter.parity", lambda model, content: parity(wrong(model), content))
    with pytest.raises(InputError, match="differs from PyTorch"):
        run_export(export.checkpoint, tmp_path / "x.onnx", None, 20, lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_help_names_what_it_takes() -> None:
    text = get_parser().format_help()
    assert all(flag in text for flag in ("--checkpoint", "--out", "--model", "--opset"))
