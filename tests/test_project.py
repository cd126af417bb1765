"""What holds for the project as a whole: its promises, its walls, what it ships."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What each room may import of ours (design: imports only run downwards).
ROOMS = {
    "runtime": set(),
    "simulation": {"runtime"},
    "train": {"runtime"},
    "export": {"train", "runtime"},
    "benchmarks": {"train", "runtime", "export", "simulation"},
}


def imported(path: Path) -> set[str]:
    """Rooms that a file imports anything of, at whatever depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("ufuser.")}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_only_run_downwards(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        ours = imported(path) & set(ROOMS) - {room}
        assert ours <= ROOMS[room], f"{path} imports {ours - ROOMS[room]}"


def test_ci_runs_the_commands_of_the_readme_as_they_stand() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    promised = [line for line in readme if line.startswith("pip install -e ") and " && " in line]
    assert len(promised) == 2
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in script if line.startswith("pip install")] == promised


def test_shipped_weights_stay_under_40_mb() -> None:
    weights = [*ROOT.glob("runtime/weights/*"), *ROOT.glob("train/weights/*")]
    assert {p.suffix for p in weights} == {".onnx", ".safetensors"}
    assert sum(p.stat().st_size for p in weights) < 40e6


def test_the_shipped_model_was_made_from_the_shipped_checkpoint() -> None:
    import hashlib

    import onnx

    notes = {p.key: p.value for p in onnx.load(ROOT / "runtime/weights/ufuser.onnx").metadata_props}
    checkpoint = (ROOT / "train/weights/ufuser.safetensors").read_bytes()
    assert notes["checkpoint_sha256"] == hashlib.sha256(checkpoint).hexdigest()


def test_no_machine_path_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".cfg", ".sh"} and path.is_file():
            assert f"{ROOT}/" not in path.read_text(encoding="utf-8"), name
