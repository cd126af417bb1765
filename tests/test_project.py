"""What holds for the project as a whole: its promises, its walls, what it ships."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What each room may import of ours: imports only run downwards. docs/architecture.md shows the same as a diagram.
ROOMS: dict[str, set[str]] = {
    "runtime": set(),
    "simulation": {"runtime"},
    "train": {"runtime"},
    "export": {"train", "runtime"},
    "benchmarks": {"train", "runtime", "export", "simulation"},
    "ufuser": {"benchmarks", "export", "runtime", "train"},
}

ENTRY_POINTS = ("ufuser.sources", "ufuser.sinks")
"""Groups of entry points, which look like modules."""


def imported(path: Path) -> set[str]:
    """Rooms that a file imports anything of, at whatever depth, or names as a module to import later."""
    folders = path.relative_to(ROOT).parts[:-1]
    package = list(folders) if folders[0] == "ufuser" else ["ufuser", *folders]
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and node.value in ENTRY_POINTS:
            continue
        elif isinstance(node, ast.Constant) and re.fullmatch(r"ufuser(\.\w+)+(:\w+)?", str(node.value)):
            names.append(str(node.value))
    parts = [re.split("[.:]", name) for name in names]
    return {p[1] if p[1:] and p[1] in ROOMS else "ufuser" for p in parts if p[0] == "ufuser"}


def files(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


def imported_on_import(path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules of ours that a module imports outside of functions, also those for type checkers only."""
    folders = path.relative_to(ROOT).parent.parts
    package = list(folders if folders[0] == "ufuser" else ("ufuser", *folders))
    names: list[str] = []
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        for node in ast.iter_child_nodes(pending.pop()):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, *filter(None, [node.module])])
                for name in (f"{module}.{alias.name}" for alias in node.names):
                    names.append(name if name in modules else module)
            elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                pending.append(node)
    return set(names) & set(modules)


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {}
    for path in (path for room in ROOMS for path in files(room)):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts if parts[0] == "ufuser" else ("ufuser", *parts)
        modules[".".join(parts).removesuffix(".__init__")] = path
    left = {name: imported_on_import(path, modules) - {name} for name, path in modules.items()}
    while True:  # take away what imports nothing that is left
        free = {name for name, needed in left.items() if not needed & left.keys()}
        if not free:
            break
        left = {name: needed for name, needed in left.items() if name not in free}
    assert not left, f"a circle among {', '.join(sorted(left))}"


@pytest.mark.parametrize("room", ROOMS)
def test_imports_only_run_downwards(room: str) -> None:
    for path in files(room):
        ours = imported(path) - {room}
        assert ours <= ROOMS[room], f"{path} imports {ours - ROOMS[room]}"


def test_relative_imports_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    module = tmp_path / "train/objectives/direct.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "from ...export import fidelity\nfrom ..losses import x\nfrom . import y\n", encoding="utf-8"
    )
    assert imported(module) == {"export", "train"}


def test_every_allowed_import_is_used() -> None:
    for room, allowed in ROOMS.items():
        used = set().union(*(imported(path) for path in files(room)))
        assert allowed <= used, f"no file of {room} imports {allowed - used}"


def test_the_diagram_shows_the_allowed_imports() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    drawn = set(re.findall(r"^ +(\w+) --> (\w+)$", page, re.MULTILINE))
    assert drawn == {(room, other) for room, allowed in ROOMS.items() for other in allowed}


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
