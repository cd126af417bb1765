"""FNet and IFNet: released outputs, the paper's thresholds, joined convolutions, both stages of training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ufuser import train
from ufuser.runtime.errors import InputError
from ufuser.runtime.structs import read_toml
from ufuser.train.__main__ import main
from ufuser.train.checkpoint import load_model, read_checkpoint
from ufuser.train.models import all_options, create
from ufuser.train.models.fnet import FNet, FNetPair, PairOptions
from ufuser.train.models.fnet_joined import kernel_in_blocks
from ufuser.train.models.sparse_coding import LCSC, LZSC, SparseCoding, sigmoidal_threshold, soft_threshold
from ufuser.train.objectives.fnet import FusionLoss, RecoveryObjective, gradient_strength, ssim
from ufuser.train.recipe import load_recipe
from ufuser.train.sections import FNetRecipe

RECIPES = Path(train.__file__).parent / "recipes"
ABLATIONS = RECIPES / "ablations_fnet"
EVERY_OPTION: list[dict[str, object]] = [
    {},
    {"iterations": 1},
    {"iterations": 3},
    {"thresholding": "soft"},
    {"shared": True},
    {"momentum": "none"},
    {"momentum": "polyak"},
    {"momentum": "quasi_hyperbolic"},
    {"alpha": 0.05, "gamma": 200.0},
    {"block": "lcsc"},
]

STAGE = """
name = "tiny-fnet"
model = "MODEL"
seed = 3
validate_every = 1

[network]
iterations = 1

[data]
validation = "validation.txt"
validate_on = 1
crop = 24

[fnet]
FNET

[optim]
steps = 2
batch = 1
learning_rate = 1e-4
warmup = 0
"""


def moved(network: nn.Module, amount: float = 0.3) -> nn.Module:
    """Perturb the weights, as training does."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(amount * p.std() * torch.randn(p.shape, generator=generator) if p.numel() > 1 else 0.02)
    return network


# The released network


@pytest.mark.parametrize(("joined", "sizes"), [(False, ["64x64"]), (True, ["64x64", "72x100"])])
def test_released_weights_reproduce_the_released_outputs(
    reference: Path, tmp_path: Path, joined: bool, sizes: list[str]
) -> None:
    out = tmp_path / "fnet.safetensors"
    released = reference / "fnet" / "FNet.pth"
    assert main(["import", str(released), "--model", "fnet", "--out", str(out)]) == 0
    network, _ = load_model(out, "fnet")
    assert isinstance(network, FNet)
    network.joined = joined
    answers = np.load(reference / "fnet" / "fnet_parity.npz")
    for size in sizes:
        ir, vi = (torch.from_numpy(answers[f"{side}_{size}"])[None, None] for side in ("ir", "vi"))
        with torch.no_grad():
            fused, unique = network(ir, vi)[0, 0], network.features(ir, vi)[0][0, :4]
        assert np.abs(fused.numpy() - answers[f"fused_{size}"]).max() < 1e-4
        assert np.abs(unique.numpy() - answers[f"unique_ir_first4_{size}"]).max() < 1e-4


def test_layouts_are_the_releases(reference: Path) -> None:
    fnet = json.loads((reference / "release_state_dict_layouts.json").read_text())["fnet"]
    ifnet = json.loads((reference / "fnet" / "ifnet_layout.json").read_text())["ifnet"]
    with torch.device("meta"):
        state = FNetPair().state_dict()
    assert {k: list(v.shape) for k, v in state.items() if k.startswith("fnet.")} == {
        f"fnet.{k}": v for k, v in fnet.items()
    }
    own = {k.removeprefix("ifnet."): list(v.shape) for k, v in state.items() if k.startswith("ifnet.")}
    own.pop("conv_x2.weight")  # the paper's second convolution, where the release uses the first one twice
    assert own == {k: v for k, v in ifnet.items() if k != "conv_x2.weight"}


def test_a_release_of_another_network_is_refused(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import", str(reference / "fnet" / "FNet.pth"), "--out", str(tmp_path / "x.safetensors")]
    assert main([*words, "--model", "ufuser"]) == 2
    assert "does not fit ufuser, but fnet: give --model fnet" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# The paper's parts


def test_theta_falls_and_rho_grows_within_their_bounds() -> None:
    block = LZSC(1, SparseCoding(iterations=5))
    thetas, rhos = ([f(k).item() for k in range(6)] for f in (block.theta, block.rho))
    assert thetas == sorted(thetas, reverse=True)
    assert thetas[-1] > 0
    assert rhos == sorted(rhos)
    assert rhos[0] == 0
    assert rhos[-1] < 1
    assert thetas[0] == pytest.approx(np.log1p(np.exp(-2)))


def test_the_sigmoidal_threshold_keeps_what_is_above_and_cuts_what_is_below() -> None:
    x, theta = torch.tensor([-1.0, -0.3, -0.1, 0.0, 0.1, 0.3, 1.0]), torch.tensor([0.2])
    h = sigmoidal_threshold(x, theta)
    torch.testing.assert_close(
        h[[0, 1, 5, 6]], x[[0, 1, 5, 6]] - 0.02 * x[[0, 1, 5, 6]].sign(), atol=1e-4, rtol=0
    )
    assert h[2:5].abs().max() < 1e-5
    half = sigmoidal_threshold(theta, theta)  # at θ: half of what the line α·θ below it is
    assert half.item() == pytest.approx(0.5 * 0.18)
    assert soft_threshold(x, theta).tolist() == pytest.approx([-0.8, -0.1, 0, 0, 0, 0.1, 0.8])


def test_an_iteration_is_eq_20_written_out() -> None:
    block = moved(LZSC(2, SparseCoding(iterations=2)))
    e = torch.rand(1, 2, 20, 24)
    state = block.state_dict()

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, state[f"{name}.weight"], padding=4)

    def ud(name: str, x: torch.Tensor) -> torch.Tensor:
        return conv(f"{name}.ch_up", conv(f"{name}.ch_down", x))

    with torch.no_grad():
        x0 = sigmoidal_threshold(conv("x0_block.conv_in", e), block.theta(0))
        step = (1 + block.rho(1)) * (x0 - ud("x1_block.basic_layer", x0)) + conv("x1_block.conv_in", e)
        x1 = sigmoidal_threshold(step, block.theta(1))
        step = (
            (1 + block.rho(2)) * (x1 - ud("IM.0.basic_layer1", x1))
            - block.rho(2) * (x0 - ud("IM.0.basic_layer2", x0))
            + conv("IM.0.conv_in", e)
        )
        torch.testing.assert_close(block(e), sigmoidal_threshold(step, block.theta(2)), atol=1e-5, rtol=1e-5)


def test_a_fresh_network_is_a_solver_and_fuses_to_the_mean() -> None:
    """Initially the sparse codes reconstruct their source."""
    torch.manual_seed(0)
    ir, vi = (torch.nn.functional.avg_pool2d(torch.rand(1, 1, 72, 80), 9, 1) for _ in range(2))
    pair = FNetPair()
    with torch.no_grad():
        coded = pair.fnet.net_u(ir)
        inside = (..., slice(12, -12), slice(12, -12))
        given_back = pair.fnet.net_u.first(1).ch_down(coded)
        assert (given_back - ir)[inside].abs().mean() < 0.05
        fused, first, second = pair(ir, vi).split(1, dim=1)
        assert (fused - (ir + vi) / 2)[inside].abs().mean() < 0.05
        assert (first - second)[inside].abs().mean() < 0.05
    assert 0.05 < (coded.abs() > pair.fnet.net_u.theta(4)).float().mean() < 0.95


# Joined convolutions


@pytest.mark.parametrize(
    ("options", "size"), [({}, (12, 16)), *((options, (9, 13)) for options in EVERY_OPTION)], ids=str
)
def test_joined_convolutions_give_the_same_output(options: dict[str, object], size: tuple[int, int]) -> None:
    """In float64, where rounding cannot hide an error; even and odd sizes, borders included."""
    torch.manual_seed(1)
    pair = moved(create("fnet_pair", {"iterations": 2, **options})).double()
    assert isinstance(pair, FNetPair)
    ir, vi = torch.rand(2, 1, 1, *size, dtype=torch.float64)
    answers, gradients = [], []
    for joined in (False, True):
        if joined:
            pair.join_convolutions()
        pair.zero_grad()
        answer = pair(ir, vi)
        (answer * torch.arange(1.0, 4.0)[:, None, None]).square().mean().backward()
        answers.append(answer.detach())
        gradients.append([p.grad.clone() for p in pair.parameters() if p.grad is not None])
    assert answers[0].std() > 0.05
    torch.testing.assert_close(answers[1], answers[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-7, rtol=1e-7)


def test_a_kernel_in_blocks_of_four_is_the_same_convolution() -> None:
    weight, x = torch.randn(3, 2, 9, 9), torch.randn(1, 2, 16, 24)
    expected = torch.nn.functional.conv2d(x, weight, padding=4)
    for block in (2, 4):
        blocks = torch.nn.functional.pixel_unshuffle(x, block)
        given = torch.nn.functional.conv2d(blocks, kernel_in_blocks(weight, block), padding=4 // block)
        torch.testing.assert_close(
            torch.nn.functional.pixel_shuffle(given, block), expected, atol=1e-4, rtol=1e-4
        )


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": "heavy"}, "momentum is 'heavy': expected one of nesterov, none, polyak"),
        ({"thresholding": "hard"}, "thresholding is 'hard': expected one of sigmoidal, soft"),
        ({"block": "ista"}, "block is 'ista': expected one of lcsc, lzsc"),
        ({"iterations": 0}, "iterations is 0: expected a whole number >= 1"),
        ({"gamma": 0.0}, "gamma is 0.0: expected a number > 0"),
        ({"width": 3}, "unknown key 'width'"),
    ],
)
def test_option_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create("fnet", options)


def test_options_change_the_network() -> None:
    def weights(**options: object) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in create("fnet", options).parameters())

    assert weights() == 419_916
    assert weights(momentum="none") == 419_916 - 3 * 2 * 64 * 81 * (
        1 + 1 + 2
    )  # no D', U' in three iterations
    assert weights(shared=True) < 0.4 * weights()
    assert weights(iterations=5) - weights() == weights() - weights(iterations=3)
    assert isinstance(FNet(SparseCoding(block="lcsc")).net_z, LCSC)
    pair = FNetPair(PairOptions(inverse_thresholding="soft"))
    kinds = [m.coding.thresholding for m in (pair.fnet.net_u, pair.ifnet.net_x1)]
    assert kinds == ["sigmoidal", "soft"]


# Losses


def test_stage_one_recovers_both_sources() -> None:
    ir, vi = torch.rand(2, 2, 1, 24, 24)
    objective = RecoveryObjective(FNetRecipe(gradient=0.5))
    rng = np.random.default_rng(0)

    def terms(answer: torch.Tensor) -> dict[str, float]:
        return {k: v.item() for k, v in objective.train(lambda *_: answer, (ir, vi), rng).items()}

    assert set(terms(torch.cat((ir, ir, vi), 1)).values()) == {0.0}
    swapped = terms(torch.cat((ir, vi, ir), 1))
    assert swapped["recovery_ir"] == pytest.approx((ir - vi).abs().mean().item())
    assert swapped["recovery_gradient_ir"] > swapped["recovery_ir"]
    lifted = terms(torch.cat((ir, ir + 0.25, vi), 1))  # a level has no gradient
    assert lifted["recovery_ir"] == pytest.approx(0.25)
    assert lifted["recovery_gradient_ir"] == pytest.approx(0, abs=1e-6)


def test_stage_two_is_eq_26() -> None:
    ir, vi = torch.rand(2, 2, 1, 32, 32)
    vi = 0.5 + 0.01 * vi  # nearly flat: infrared has nearly all the gradient
    loss = FusionLoss(FNetRecipe(stage=2, intensity=20, gradient=20, ssim=15))
    terms = loss(torch.maximum(ir, vi), ir, vi)
    assert list(terms) == ["intensity", "gradient", "ssim"]
    assert terms["intensity"] == 0
    as_ir = loss(ir, ir, vi)
    assert as_ir["ssim"].item() < 15 * 0.05
    assert as_ir["ssim"] < loss(vi, ir, vi)["ssim"]
    assert as_ir["intensity"].item() == pytest.approx(20 * (torch.maximum(ir, vi) - ir).mean().item())
    assert list(FusionLoss(FNetRecipe(stage=2, ssim=0))(ir, ir, vi)) == ["intensity", "gradient"]


def test_gradient_strength_and_ssim() -> None:
    step = torch.zeros(1, 1, 24, 24)
    step[..., 12:] = 1
    assert gradient_strength(step).max() == 4  # of kernels 1-2-1
    x = torch.rand(3, 1, 24, 24)
    torch.testing.assert_close(ssim(x, x), torch.ones(3))
    assert (ssim(x, 1 - x) < 0).all()
    constant = torch.full_like(x, 0.5)  # structure gone, luminance stays: (C2 / (var + C2)) at most
    assert (ssim(constant, x) < 0.05).all()


# Training


def write_recipe(project: Path, name: str, model: str, fnet: str) -> Path:
    path = project / f"{name}.toml"
    path.write_text(STAGE.replace("MODEL", model).replace("FNET", fnet), encoding="utf-8")
    return path


def fnet_words(project: Path, recipe: Path, out: str, *more: object) -> list[str]:
    words = ["fnet", "--recipe", recipe, "--data", project / "data", "--out", project / out, "--threads", 1]
    return [*map(str, [*words, *more])]


def test_both_stages_and_their_checkpoints(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "validation.txt").write_text("c\nd\n", encoding="utf-8")
    one = write_recipe(project, "one", "fnet_pair", "stage = 1")
    two = write_recipe(project, "two", "fnet", "stage = 2\nintensity = 20.0\ngradient = 20.0\nssim = 15.0")
    assert main(fnet_words(project, one, "I")) == 0
    first = project / "I" / "best.safetensors"
    state, metadata = read_checkpoint(first)
    assert metadata.model == "fnet_pair"
    header = (project / "I" / "log.csv").read_text().splitlines()[0]
    assert "validation_recovery_gradient_vi" in header
    with pytest.raises(InputError, match="expected a fusion network"):
        load_model(first)

    assert main(fnet_words(project, two, "II", "--init", first)) == 0
    assert "tiny-fnet: fnet, 2 examples to train on, 1 to validate" in capsys.readouterr().out
    network, metadata = load_model(project / "II" / "best.safetensors")
    assert isinstance(network, FNet)
    assert metadata.options == all_options("fnet", {"iterations": 1})
    begun = {k.removeprefix("fnet."): v for k, v in state.items() if k.startswith("fnet.")}
    distance = max((v - begun[k]).abs().max().item() for k, v in network.state_dict().items())
    assert 0 < distance < 1e-3  # two steps from there, and not from somewhere else

    assert main(fnet_words(project, one, "III", "--init", project / "II" / "best.safetensors")) == 2
    assert "does not fit FNetPair" in capsys.readouterr().err
    assert not (project / "III").exists()


@pytest.mark.parametrize(
    ("model", "fnet", "message"),
    [
        ("fnet", "stage = 1", "stage 1 trains the model 'fnet_pair', got 'fnet'"),
        ("fnet_pair", "stage = 2", "stage 2 trains the model 'fnet', got 'fnet_pair'"),
        ("fnet", "stage = 3", "fnet.stage is 3: expected one of 1, 2"),
        ("fnet_pair", "stage = 1\nssim = 1.0", "'ssim' is a term of stage 2 alone"),
        ("fnet", "stage = 2\nintensity = 0.0\ngradient = 0.0", "every term of the loss has the weight 0"),
        ("fnet", "stage = 2\nbeta = 1.0", "unknown key 'fnet.beta'"),
    ],
)
def test_recipe_errors(
    project: Path, refused: Callable[[list[str]], str], model: str, fnet: str, message: str
) -> None:
    recipe = write_recipe(project, "x", model, fnet)
    assert message in refused(fnet_words(project, recipe, "out"))
    assert not (project / "out").exists()


# The ablations of the paper's section IV-G


def differences(path: Path, ours: Path) -> dict[str, object]:
    """The values of a recipe that differ from those of its stage, as "section.key"."""

    def flat(table: Mapping[str, object]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in table.items():
            found |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        return {k: v for k, v in found.items() if k not in ("name", "data.validation")}

    a, b = (flat(read_toml(p)) for p in (path, ours))
    return {k: a.get(k) for k in {*a, *b} if a.get(k) != b.get(k)}


CODING: dict[str, dict[str, object]] = {
    "ae1": {"network.block": "lcsc"},
    "ae2": {"network.thresholding": "soft"},
    "ae3": {"network.shared": True},
    "ae4": {"network.momentum": "none"},
    "ae5": {"network.momentum": "polyak"},
    "ae6": {"network.momentum": "quasi_hyperbolic"},
    "ae7": {"network.alpha": 0.2, "network.gamma": 50.0},
    "ae8": {"network.alpha": 0.05, "network.gamma": 200.0},
    "ae9": {"network.iterations": 3},
    "ae10": {"network.iterations": 5},
}
LOSSES: dict[str, dict[str, object]] = {
    "ae11": {},  # stage II without --init
    "ae13": {"fnet.intensity": 0.0},
    "ae14": {"fnet.gradient": 0.0},
    "ae15": {"fnet.ssim": 0.0},
}
EXPECTED = {
    **{f"{k}_stage{stage}": v for k, v in CODING.items() for stage in (1, 2)},
    **{f"{k}_stage2": v for k, v in LOSSES.items()},
    "ae12_stage1": {"network.inverse_thresholding": "soft"},
}


def test_every_ablation_has_its_recipes() -> None:
    assert {p.stem for p in ABLATIONS.glob("*.toml")} == EXPECTED.keys()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_ablation_differs_only_in_what_the_paper_removes(name: str) -> None:
    stage = name[-1]
    recipe = load_recipe(ABLATIONS / f"{name}.toml")
    assert differences(ABLATIONS / f"{name}.toml", RECIPES / f"fnet_stage{stage}.toml") == EXPECTED[name]
    assert isinstance(recipe.objective, FNetRecipe)
    assert recipe.objective.stage == int(stage)
    assert recipe.name == f"fnet-{name.replace('_', '-')}"
    with torch.device("meta"):
        create(recipe.model, recipe.network)
