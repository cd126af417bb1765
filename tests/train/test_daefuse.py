"""DAE-Fuse: the network at any size, its losses, and both phases through the trainer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ufuser.runtime.errors import InputError
from ufuser.train.__main__ import main
from ufuser.train.checkpoint import load_model, read_checkpoint
from ufuser.train.journal import curve
from ufuser.train.models import create
from ufuser.train.models.daefuse import (
    GRID,
    DAEFuse,
    DAEFuseOptions,
    GridAttention,
    Reconstruction,
    cell_means,
)
from ufuser.train.models.discriminator import DiscriminativeBlock
from ufuser.train.objectives.daefuse import (
    AdversarialFusionObjective,
    AutoencoderObjective,
    Discriminators,
    correlation,
    decomposition,
    objective_of,
    structural_similarity,
    texture_loss,
)
from ufuser.train.processes import SINGLE, Processes
from ufuser.train.recipe import load_recipe
from ufuser.train.sections import DaeFuseRecipe

CPU = torch.device("cpu")
SMALL = DAEFuseOptions(width=8, heads=2, vit_dim=8, vit_blocks=1, vit_heads=2)
RECIPE = """
name = "tiny-daefuse"
model = "daefuse"
seed = 4
validate_every = 2

[network]
width = 8
heads = 2
vit_dim = 8
vit_blocks = 1
vit_heads = 2

[data]
validation = "validation.txt"
crop = 16
gain = [0.6, 1.3]

[daefuse]
discriminator_width = 4
discriminator_rate = 1e-3
{daefuse}

[optim]
steps = 4
batch = 2
warmup = 1
"""
PHASES = {
    1: "phase = 1\nadversarial = 0.1\ncorrelation = 0.2",
    2: "phase = 2\nadversarial = 0.1\ntexture = 1.0\nintensity = 1.0",
}


def small(seed: int = 0) -> DAEFuse:
    torch.manual_seed(seed)
    return DAEFuse(SMALL).eval().requires_grad_(False)


def pictures(size: tuple[int, int], count: int = 2, batch: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand((batch, 1, *size), generator=generator) for _ in range(count)]


@pytest.mark.parametrize("size", [(16, 16), (16, 72), (40, 24), (96, 128)])
def test_any_multiple_of_eight_fuses_and_reconstructs(size: tuple[int, int]) -> None:
    model = small()
    ir, vi = pictures(size, batch=2)
    fused, alone = model(ir, vi), model(ir)
    for picture in (fused, alone):
        assert picture.shape == ir.shape
        assert 0 < picture.min() < picture.max() < 1
    assert torch.equal(alone, model.reconstruct(ir).picture)
    for k in range(2):  # no picture of a batch sees another
        assert torch.allclose(model(ir[k : k + 1], vi[k : k + 1]), fused[k : k + 1], atol=1e-5)


def test_fusion_is_initially_the_decoded_mean_of_both_embeddings() -> None:
    """The decoder of phase one can decode it: fusing a picture with itself reconstructs it."""
    model = small()
    ir, vi = pictures((24, 32))
    assert torch.allclose(model(ir, ir), model(ir), atol=1e-6)
    mean = torch.stack([torch.cat(model.encode(x), dim=1) for x in (ir, vi)]).mean(0)
    assert torch.allclose(model(ir, vi), model.decoder(mean), atol=1e-6)


def test_the_cross_attention_has_long_range_and_distinguishes_the_modalities() -> None:
    model = small()
    with torch.no_grad():
        for attention in (model.fusion.a_to_b, model.fusion.b_to_a):
            nn.init.normal_(attention.proj.weight, std=0.5)
    ir, vi = pictures((32, 96))
    changed = vi.clone()
    changed[..., 80:] = 1 - changed[..., 80:]
    a, b = torch.cat(model.encode(ir), 1), torch.cat(model.encode(vi), 1)
    c = torch.cat(model.encode(changed), 1)
    shift = (model.fusion(a, b) - model.fusion(a, c)).abs().amax(dim=(0, 1, 2))
    assert shift[:8].max() > 1e-5  # 16 pixels at the left feel the right end of the other picture
    assert (model(ir, vi) - model(vi, ir)).abs().max() > 1e-3


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 40), (5, 3), (13, 60)])
def test_cell_means_are_area_means_at_any_size(height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width)
    expected = F.adaptive_avg_pool2d(  # each position enlarged so that cells cut none
        x.repeat_interleave(GRID, 2).repeat_interleave(GRID, 3), GRID
    )
    assert torch.allclose(cell_means(x, GRID), expected.flatten(2), atol=1e-5)


def test_grid_attention_is_attention_where_every_cell_is_one_position() -> None:
    """At 8×8 positions nothing is pooled: PyTorch's own attention must give the same."""
    torch.manual_seed(1)
    attention = GridAttention(8, 2).eval().requires_grad_(False)
    x, y = torch.rand(2, 8, GRID, GRID), torch.rand(2, 8, GRID, GRID)

    def heads(t: Tensor) -> Tensor:
        return t.reshape(2, 2, 4, GRID * GRID).transpose(2, 3)

    flat = y.flatten(2)
    q, k, v = heads(attention.query(x)), heads(attention.key(flat)), heads(attention.value(flat))
    expected = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
    assert torch.allclose(attention(x, y), attention.proj(expected), atol=1e-5)


def test_the_cost_is_proportional_to_the_number_of_pixels() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    def macs(height: int, width: int) -> float:
        x = torch.empty(1, 1, height, width, device="meta")
        with FlopCounterMode(display=False) as counter:
            DAEFuse().to("meta")(x, x.clone())
        return float(counter.get_total_flops()) / 2 / (height * width)

    assert macs(480, 640) * 480 * 640 < 13e9
    assert macs(960, 1280) <= 1.01 * macs(480, 640)


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"width": 30, "heads": 4}, {"vit_dim": 30}, {"residual_blocks": 0}]
)
def test_impossible_sizes_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r">= 1|must divide"):
        create("daefuse", options)


def test_correlation_and_decomposition_against_numpy() -> None:
    maps = [torch.rand(2, 3, 5, 4) for _ in range(4)]

    def mean_coefficient(x: Tensor, y: Tensor) -> float:
        pairs = zip(x.reshape(6, -1).numpy(), y.reshape(6, -1).numpy(), strict=True)
        return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]))

    assert correlation(maps[0], maps[1]).item() == pytest.approx(mean_coefficient(*maps[:2]), abs=1e-4)
    nothing = torch.zeros(1, 1, 1, 1)
    a, b = (Reconstruction(nothing, high, low) for high, low in (maps[:2], maps[2:]))
    expected = mean_coefficient(maps[0], maps[2]) ** 2 / (mean_coefficient(maps[1], maps[3]) + 1.01)
    assert decomposition(a, b).item() == pytest.approx(expected, abs=1e-4)
    assert torch.isfinite(correlation(torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)))


def test_structural_similarity_against_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    x, y = pictures((24, 31))
    y = 0.6 * x + 0.4 * y
    _, full = metrics.structural_similarity(
        x[0, 0].numpy(), y[0, 0].numpy(), data_range=1.0, use_sample_covariance=False, full=True
    )
    assert structural_similarity(x, y).item() == pytest.approx(float(full[3:-3, 3:-3].mean()), abs=1e-4)
    assert structural_similarity(x, x).item() == pytest.approx(1.0, abs=1e-5)


def test_texture_targets_the_stronger_gradient() -> None:
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1
    flat = torch.zeros_like(step)
    assert texture_loss(step, step, flat).item() == 0
    assert texture_loss(1 - step, flat, step).item() == 0  # Eq. (15) compares strengths, not signs
    # A Sobel kernel gives a unit step 4, in the two columns beside it.
    assert texture_loss(flat, step, flat).item() == pytest.approx(4 * 2 / 8)


def test_a_discriminative_block_takes_patches_of_any_size() -> None:
    block = DiscriminativeBlock(4).eval()
    for size in ((16, 16), (40, 72)):
        assert block(torch.rand(3, 1, *size)).shape == (3,)


def test_discriminators_learn_to_discriminate() -> None:
    torch.manual_seed(0)
    pair = Discriminators(DaeFuseRecipe(discriminator_rate=1e-2, discriminator_width=4), CPU)
    noise, flat = torch.rand(4, 1, 16, 16), torch.full((4, 1, 16, 16), 0.5)
    losses = [pair.step((noise, noise), (flat, flat)).item() for _ in range(15)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(z.mean() < 0 for z in pair.logits((noise, noise), (flat, flat)))
    assert all(z.mean() > 0 for z in pair.logits((flat, flat), (noise, noise)))


@pytest.mark.parametrize("phase", [1, 2])
def test_the_adversarial_term_deceives_and_its_gradient_does_not_reach_the_discriminators(phase: int) -> None:
    """A gradient step on this term raises the discriminators' logits of generated pictures."""
    torch.manual_seed(2)
    model = DAEFuse(SMALL).train()
    recipe = DaeFuseRecipe(phase=phase, adversarial=1.0, discriminator_rate=1e-3, discriminator_width=4)
    objective = objective_of(recipe, CPU, SINGLE)
    ir, vi = pictures((16, 16), batch=4)
    rng = np.random.default_rng(0)
    terms = objective.train(model, [ir, vi], rng)
    assert not terms["discriminators"].requires_grad
    terms["adversarial"].backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.decoder.parameters())

    def verdict() -> float:
        made = (model(ir), model(vi)) if phase == 1 else (model(ir, vi),) * 2
        with torch.no_grad():
            return sum(z.mean().item() for z in objective._discriminators.logits((ir, vi), made))

    before = verdict()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.sub_(0.02 * p.grad / p.grad.norm().clamp_min(1e-9))
    assert verdict() > before


def test_several_processes_and_foreign_networks_are_refused() -> None:
    with pytest.raises(InputError, match="trains in one process, got 2"):
        objective_of(DaeFuseRecipe(), CPU, Processes(0, 2))
    ir, vi = pictures((16, 16))
    objective = AutoencoderObjective(DaeFuseRecipe(), CPU)
    with pytest.raises(InputError, match="one process and in fp32"):
        objective.train(lambda *x: x[0], [ir, vi], np.random.default_rng(0))
    assert isinstance(objective_of(DaeFuseRecipe(phase=2), CPU, SINGLE), AdversarialFusionObjective)


@pytest.mark.parametrize(
    ("phase", "change", "message"),
    [
        (1, ("adversarial = 0.1", "texture = 1.0"), "'texture' and 'intensity' belong to phase 2"),
        (2, ("texture = 1.0", "correlation = 0.1"), "'correlation' belongs to phase 1"),
        (2, ("texture = 1.0\nintensity = 1.0", ""), "neither 'texture' nor 'intensity'"),
        (1, ("phase = 1", "phase = 3"), "daefuse.phase is 3: expected one of 1, 2"),
        (1, ("correlation = 0.2", "correlation = 1.2"), "daefuse.correlation is 1.2: expected a number <= 1"),
        (1, ('model = "daefuse"', 'model = "ufuser"'), "trains the model 'daefuse', got 'ufuser'"),
        (1, ("[optim]", '[optim]\nprecision = "bf16"'), "'precision' must be fp32, got 'bf16'"),
        (1, ("[optim]", "[emma]\n[optim]"), r"has \[emma\] and \[daefuse\]"),
    ],
)
def test_recipe_errors(tmp_path: Path, phase: int, change: tuple[str, str], message: str) -> None:
    text = RECIPE.format(daefuse=PHASES[phase])
    assert change[0] in text
    (tmp_path / "r.toml").write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_recipe(tmp_path / "r.toml")


def words(project: Path, out: str, recipe: str, *more: str) -> list[str]:
    options = ["--recipe", str(project / recipe), "--data", str(project / "data"), "--threads", "1"]
    return ["daefuse", *options, "--out", str(project / out), *more]


def test_both_phases_train_and_resume_bit_for_bit(
    project: Path,
    losses: Callable[[Path], list[dict[str, str]]],
    ctrl_c_before: Callable[[int], AbstractContextManager[None]],
) -> None:
    for phase, text in PHASES.items():
        (project / f"{phase}.toml").write_text(RECIPE.format(daefuse=text), encoding="utf-8")
    start: list[str] = []
    for phase in PHASES:
        assert main(words(project, f"whole{phase}", f"{phase}.toml", *start)) == 0
        with ctrl_c_before(3):
            assert main(words(project, f"half{phase}", f"{phase}.toml", *start)) == 130
        assert main(words(project, f"half{phase}", f"{phase}.toml", *start, "--resume")) == 0
        whole, half = project / f"whole{phase}", project / f"half{phase}"
        assert losses(whole) == losses(half)
        states = [torch.load(folder / "last.pt", weights_only=True) for folder in (whole, half)]
        for kept in ("blocks", "optimizer"):
            one, other = (_tensors(state["objective"][kept]) for state in states)
            assert len(one) > 10
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        start = ["--init", str(whole / "best.safetensors")]

        # The discriminators stay behind: what is kept is the network alone.
        names = set(read_checkpoint(whole / "best.safetensors")[0])
        assert names == set(DAEFuse(SMALL).state_dict())
        load_model(whole / "best.safetensors", "daefuse")
    rows = losses(project / "whole1") + losses(project / "whole2")
    assert {"train_content", "train_correlation", "train_adversarial", "train_discriminators"} <= rows[
        0
    ].keys()
    assert {"train_texture", "train_intensity", "validation_texture"} <= rows[-1].keys()
    for row in rows:
        parts = [float(v) for k, v in row.items() if k.startswith("train_")]
        assert sum(parts) == pytest.approx(float(row["train"]), abs=1e-5)


def _tensors(state: object) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return [t for value in values for t in _tensors(value)]


def test_a_recipe_of_another_objective_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(project, "out", "tiny.toml")) == 2
    assert "is for `ufuser train direct`, got `ufuser train daefuse`" in capsys.readouterr().err


def test_the_curve_shows_terms_that_only_training_has() -> None:
    row: dict[str, float | None] = {"step": 2.0, "train": 1.0, "validation": 0.4}
    row |= {"train_content": 0.5, "validation_content": 0.4, "seconds_per_step": 0.1}
    logs = [
        [row, {**row, "step": 4.0}],
        [{**row, "train_adversarial": 0.5}, {**row, "step": 4.0, "train_adversarial": 0.1}],
    ]
    drawn = [cv2.imdecode(np.frombuffer(curve(log, "x"), np.uint8), cv2.IMREAD_COLOR) for log in logs]
    second = (14, 127, 255)  # matplotlib's second colour, blue first
    columns = [
        int((image[:, 600:].reshape(-1, 3) == second).all(1).sum()) for image in drawn if image is not None
    ]
    assert columns[0] == 0
    assert columns[1] > 20
