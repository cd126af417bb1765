"""The cost of a graph: against PyTorch's own counter on three networks, and by hand on small ones."""

from __future__ import annotations

import copy
import io
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.export.small_networks import SmallGraphs, small_network
from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.cost import cost_of
from ufuser.export.rewrite import rewrite
from ufuser.runtime.errors import InputError
from ufuser.runtime.models import find_model
from ufuser.train.models.fnet import FNet
from ufuser.train.models.pseudo_sensing import PseudoSensing
from ufuser.train.models.ufuser import UFuser, UFuserOptions


def fnet() -> FNet:
    """With weights of its own in every layer: an exporter keeps equal ones, as at its start, but once."""
    network = FNet()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    return network


def ufuser() -> UFuser:
    """Every kind of block, but one branch a scale: tracing takes as long as there are blocks."""
    return UFuser(UFuserOptions((0, 1, 0, 1), (1, 0, 1, 1)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "U-Fuser": (ufuser, ["ir", "vi"]),
    "U-Net": (PseudoSensing, ["fused"]),
    "FNet": (fnet, ["ir", "vi"]),
}


def exported(network: nn.Module, inputs: list[str]) -> onnx.ModelProto:
    """Any network with dynamic height and width; the older exporter takes seconds, not half a minute."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(torch.rand(1, 1, 32, 48) for _ in inputs),
            file,
            dynamo=False,
            input_names=inputs,
            output_names=["out"],
            dynamic_axes={name: {2: "height", 3: "width"} for name in inputs},
            opset_version=18,
        )
    return onnx.load_from_string(file.getvalue())


def macs_by_pytorch(network: nn.Module, inputs: int, height: int, width: int) -> int:
    with FlopCounterMode(display=False) as counter:
        network.to("meta")(*(torch.empty(1, 1, height, width, device="meta") for _ in range(inputs)))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_and_parameters_agree_with_pytorch(name: str) -> None:
    create, inputs = NETWORKS[name]
    network = create().eval()
    graph = exported(network, inputs)
    parameters = sum(p.numel() for p in network.parameters())
    for size in ((128, 128), (272, 400)):
        cost = cost_of(graph, *size)
        assert cost.macs == pytest.approx(macs_by_pytorch(network, len(inputs), *size), rel=0.005)
        assert cost.flops == 2 * cost.macs
        assert cost.parameters == pytest.approx(parameters, rel=0.005)
        assert sum(c.macs for c in cost.by_operator().values()) == cost.macs


def test_the_shipped_model_costs_what_pytorch_counted_at_its_export() -> None:
    model = find_model("ufuser")
    noted = {entry.key: entry.value for entry in onnx.load(str(model)).metadata_props}
    for height, width in ((264, 400), (480, 640), (1080, 1920)):
        counted = cost_of(model, height, width).macs / (height * width)
        assert counted == pytest.approx(float(noted["macs_per_pixel"]), rel=0.005)


def test_a_batch_costs_as_many_times_as_much() -> None:
    model = find_model("ufuser")
    one, three = cost_of(model, 64, 96), cost_of(model, 64, 96, batch=3)
    assert three.macs == 3 * one.macs
    # All but the few numbers that shapes are computed with.
    assert three.peak_activation_bytes == pytest.approx(3 * one.peak_activation_bytes, rel=1e-3)
    assert three.parameters == one.parameters


def model_of(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], inputs: int = 1) -> onnx.ModelProto:
    """A graph from pictures [batch, 2, height, width] x0, x1 … to y."""
    shape = ["batch", 2, "height", "width"]
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i in range(inputs)]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", ends, [out], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def weight(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_bytes_and_peak_memory_by_hand() -> None:
    model = model_of(
        [
            helper.make_node("Conv", ["x0", "w", "b"], ["a"], pads=[1, 1, 1, 1]),  # 4 channels
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Reshape", ["r", "flat"], ["f"]),  # moves nothing, keeps r alive
            helper.make_node("ReduceMean", ["f"], ["y"], keepdims=0),
        ],
        {"w": weight(4, 2, 3, 3), "b": weight(4), "flat": np.array([0, -1])},
    )
    cost = cost_of(model, 8, 10)
    picture, wide = 8 * 10 * 2 * 4, 8 * 10 * 4 * 4
    kernel = (4 * 2 * 9 + 4) * 4
    assert cost.macs == 8 * 10 * 4 * 2 * 9
    assert cost.parameters == 4 * 2 * 9 + 4
    conv, relu, reshape, mean = cost.operators
    assert (conv.bytes_read, conv.bytes_written) == (picture + kernel, wide)
    assert (relu.bytes_read, relu.bytes_written) == (wide, wide)
    assert (reshape.bytes_read, reshape.bytes_written) == (0, 0)
    assert (mean.bytes_read, mean.bytes_written) == (wide, 4)
    # While Relu runs: the caller's picture, its input and its output.
    assert cost.peak_activation_bytes == picture + 2 * wide


def test_what_is_still_needed_stays_in_memory() -> None:
    late = [
        helper.make_node("Relu", ["x0"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Abs", ["b"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["y"]),  # a lives until here
    ]
    early = [*late[:3], helper.make_node("Neg", ["c"], ["y"])]
    picture = 8 * 10 * 2 * 4
    assert cost_of(model_of(late, {}), 8, 10).peak_activation_bytes == 4 * picture
    assert cost_of(model_of(early, {}), 8, 10).peak_activation_bytes == 3 * picture


@pytest.mark.parametrize(
    ("node", "weights", "macs"),
    [
        (helper.make_node("Conv", ["x0", "w"], ["y"], group=2), {"w": weight(6, 1, 3, 3)}, 6 * 8 * 6 * 9),
        (
            helper.make_node("ConvTranspose", ["x0", "w"], ["y"], strides=[2, 2]),
            {"w": weight(2, 5, 4, 4)},
            80 * 2 * 5 * 16,
        ),
        (helper.make_node("MatMul", ["x0", "w"], ["y"]), {"w": weight(10, 7)}, 2 * 8 * 10 * 7),
        (
            helper.make_node("Einsum", ["x0", "w"], ["y"], equation="bchw,ck->bkhw"),
            {"w": weight(2, 7)},
            80 * 2 * 7,
        ),
        (helper.make_node("Einsum", ["x0"], ["y"], equation="bchw->bhwc"), {}, 0),
        (helper.make_node("Sigmoid", ["x0"], ["y"]), {}, 0),
    ],
)
def test_rules_by_hand(node: onnx.NodeProto, weights: dict[str, np.ndarray], macs: int) -> None:
    assert cost_of(model_of([node], weights), 8, 10).macs == macs


def test_quantised_weights_are_read_as_bytes() -> None:
    weights = {"q": np.ones((4, 2, 3, 3), np.int8), "s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]),
        helper.make_node("Conv", ["x0", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    cost = cost_of(model_of(nodes, weights), 8, 10)
    assert cost.parameters == 4 * 2 * 9
    assert cost.operators[1].bytes_read == 80 * 2 * 4 + 4 * 2 * 9


def test_refuses_what_it_would_count_wrongly(tmp_path: Path) -> None:
    unknown = helper.make_node("Attention", ["x0"], ["y"], domain="com.microsoft", name="att")
    model = model_of([unknown], {})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(InputError, match=r"'y', made by Attention \('att'\)"):
        cost_of(model, 8, 10)
    recurrent = helper.make_node("LpNormalization", ["x0"], ["y"], name="norm")
    with pytest.raises(InputError, match=r"operator LpNormalization \('norm'\) has no rule"):
        cost_of(model_of([recurrent], {}), 8, 10)
    fixed = model_of([helper.make_node("Relu", ["x0"], ["y"])], {})
    fixed.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 16
    with pytest.raises(InputError, match="fixed to 16 on axis 2, but 8 was requested"):
        cost_of(fixed, 8, 10)
    text = tmp_path / "text.onnx"
    text.write_text("no graph")
    with pytest.raises(InputError, match="is not an ONNX file"):
        cost_of(text, 8, 10)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cost.json"
    assert main(["cost", "--sizes", "264x400", "--no-audit", "--json", str(out)]) == 0
    (cost,) = json.loads(out.read_text())["cost"]
    assert cost["size"] == [264, 400]
    assert cost["macs"] == sum(o["macs"] for o in cost["operators"])
    assert f"{cost['macs'] / 1e9:.3f} GMACs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--models", "nothing"], "unknown model 'nothing'"),
        (["--sizes", "264,400"], "size '264'"),
        (["--json", "/nowhere/cost.json"], "cannot write /nowhere/cost.json"),
    ],
)
def test_bad_input(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_graph_that_counts_from_the_pictures_size(small_graphs: SmallGraphs) -> None:
    """DAE-Fuse's cells: a Range up to a side of the map, which no inference knows by itself."""
    file = small_graphs.path("daefuse", "fp32")
    network = rewrite(small_network("daefuse"))
    costs = {size: cost_of(file, *size) for size in ((64, 96), (120, 160))}
    for size, cost in costs.items():
        assert cost.macs == pytest.approx(macs_by_pytorch(copy.deepcopy(network), 2, *size), rel=0.005)
    held = {cost.parameters for cost in costs.values()}
    assert len(held) == 1, "what is made from the size is no weight"
    assert held.pop() <= sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g.node[0].input.__setitem__(0, "gone"), "takes 'gone', which nothing before it makes"),
        (
            lambda g: g.node[0].input.extend(["ir"] * 9) or g.node[0].__setattr__("op_type", "Clip"),
            r"\(Clip\)",
        ),
        (lambda g: g.node[0].__setattr__("op_type", "Unheard"), r"\(Unheard\)"),
    ],
)
def test_a_graph_that_is_none_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    max_model: Path,
    change: Callable[..., None],
    said: str,
) -> None:
    model = onnx.load(max_model)
    change(model.graph)
    onnx.save(model, tmp_path / "x.onnx")
    assert main(["cost", "--models", str(tmp_path / "x.onnx"), "--sizes", "16x16", "--no-audit"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"error: .*{said}.*\n", err), err


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b"Max", b"M\xffx", "not UTF-8|is not an ONNX file"),
        (b"\x08\x01\x12", b"\x08\x63\x12", "element type|cannot be inferred"),
    ],
)
def test_bytes_that_no_name_or_type_has(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    max_model: Path,
    before: bytes,
    after: bytes,
    said: str,
) -> None:
    (tmp_path / "x.onnx").write_bytes(max_model.read_bytes().replace(before, after))
    assert main(["cost", "--models", str(tmp_path / "x.onnx"), "--sizes", "16x16", "--no-audit"]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(f"error: .*({said}).*\n", err), err
