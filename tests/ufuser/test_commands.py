"""The table of commands: their imports, and the former names."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ufuser.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def blocking(*packages: str) -> str:
    """Python code that makes imports of some packages fail, then runs the command line."""
    return (
        "import sys\n"
        f"for name in {packages!r}: sys.modules[name] = None\n"
        "from ufuser.cli import main\n"
        "sys.exit(main())\n"
    )


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_list_of_commands_needs_no_dependency() -> None:
    done = run(blocking("cv2", "numpy", "torch", "onnx", "msgspec"), "--help")
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert re.search(rf"^    {name}\s", done.stdout, re.MULTILINE), name


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_needs_no_training_or_export_package(name: str) -> None:
    done = run(blocking("torch", "onnx"), name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: ufuser {name} ")


@pytest.mark.parametrize("name", ["fuse", "stream", "demo", "calibrate"])
def test_without_opencv_one_line_names_the_extra(name: str) -> None:
    done = run(blocking("cv2"), name, "--help")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'pip install "ufuser[cpu]"' in line
    assert "ufuser doctor" in line


def test_the_extras_exist() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = set(setup["options.extras_require"])
    for name, command in COMMANDS.items():
        assert set(command.extra.split(",")) <= extras, name


@pytest.mark.parametrize(
    "module", ["ufuser.train", "ufuser.benchmarks", "ufuser.export.to_tensorrt"]
)  # fmt: skip
def test_former_names_still_work(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["export", "build", "verify"])
def test_scripts_with_former_names(name: str) -> None:
    code = f"import sys; sys.argv = ['ufuser-{name}', '--help']; from ufuser.cli import {name}; {name}()"
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: ufuser {name} ")
