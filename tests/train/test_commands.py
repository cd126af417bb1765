"""The three stages of EMMA through the command line, and resuming them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch

from ufuser.train.__main__ import main
from ufuser.train.checkpoint import load_sensing, read_checkpoint, save_checkpoint
from ufuser.train.models import create
from ufuser.train.models.ufuser import UFuser
from ufuser.train.recipe import load_recipe
from ufuser.train.trainer import Trainer

Words = Callable[..., list[str]]
Losses = Callable[[Path], list[dict[str, str]]]
Refused = Callable[[list[str]], str]
SENSING = """
name = "tiny-sensing"
model = "pseudo_sensing"
seed = 4
validate_every = 2

[network]
width = 2

[sensing]
target = "TARGET"
loss = "l1"

[data]
validation = "validation.txt"
crop = 16
shared_jitter = true
gamma = [0.8, 1.25]
margin = 2

[optim]
steps = 4
batch = 2
warmup = 1
"""


def sensing(project: Path, target: str, *more: object) -> list[str]:
    recipe = project / f"sensing_{target}.toml"
    recipe.write_text(SENSING.replace("TARGET", target), encoding="utf-8")
    words = ["sensing", "--recipe", recipe, "--data", project / "data", "--out", project / target]
    return [*map(str, [*words, *more])]


def test_all_three_stages_from_two_folders_of_images(
    emma_project: Path, emma_words: Words, losses: Losses, capsys: pytest.CaptureFixture[str]
) -> None:
    project = emma_project
    (project / "A_i.safetensors").unlink()
    (project / "A_v.safetensors").unlink()

    assert main([*sensing(project, "ir"), "--threads", "1"]) == 0  # with all built-in fusers
    said = capsys.readouterr().out
    fused = project / "data" / "vi"  # anything named like the pairs will do; beside it, one fuser
    assert main(sensing(project, "vi", "--pseudo", fused, "mean")) == 0
    assert "pseudo ground truth for 'ir': laplacian, wavelet, guided, mean" in said
    assert "tiny-sensing: pseudo_sensing, 12 examples to train on, 1 to validate" in said  # 3 pairs, 4 fusers
    assert sorted(p.name for p in (project / "ir" / "pseudo").iterdir()) == [
        "guided",
        "laplacian",
        "mean",
        "wavelet",
    ]
    notes = read_checkpoint(project / "vi" / "best.safetensors")[1].notes
    assert notes["target"] == "vi"
    assert notes["pseudo"] == ["data/vi", "mean"]
    for target in ("ir", "vi"):
        assert not load_sensing(project / target / "best.safetensors", target).training
        (project / target / "best.safetensors").rename(project / f"A_{target[0]}.safetensors")
        rows = losses(project / target)
        assert [row["step"] for row in rows] == ["2", "4"]
        assert rows[0].keys() == {"step", "train", "validation", "train_l1", "validation_l1"}

    assert main(emma_words(project, project / "out")) == 0
    assert "tiny-emma: ufuser, 3 examples to train on, 1 to validate" in capsys.readouterr().out
    state, metadata = read_checkpoint(project / "out" / "best.safetensors")
    expected = create("ufuser", load_recipe(project / "emma.toml").network).state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}
    assert metadata.recipe == (project / "emma.toml").read_text(encoding="utf-8")
    assert {"sensing_ir", "sensing_vi", "pairs"} <= metadata.notes.keys()
    rows = losses(project / "out")
    assert {"train_sensing_ir", "train_sensing_vi", "train_equivariance"} <= rows[0].keys()
    shown = cv2.imread(str(project / "out" / "panel.png"), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    assert shown.shape[1] == 5 * 400  # infrared, visible, fused, A_i f, A_v f


def test_emma_interrupted_and_resumed_is_the_unbroken_run(
    emma_runs: Path, emma_words: Words, losses: Losses, tmp_path: Path
) -> None:
    out = tmp_path / "resumed"
    shutil.copytree(emma_runs / "half", out)
    assert main(emma_words(emma_runs, out, "--resume", "--init", emma_runs / "start.safetensors")) == 0
    assert losses(out) == losses(emma_runs / "one")
    ends = [torch.load(k / "last.pt", weights_only=True)["model"] for k in (out, emma_runs / "one")]
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


def test_a_run_resumes_only_with_its_original_inputs(
    emma_runs: Path,
    emma_words: Words,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Trainer, "_train_step", lambda _: pytest.fail("training went on"))
    out, start, other = tmp_path / "out", emma_runs / "start.safetensors", tmp_path / "other.safetensors"
    shutil.copytree(emma_runs / "one", out)
    notes = read_checkpoint(out / "best.safetensors")[1].notes
    assert len(notes["init"]) == 64  # its digest
    again = emma_words(emma_runs, out, "--resume", "--init", start)
    assert main(again) == 0  # all steps are done: nothing to do, and nothing to complain of

    without = refused(emma_words(emma_runs, out, "--resume"))
    assert "trained with another --init: resume with the same" in without
    for name, key in (("start", "--init"), ("A_v", "--sensing-vi")):
        state, metadata = read_checkpoint(emma_runs / f"{name}.safetensors")
        state = {k: v + 1 for k, v in state.items()}
        save_checkpoint(other, state, metadata.model, "", metadata.notes, metadata.options)
        assert f"trained with another {key}: resume" in refused([*again, key, str(other)])


def test_a_run_does_not_resume_with_other_pairs(
    project: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "direct",
        "--recipe",
        project / "tiny.toml",
        "--data",
        project / "data",
        "--out",
        project / "out",
    ]
    direct = [*map(str, words), "--threads", "1"]
    text = (project / "tiny.toml").read_text(encoding="utf-8")
    (project / "tiny.toml").write_text(text.replace("steps = 6", "steps = 1"), encoding="utf-8")
    assert main(direct) == 0
    monkeypatch.setattr(Trainer, "_train_step", lambda _: pytest.fail("training went on"))
    assert main([*direct, "--resume"]) == 0
    for side in ("ir", "vi"):
        (project / "data" / side / "a.png").rename(project / "data" / side / "e.png")
    said = refused([*direct, "--resume"])
    assert "was trained with another set of pairs (--data): resume with the same" in said
    for side in ("ir", "vi"):
        (project / "data" / side / "e.png").rename(project / "data" / side / "a.png")
    (project / "validation.txt").write_text("c\n", encoding="utf-8")  # the same pairs, split otherwise
    assert "another set of pairs" in refused([*direct, "--resume"])


def test_swapped_missing_and_foreign_sensing_modules_are_refused(
    emma_project: Path, emma_words: Words, refused: Refused
) -> None:
    project = emma_project
    ir, vi = project / "A_i.safetensors", project / "A_v.safetensors"
    swapped = refused(emma_words(project, project / "out", "--sensing-ir", vi, "--sensing-vi", ir))
    assert f"{vi} was trained to sense 'vi', expected 'ir'" in swapped
    alone = emma_words(project, project / "out")
    del alone[alone.index("--sensing-vi") : alone.index("--sensing-vi") + 2]
    assert "expected both --sensing-ir and --sensing-vi, or neither" in refused(alone)
    del alone[alone.index("--sensing-ir") : alone.index("--sensing-ir") + 2]
    assert "expected --sensing-ir A_i.safetensors" in refused(alone)
    save_checkpoint(project / "f.safetensors", UFuser().state_dict(), "ufuser", "", {})
    said = refused(emma_words(project, project / "out", "--sensing-ir", project / "f.safetensors"))
    assert "holds the model 'ufuser', expected a sensing network: pseudo_sensing" in said
    assert not (project / "out").exists()


def test_a_recipe_of_another_objective_and_a_crop_that_does_not_fit(
    emma_project: Path, emma_words: Words, refused: Refused
) -> None:
    project = emma_project
    words = sensing(project, "ir")
    as_direct = ["direct", *words[1:]]
    assert "sensing_ir.toml is for `ufuser train sensing`, got `ufuser train direct`" in refused(as_direct)
    words[words.index("--recipe") + 1] = str(project / "emma.toml")
    assert "emma.toml is for `ufuser train emma`, got" in refused(words)
    recipe = project / "sensing_vi.toml"
    words = sensing(project, "vi")
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("crop = 16", "crop = 24"), encoding="utf-8")
    assert "'crop' must be a multiple of 16 for pseudo_sensing, got 24" in refused(words)
    assert not (project / "ir").exists()


def test_without_pytorch_there_is_help_and_one_line_for_the_rest() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'safetensors', 'cv2']))\n"
        "from ufuser.train.__main__ import main\n"
        "sys.exit(main(sys.argv[1:], prog='ufuser train'))"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    for words in (["--help"], ["distill", "--help"]):
        done = run(*words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: ufuser train")
    done = run("direct", "--recipe", "x.toml", "--data", "d", "--out", "o")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert 'pip install "ufuser[train]"' in done.stderr
