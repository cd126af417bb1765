"""ONNX files, checkpoints, released weights: accepted, they compute what ONNX Runtime and PyTorch do."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import safetensors.numpy
import torch

from tests.robustness.mutations import of_onnx, of_safetensors, of_zip
from tests.robustness.pictures import encoded, max_network, scene
from tests.robustness.reader import Case, Reader, Seed
from ufuser.runtime.models import WEIGHTS as MODELS
from ufuser.train.checkpoint import load_model

CHECKPOINT = MODELS.parents[1] / "train" / "weights" / "lite.safetensors"


def model_seeds(folder: Path) -> list[Seed]:
    """A maximum, two convolutions, and the smallest shipped network."""
    return [
        Seed("max.onnx", max_network()),
        Seed("convolutions.onnx", _convolutions()),
        Seed("lite.onnx", (MODELS / "lite.onnx").read_bytes()),
    ]


def _convolutions() -> bytes:
    helper, axes, rng = onnx.helper, ("b", 1, "h", "w"), np.random.default_rng(0)
    ends = [helper.make_tensor_value_info(name, 1, axes) for name in ("ir", "vi", "fused")]
    weights = [
        onnx.numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), name)
        for name, shape in (("first", (4, 2, 3, 3)), ("second", (1, 4, 3, 3)))
    ]
    nodes = [
        helper.make_node("Concat", ["ir", "vi"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "first"], ["hidden"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Conv", ["active", "second"], ["levels"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["levels"], ["fused"]),
    ]
    graph = helper.make_graph(nodes, "convolutions", ends[:2], ends[2:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"shape_multiple": "8", "model": "convolutions"})
    return bytes(model.SerializeToString())


def read_model(case: Case) -> None:
    """Mostly `fuse`; at times `verify` or `bench cost`."""
    task = case.rng.random()
    if task < 0.15:
        case.command("verify", case.path, "lite", "--shapes", "1x16x16", good=(0, 1))
    elif task < 0.3:
        case.command("bench", "cost", "--models", case.path, "--sizes", "32x32", "--no-audit")
    else:
        _fused(case, "openvino" if task > 0.8 else "onnxruntime")


def _fused(case: Case, engine: str) -> None:
    out, ir, vi = case.out("out.png"), scene(seed=1)[:16, :16], scene(seed=2)[:16, :16]
    for name, image in (("ir", ir), ("vi", vi)):
        (case.folder / f"{name}.png").write_bytes(encoded(".png", image))
    words = ("--ir", case.folder / "ir.png", "--vi", case.folder / "vi.png", "--out", out)
    case.command("fuse", *words, "--model", case.path, "--engine", engine, "--threads", 1)
    found = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    given = {
        name: (image / np.float32(255)).astype(np.float32)[None, None]
        for name, image in (("ir", ir), ("vi", vi))
    }
    try:
        session = onnxruntime.InferenceSession(case.data, options, providers=["CPUExecutionProvider"])
        multiple = session.get_modelmeta().custom_metadata_map["shape_multiple"]
        if 16 % int(multiple):
            return  # padded
        expected = session.run(["fused"], given)[0]
    except Exception:  # OpenVINO takes what does not fit the file's own types and shapes
        case.require(engine == "openvino", "accepted a model that ONNX Runtime by itself refuses")
        return
    case.require(expected.shape == (1, 1, 16, 16), f"accepted an output of shape {expected.shape}")
    case.require(not np.isnan(expected).any(), "accepted an output with NaN")
    off = np.abs(np.clip(expected[0, 0].astype(np.float64), 0, 1) * 255 - found).max()
    case.require(off <= 1.5, f"differs from ONNX Runtime's by {off:g} of 255")


def checkpoint_seeds(folder: Path) -> list[Seed]:
    """The smallest shipped checkpoint."""
    return [Seed("lite.safetensors", CHECKPOINT.read_bytes())]


def read_checkpoint(case: Case) -> None:
    """`train average` with the whole one; at times `verify`."""
    if case.rng.random() < 0.1:
        case.command("verify", case.path, "lite", "--shapes", "1x16x16", good=(0, 1))
        return
    out = case.out("out.safetensors")
    case.command("train", "average", CHECKPOINT, case.path, "--share", 1, "--out", out)
    found, expected = safetensors.numpy.load_file(out), safetensors.numpy.load(case.data)
    case.require(found.keys() == expected.keys(), "other names than safetensors reads")
    for name, value in found.items():
        case.require(
            np.allclose(value, expected[name], rtol=1e-6), f"{name} differs from what safetensors reads"
        )


@functools.cache
def _weights() -> dict[str, torch.Tensor]:
    return load_model(CHECKPOINT)[0].state_dict()


def release_seeds(folder: Path) -> list[Seed]:
    """Weights as authors release them: bare, wrapped, with the prefix of DataParallel, in the old format."""
    state = _weights()
    wrapped = {"epoch": 7, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    seeds = []
    for name, content, new in (("bare", state, True), ("wrapped", wrapped, True), ("old", state, False)):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=new)
        seeds.append(Seed(f"{name}.pth", file.getvalue()))
    return seeds


def read_release(case: Case) -> None:
    out = case.out("out.safetensors")
    case.command("train", "import", case.path, "--model", "lite", "--out", out)
    content = case.reference(lambda: torch.load(case.path, map_location="cpu", weights_only=True))
    state = {
        name.removeprefix("module."): value for name, value in content.get("state_dict", content).items()
    }
    for name, value in safetensors.numpy.load_file(out).items():
        expected = state[name].to(torch.float32).numpy()
        case.require(np.array_equal(value, expected), f"{name} differs from what PyTorch reads")


READERS = (
    Reader("models", model_seeds, of_onnx, read_model),
    Reader("checkpoints", checkpoint_seeds, of_safetensors, read_checkpoint),
    Reader("releases", release_seeds, of_zip, read_release),
)
