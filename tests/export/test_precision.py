"""FP16 with float32 islands, and INT8 by static quantisation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from tests.export.export_cache import ExportCache, weights_of
from tests.export.small_networks import SmallGraphs, small_network
from ufuser.benchmarks.islands import rounded_network
from ufuser.export import exporter, int8, lowering
from ufuser.export.exporter import trace
from ufuser.export.fidelity import (
    Difference,
    Network,
    compare,
    onnx_network,
    pairs_in,
    real_samples,
    synthetic_samples,
    torch_network,
)
from ufuser.export.lowering import Lowering
from ufuser.export.onnx_file import load_onnx, metadata_of
from ufuser.export.precision import to_half
from ufuser.export.rewrite import rewrite
from ufuser.export.to_onnx import main
from ufuser.export.tolerances import INT8_TARGETS, PSNR_FLOOR
from ufuser.runtime.errors import InputError
from ufuser.train.checkpoint import load_model
from ufuser.train.models.ufuser import UFuser, UFuserOptions

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "train" / "weights" / "ufuser.safetensors"
PAIRS = ROOT.parent / "shared" / "data" / "roadscene"
VALIDATION = ROOT / "train" / "recipes" / "roadscene_validation.txt"


# Attention where its sums are the longest, at half the resolution; tracing takes as long as there are blocks.
TRIMMED = {"global_blocks": [0, 1, 0, 0], "local_blocks": [1, 0, 1, 1]}


@pytest.fixture(scope="module")
def trimmed() -> UFuser:
    """The shipped U-Fuser with one branch of each block: trained weights, and levels as trained ones have."""
    model, _ = load_model(CHECKPOINT)
    network = UFuser(UFuserOptions(**TRIMMED))
    whole, state = model.state_dict(), network.state_dict()
    for name, own in state.items():
        given = whole[name]
        if given.shape != own.shape:  # what joins both branches: the global one's channels come first
            has_global = TRIMMED["global_blocks"][int(name.split(".")[0][-1]) - 1]
            given = given[:, : own.shape[1]] if has_global else given[:, own.shape[1] :]
        state[name] = given
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def fp16(trimmed: UFuser, export_cache: ExportCache) -> bytes:
    """Its graph in half precision."""

    def export(folder: Path) -> None:
        graph = trace(to_half(rewrite(trimmed)), 20).SerializeToString()
        (folder / "trimmed.onnx").write_bytes(graph)

    folder = export_cache("ufuser-fp16", [weights_of(trimmed), str(TRIMMED)], export)
    return (folder / "trimmed.onnx").read_bytes()


@pytest.fixture(scope="module")
def networks(trimmed: UFuser, fp16: bytes) -> dict[str, Network]:
    """The network itself, and its half, run by ONNX Runtime."""
    return {"fp32": torch_network(trimmed), "fp16": onnx_network(fp16)}


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor in the graph."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    return types | {t.name: t.data_type for t in graph.initializer}


def test_inputs_outputs_and_statistics_are_float32_the_rest_is_half(fp16: bytes) -> None:
    model = onnx.load_from_string(fp16)
    types = element_types(model)
    ends = [v.name for v in (*model.graph.input, *model.graph.output)]
    assert {types[name] for name in ends} == {TensorProto.FLOAT}
    statistics = {
        "ReduceL2",
        "Softmax",
        "Sqrt",
        "LayerNormalization",
        "ReduceMean",
        "ReduceSum",
        "Sigmoid",
        "Exp",
    }
    seen: Counter[str] = Counter()
    convolutions: Counter[int] = Counter()
    for node in model.graph.node:
        if node.op_type in statistics:
            assert types[node.input[0]] == TensorProto.FLOAT, node.name
            seen[node.op_type] += 1
        if node.op_type in ("Conv", "ConvTranspose"):
            convolutions[types[node.input[0]]] += 1
        if node.op_type == "MatMul":
            kinds = {types[name] for name in node.input}
            assert len(kinds) == 1, node.name
    assert seen["Softmax"] == 4, "an attention in each encoder, in the fusion and in the decoder"
    assert seen["ReduceL2"] == 2 * seen["Softmax"]
    assert seen["Sqrt"] > 0
    # The statistics of the norms are convolutions too.
    assert convolutions[TensorProto.FLOAT16] > convolutions[TensorProto.FLOAT]


def test_half_is_half_the_size(fp16: bytes) -> None:
    model = onnx.load_from_string(fp16)
    stored = {t.name: (t.data_type, int(np.prod(t.dims))) for t in model.graph.initializer}
    half = sum(size for kind, size in stored.values() if kind == TensorProto.FLOAT16)
    single = sum(size for kind, size in stored.values() if kind == TensorProto.FLOAT)
    assert half > 50 * single
    assert len(fp16) < 2 * half + 4 * single + 300_000  # nodes and names


def frames(kind: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (1, 1, height, width)
    rng = np.random.default_rng(3)
    return {
        "black": (np.zeros(shape, np.float32), np.zeros(shape, np.float32)),
        "saturated": (np.ones(shape, np.float32), np.ones(shape, np.float32)),
        "noise": (rng.random(shape, np.float32), rng.random(shape, np.float32)),
        "opposite": (np.ones(shape, np.float32), np.zeros(shape, np.float32)),
    }[kind]


@pytest.mark.parametrize("kind", ["black", "saturated", "noise"])
def test_no_overflow_at_sizes_where_a_sum_of_squares_would(networks: dict[str, Network], kind: str) -> None:
    ir, vi = frames(kind, 480, 640)
    half, exact = (networks[name](ir, vi) for name in ("fp16", "fp32"))
    assert np.isfinite(half).all()
    assert np.abs(half - exact).max() < 0.01
    if (
        kind == "saturated"
    ):  # the largest sums, at four times the size: what is plain is alike but at the border
        large = networks["fp16"](*frames(kind, 1024, 1280))
        assert np.isfinite(large).all()
        assert abs(float(middle(large)) - float(middle(exact))) < 0.03


def middle(picture: np.ndarray) -> np.floating:
    """Mean level where no border is near."""
    height, width = picture.shape[2:]
    return picture[..., height // 2 - 32 : height // 2 + 32, width // 2 - 32 : width // 2 + 32].mean()


def test_with_every_result_rounded_to_half(fp16: bytes, networks: dict[str, Network]) -> None:
    """Unoptimised, ONNX Runtime rounds after every operator, as a GPU does; optimised, it leaves some out."""
    for kind in ("opposite", "noise"):
        ir, vi = frames(kind, 240, 320)
        rounded = int8.simulated(fp16)(ir, vi)
        assert np.isfinite(rounded).all()
        assert np.abs(rounded - networks["fp32"](ir, vi)).max() < 0.01


def test_an_island_less_would_overflow() -> None:
    """Why there are islands: the same network halved throughout answers a plain picture with NaN."""
    torch.manual_seed(0)
    maps = torch.full((1, 8, 512, 640), 0.5)
    assert torch.isinf((maps.half() ** 2).flatten(2).sum(-1)).all(), "the sum of squares of half a map"
    assert torch.zeros(1).half().clamp_min(1e-12).item() == 0, "the floor under a norm"


def test_a_network_that_was_not_rewritten_is_refused() -> None:
    with pytest.raises(InputError, match="ChannelAttention, ChannelLayerNorm would compute"):
        to_half(UFuser())


def test_the_network_given_stays_as_it_was() -> None:
    rewritten = rewrite(UFuser())
    to_half(rewritten)
    assert {p.dtype for p in rewritten.parameters()} == {torch.float32}


# FP16 of the other networks: small graphs, and the shipped weights.

OTHERS = ("fnet", "daefuse")


@pytest.mark.parametrize("model", OTHERS)
def test_graphs_answer_as_their_networks(small_graphs: SmallGraphs, model: str) -> None:
    network = rewrite(small_network(model))
    half = to_half(network)
    samples = list(synthetic_samples([(1, 48, 64)]))
    for precision, today, decibels in (("fp32", network, 110), ("fp16", half, 70)):
        graph = int8.simulated(small_graphs.path(model, precision).read_bytes())
        found = compare(rounded_network(today), graph, samples)
        assert found.psnr_db > decibels, found
    casts = sum(n.op_type == "Cast" for n in onnx.load(small_graphs.path(model, "fp16")).graph.node)
    assert casts > 2  # islands are in it


@pytest.mark.parametrize(
    ("model", "in_float32", "in_half"),
    [
        ("fnet", set(), {"Exp", "Clip", "Conv", "Div"}),
        ("daefuse", {"ReduceL2", "Sqrt", "Sigmoid"}, {"Gelu", "Resize", "Relu"}),
    ],
)
def test_which_operators_are_islands(
    small_graphs: SmallGraphs, model: str, in_float32: set[str], in_half: set[str]
) -> None:
    graph = onnx.load(small_graphs.path(model, "fp16"))
    types = element_types(graph)
    kinds: dict[str, set[int]] = {}
    for node in graph.graph.node:
        kinds.setdefault(node.op_type, set()).add(types[node.input[0]])
    ends = [v.name for v in (*graph.graph.input, *graph.graph.output)]
    assert {types[name] for name in ends} == {TensorProto.FLOAT}
    assert all(kinds[name] == {TensorProto.FLOAT} for name in in_float32)
    assert all(kinds[name] == {TensorProto.FLOAT16} for name in in_half)
    convolutions = Counter(types[n.input[0]] for n in graph.graph.node if n.op_type == "Conv")
    assert convolutions[TensorProto.FLOAT16] > convolutions[TensorProto.FLOAT]
    (last,) = (n for n in graph.graph.node if "fused" in n.output)
    assert types[last.input[0]] == TensorProto.FLOAT  # levels near 1 would be rounded by 5e-4
    softmaxes = [types[n.input[0]] for n in graph.graph.node if n.op_type == "Softmax"]
    if model == "daefuse":  # of the Gram matrices, and of the attentions to 64 cells
        assert set(softmaxes) == {TensorProto.FLOAT, TensorProto.FLOAT16}


@pytest.mark.parametrize("model", OTHERS)
def test_the_answer_is_not_rounded_to_half_on_its_way_out(small_graphs: SmallGraphs, model: str) -> None:
    half = to_half(rewrite(small_network(model)))
    assert half.body(*torch.rand(2, 1, 1, 16, 16).half()).dtype == torch.float32


@pytest.mark.parametrize("kind", ["black", "saturated", "noise", "opposite"])
@pytest.mark.parametrize("model", OTHERS)
def test_others_with_every_result_rounded_to_half(small_graphs: SmallGraphs, model: str, kind: str) -> None:
    ir, vi = frames(kind, 120, 160)
    rounded, exact = (
        int8.simulated(small_graphs.path(model, p).read_bytes())(ir, vi) for p in ("fp16", "fp32")
    )
    assert np.isfinite(rounded).all()
    assert -10 * np.log10(np.square(rounded - exact).mean() + 1e-30) >= PSNR_FLOOR["fp16"]


@pytest.mark.parametrize("model", ["ufuser", *OTHERS])
def test_shipped_weights_on_crops_of_validation_pairs(model: str) -> None:
    checkpoint = ROOT / "train" / "weights" / f"{model}.safetensors"
    if not checkpoint.is_file():
        pytest.skip(f"no weights of {model} ship")
    if not PAIRS.is_dir():
        pytest.skip(f"no {PAIRS.relative_to(ROOT.parent)} beside the repository")
    network, _ = load_model(checkpoint)
    crops = []
    for sample in real_samples(pairs_in(PAIRS, VALIDATION)[::7]):
        ir, vi = (np.ascontiguousarray(x[..., 64:112, 64:128]) for x in (sample.ir, sample.vi))
        crops.append(replace(sample, ir=ir, vi=vi, height=48, width=64))
    rewritten = rewrite(network)
    found = compare(torch_network(rewritten), rounded_network(to_half(rewritten)), crops)
    assert found.lowest_psnr_db >= PSNR_FLOOR["fp16"], found


# INT8, on a graph of five layers.


def network(outlier: bool = True) -> onnx.ModelProto:
    """wide, wide with one loud channel, groups of two, narrow, transposed, then a sum over channels."""
    rng = np.random.default_rng(0)
    sizes = {
        "first": (16, 2, 3, 3),
        "even": (16, 16, 3, 3),
        "uneven": (16, 16, 3, 3),
        "grouped": (16, 2, 3, 3),
        "narrow": (8, 16, 3, 3),
        "widened": (16, 8, 3, 3),
        "up": (16, 16, 3, 3),
        "last": (1, 16, 1, 1),
    }
    weights = {
        n: (rng.standard_normal(s) / np.sqrt(np.prod(s[1:]))).astype(np.float32) for n, s in sizes.items()
    }
    gains = np.ones((16, 1, 1), np.float32)
    if outlier:  # one channel so loud that the others round to nothing, and turned down again inside
        gains[0] = 300
        weights["uneven"][:, 0] /= 300
    nodes = [helper.make_node("Concat", ["ir", "vi"], ["first_in"], axis=1)]
    previous = "first_in"
    for name in sizes:
        op = "ConvTranspose" if name == "up" else "Conv"
        extra = {"group": 8} if name == "grouped" else {}
        pads = {} if name == "last" else {"pads": [1, 1, 1, 1]}
        nodes.append(
            helper.make_node(op, [previous, f"{name}.weight"], [name], f"node_{name}", **extra, **pads)
        )
        previous = name
        if name == "even":
            nodes.append(helper.make_node("Mul", ["even", "gains"], ["loud"]))
            previous = "loud"
    nodes.append(helper.make_node("Sigmoid", [previous], ["fused"]))
    shape = ("batch", 1, "height", "width")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("ir", "vi")],
        [helper.make_tensor_value_info("fused", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(w, f"{n}.weight") for n, w in weights.items()]
        + [onnx.numpy_helper.from_array(gains, "gains")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"model": "tiny", "precision": "fp32", "shape_multiple": "8"})
    return model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pairs of 72×88."""
    folder = tmp_path_factory.mktemp("pictures")
    for side in ("ir", "vi"):
        (folder / side).mkdir()
        for number in range(10):
            rng = np.random.default_rng([number, side == "ir"])
            smooth = cv2.GaussianBlur(rng.random((72, 88), np.float32), (0, 0), 2)
            levels = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
            cv2.imwrite(str(folder / side / f"{number}.png"), levels)
    return folder


def calibration(folder: Path, crops: int = 32) -> int8.Calibration:
    chosen, kept = int8.split(pairs_in(folder, None), None)
    return int8.Calibration(chosen, kept, crops, height=64, width=64)


def quantized_layers(model: onnx.ModelProto) -> set[str]:
    """Layers whose weights come through a DequantizeLinear."""
    made_by = {output: node for node in model.graph.node for output in node.output}
    return {
        node.name.removeprefix("node_")
        for node in model.graph.node
        if node.op_type in int8.QUANTIZED
        and node.input[1] in made_by
        and made_by[node.input[1]].op_type == "DequantizeLinear"
    }


def test_groups_and_narrow_layers_stay_in_float() -> None:
    assert set(int8.quantizable(network())) == {"even", "uneven", "up"}


def test_rows_are_quantised_and_pointwise_layers_of_any_dimension_are_not(small_graphs: SmallGraphs) -> None:
    """FNet's convolutions are of 1×9, DAE-Fuse's attentions have one-dimensional ones of a single cell."""
    fnet, daefuse = (onnx.load(small_graphs.path(model, "fp32")) for model in OTHERS)
    assert "body.net_u.iterations.0.step.1" in int8.quantizable(fnet)
    found = set(int8.quantizable(daefuse))
    assert {"low.embed", "high.stage1.0.conv1"} <= found
    assert not {"fusion.a_to_b.cells", "low.blocks.0.attn.key"} & found
    # Both pictures go through one encoder: two nodes of the same weights.
    assert {len(nodes) for nodes in int8.quantizable(daefuse).values()} == {2}


@pytest.mark.parametrize("target", INT8_TARGETS)
def test_costliest_layers_are_left_out_until_the_floor_is_reached(pictures: Path, target: str) -> None:
    lines: list[str] = []
    loose = int8.quantize(network(), calibration(pictures), target, 5.0, lines.append)
    assert loose.kept_float == ()
    assert quantized_layers(loose.model) == {"even", "uneven", "up"}
    assert next(iter(loose.sensitivity)) == "uneven", loose.sensitivity
    assert any("uneven" in line for line in lines)
    floor = loose.difference.psnr_db + 3
    strict = int8.quantize(network(), calibration(pictures), target, floor, lines.append)
    assert strict.kept_float[0] == "uneven"
    assert "uneven" not in quantized_layers(strict.model)
    assert strict.difference.psnr_db >= floor
    assert strict.layers == len(quantized_layers(strict.model))


def test_the_error_told_is_that_of_the_file(pictures: Path) -> None:
    made = int8.quantize(network(), calibration(pictures), "cpu", 5.0, lambda line: None)
    again = compare(
        onnx_network(network().SerializeToString()),
        onnx_network(made.model.SerializeToString()),
        real_samples(calibration(pictures).validation),
    )
    assert again == made.difference


@pytest.mark.parametrize("target", INT8_TARGETS)
def test_types_in_the_graph(pictures: Path, target: str) -> None:
    model = int8.quantize(network(False), calibration(pictures), target, 5.0, lambda line: None).model
    onnx.checker.check_model(model, full_check=True)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    activations, weights = set(), 0
    for node in model.graph.node:
        zero = tensors.get(node.input[2]) if len(node.input) > 2 else None
        if node.op_type == "QuantizeLinear":
            assert zero is not None
            activations.add(zero.dtype)
            if target == "tensorrt":
                assert not zero.any()
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            stored = tensors[node.input[0]]
            assert stored.dtype == np.int8
            assert len(tensors[node.input[1]]) in stored.shape, "a scale for every channel"
            # 8-bit products of processors without VNNI saturate: seven bits there.
            limit = 64 if target == "cpu" else 127
            assert np.abs(stored.astype(int)).max() in (limit, limit - 1)
            weights += 1
    assert weights == 3
    assert activations == {np.dtype(np.uint8 if target == "cpu" else np.int8)}


@pytest.mark.parametrize(("model", "target", "layers"), [("fnet", "tensorrt", 7), ("daefuse", "cpu", 11)])
def test_other_networks_go_through_the_same_path(
    small_graphs: SmallGraphs, pictures: Path, model: str, target: str, layers: int
) -> None:
    proto = onnx.load(small_graphs.path(model, "fp32"))
    lines: list[str] = []
    made = int8.quantize(proto, calibration(pictures), target, 20.0, lines.append)
    onnx.checker.check_model(made.model, full_check=True)
    assert made.difference.psnr_db >= 20
    assert made.layers == layers == len(made.sensitivity), "the floor is low"
    nodes = int8.quantizable(proto)
    assert len(quantized_layers(made.model)) == sum(len(nodes[layer]) for layer in made.sensitivity)
    assert any("costliest layers" in line for line in lines)


def test_a_network_that_no_int8_serves_is_told_so(pictures: Path) -> None:
    model = network()
    del model.graph.node[:]
    pads = {"pads": [1, 1, 1, 1]}
    model.graph.node.extend(
        [
            helper.make_node("Concat", ["ir", "vi"], ["both"], axis=1),
            helper.make_node("Conv", ["both", "first.weight"], ["wide"], "node_first", **pads),
            helper.make_node("Conv", ["wide", "grouped.weight"], ["deep"], "node_grouped", group=8, **pads),
            helper.make_node("Conv", ["deep", "last.weight"], ["fused"], "node_last"),
        ]
    )
    with pytest.raises(InputError, match="no layer of this network gains by INT8"):
        int8.quantize(model, calibration(pictures), "cpu", 38.0, lambda line: None)


def test_a_floor_out_of_reach_is_an_error(pictures: Path) -> None:
    with pytest.raises(InputError, match="no INT8 layer is left"):
        int8.quantize(network(), calibration(pictures), "cpu", 200.0, lambda line: None)


def test_too_little_to_calibrate_with(pictures: Path) -> None:
    with pytest.raises(InputError, match="crops=8: expected 32 or more"):
        int8.quantize(network(), calibration(pictures, 8), "cpu", 5.0, lambda line: None)


def test_crops_come_from_all_pairs_and_never_from_validation(pictures: Path) -> None:
    given = calibration(pictures)
    crops = given.samples()
    assert len(crops) == 32
    assert {ir.shape for ir, _ in crops} == {(1, 1, 64, 64)}
    assert not {p.name for p in given.pairs} & {p.name for p in given.validation}
    assert len({ir.tobytes() for ir, _ in crops}) > len(given.pairs)
    again = given.samples()
    assert all(
        np.array_equal(a, b)
        for one, other in zip(crops, again, strict=True)
        for a, b in zip(one, other, strict=True)
    )


# The exporter's command line.


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(w) for w in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter with the small network in place of the traced one."""
    monkeypatch.setattr(exporter, "trace", lambda model, opset: network())
    monkeypatch.setattr(exporter, "parity", lambda reference, content: [((1, 64, 64), 1e-7)])


@pytest.mark.usefixtures("traced")
def test_int8_by_command_carries_its_error(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.onnx"
    names = tmp_path / "names.txt"
    names.write_text("3\n7\n", encoding="utf-8")
    words = ("--checkpoint", CHECKPOINT, "--out", out, "--precision", "int8", "--crops", 32)
    code, told, err = run(capsys, *words, "--calibration", pictures, "--validation", names)
    assert code == 0, err
    assert "calibrating" in err  # the progress bar
    assert "costliest layers" in err
    notes = metadata_of(load_onnx(out)[1])
    assert notes["precision"] == "int8"
    assert float(notes["error_psnr_db"]) >= PSNR_FLOOR["int8"]
    assert notes["error_over"] == "2 real pairs, against fp32"
    assert set(json.loads(notes["int8_sensitivity_db"])) == {"even", "uneven", "up"}
    assert int(notes["int8_layers"]) + len(json.loads(notes["int8_kept_float"])) == 3
    assert "dB against fp32" in told
    onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--precision", "int8"], "--precision int8: expected calibration too, a folder of real pairs"),
        (["--precision", "fp16", "--validation", "x.txt"], "--validation: expected calibration too"),
        (["--precision", "int8", "--calibration", "{tmp}/none"], "no folder"),
    ],
)
@pytest.mark.usefixtures("traced")
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str], expected: str
) -> None:
    filled = [w.format(tmp=tmp_path) for w in words]
    code, _, err = run(capsys, "--checkpoint", CHECKPOINT, "--out", tmp_path / "x.onnx", *filled)
    assert code == 2
    lines = [line for line in err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_an_fp16_graph_out_of_range_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "trace", lambda model, opset: network())
    bad = Difference(1.0, 1.0, -float("inf"), -float("inf"), "x", (0, 0), 3)
    monkeypatch.setattr(lowering, "compare", lambda *args: bad)
    with pytest.raises(InputError, match=r"fp16 reaches -inf dB"):
        exporter.export(CHECKPOINT, tmp_path / "x.onnx", None, 20, lambda line: None, Lowering("fp16"))
    assert list(tmp_path.iterdir()) == []


def test_not_a_number_never_passes_for_near() -> None:
    def right(ir: np.ndarray, vi: np.ndarray) -> np.ndarray:
        return ir

    def wrong(ir: np.ndarray, vi: np.ndarray) -> np.ndarray:
        answer = ir.copy()
        answer[0, 0, 5, 7] = np.nan
        return answer

    found = compare(right, wrong, synthetic_samples([(1, 16, 24)]))
    assert found.largest == np.inf
    assert found.place == (5, 7)
    assert found.psnr_db == -np.inf
