"""`ufuser bench islands`: which parts need float32."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.islands import extremes, findings
from ufuser.export.tolerances import PSNR_FLOOR
from ufuser.train.checkpoint import save_checkpoint
from ufuser.train.models import create
from ufuser.train.models.daefuse import DAEFuse, DAEFuseOptions, DepthwiseAttention


def test_the_error_without_an_island_is_found() -> None:
    """DAE-Fuse's sums over a picture overflow without theirs.

    Queries and keys are 40 times as large, which their norms cancel: it stands for a larger picture.
    """
    torch.manual_seed(11)
    network = (
        DAEFuse(DAEFuseOptions(width=16, heads=4, vit_dim=16, vit_blocks=1, vit_heads=4))
        .eval()
        .requires_grad_(False)
    )
    for module in network.modules():
        if isinstance(module, DepthwiseAttention):
            module.qkv_dw.weight[: 2 * module.proj.weight.shape[0]] *= 80
    samples = [s for s in extremes(64, 64) if s.name == "noise"]
    found = {f.change: f.difference.psnr_db for f in findings(network, samples)}
    assert found["as it is"] >= PSNR_FLOOR["fp16"]
    assert not found["without DepthwiseGramAttention"] >= PSNR_FLOOR["fp16"]
    assert found["with CellAttention"] < found["as it is"] + 3, "no island is missing there"
    assert {"without Standardise", "without Sigmoid"} <= set(found)


@pytest.mark.parametrize(
    ("model", "options", "parts"),
    [
        ("lite", {}, {"with FullMaps (1)", "with Mixing (1)", "without SubtractedStatistic (1)"}),
        ("fnet", {"iterations": 1}, {"with SigmoidalThreshold (6)", "without the last sum (1)"}),
    ],
)
def test_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, options: dict[str, int], parts: set[str]
) -> None:
    """Also for parts with several maps in or out."""
    torch.manual_seed(0)
    checkpoint = tmp_path / "x.safetensors"
    save_checkpoint(checkpoint, create(model, options).state_dict(), model, "", {"step": 1}, options)
    for side in ("ir", "vi"):
        (tmp_path / side).mkdir()
        picture = np.random.default_rng(len(side)).integers(0, 256, (24, 40), np.uint8)
        cv2.imwrite(str(tmp_path / side / "a.png"), picture)
    words = ["islands", str(checkpoint), "--pairs", str(tmp_path), "--crop", "16x32", "--extremes", "16x24"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("worst picture against fp32" in line for line in lines) == 2, "pairs and extremes"
    assert parts <= {line.split("  ")[-1] for line in lines}
