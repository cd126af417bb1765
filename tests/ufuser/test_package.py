"""One import package: files in a user's folder do not shadow it, and nothing else is installed."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ufuser

ROOT = Path(__file__).resolve().parents[2]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
PACKAGES = SETUP["options"]["packages"].split()
FOLDERS = dict(line.split(" = ") for line in SETUP["options"]["package_dir"].strip().splitlines()
               if not line.startswith("#"))  # fmt: skip


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with modules and packages named like folders and modules of this toolkit."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("runtime", "export", "benchmarks", "simulation"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the user')\n")
    for name in ("train", "runtime", "cli", "errors"):
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name}.py of the user')\n")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "ufuser", "--help"],
        ["-m", "ufuser", "doctor"],
        ["-c", "from ufuser import Fuser, InputError, stream; print(Fuser.open)"],
        ["-m", "ufuser.train", "--help"],
        ["-m", "ufuser.benchmarks", "--help"],
    ],
    ids=lambda words: " ".join(words)[:24],
)
def test_files_of_the_user_do_not_shadow_the_package(users_folder: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *words], cwd=users_folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "of the user" not in done.stdout + done.stderr


def test_every_package_of_the_checkout_is_listed() -> None:
    found = set()
    for name, folder in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join([name, *inside]))
    assert found == set(PACKAGES)


def test_the_wheel_holds_one_package_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-q",
            "-w",
            tmp_path,
            source,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named pip" in done.stderr:
        pytest.skip("no pip in this environment")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"ufuser", f"ufuser-{ufuser.__version__}.dist-info"}
    for package in PACKAGES:
        assert f"{package.replace('.', '/')}/__init__.py" in names, package
    for data in ("ufuser/py.typed", "ufuser/runtime/weights/lite.onnx", "ufuser/runtime/web/page.html"):
        assert data in names
    for recipe in (ROOT / "train" / "recipes").rglob("*.*"):  # for `ufuser train --recipe NAME`
        assert f"ufuser/train/recipes/{recipe.relative_to(ROOT / 'train' / 'recipes').as_posix()}" in names
    for weights in (ROOT / "train" / "weights").iterdir():  # for `ufuser train distill --teacher`
        assert f"ufuser/train/weights/{weights.name}" in names


def test_public_names() -> None:
    assert dir(ufuser) == ["Fuser", "InputError", "__version__", "stream"]
    assert ufuser.Fuser.__module__ == "ufuser.runtime.fuser"
    assert callable(ufuser.stream)
    assert issubclass(ufuser.InputError, ValueError)
    assert ufuser.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'fuse'"):
        _ = ufuser.fuse
