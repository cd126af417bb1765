"""The table of commands: their imports, and the former names."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ufuser.cli import COMMANDS, main

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


ALL_HELP = """
import contextlib, io, sys
sys.modules[sys.argv[1]] = None
from ufuser.benchmarks.__main__ import COMMANDS as BENCH
from ufuser.cli import COMMANDS, main
for words in [[name] for name in COMMANDS] + [["bench", name] for name in BENCH]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([*words, "--help"])
        except SystemExit:
            pass
    if not out.getvalue().startswith(f"usage: ufuser {' '.join(words)} "):
        print(*words, err.getvalue())
"""


@pytest.mark.parametrize(
    "package",
    [
        "torch",
        "onnx",
        "onnxruntime",
        "openvino",
        "av",
        "scipy",
        "matplotlib",
        "jinja2",
        "tqdm",
        "safetensors",
    ],
)
def test_every_help_needs_no_extra(package: str) -> None:
    done = run(ALL_HELP, package)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("torch", "train direct --recipe ufuser_direct --data d --out o", "train"),
        ("safetensors", "train direct --recipe ufuser_direct --data d --out o", "train"),
        ("tqdm", "train direct --recipe ufuser_direct --data d --out o", "train"),
        ("matplotlib", "train direct --recipe ufuser_direct --data d --out o", "train"),
        ("onnx", "bench cost", "bench"),
        ("onnx", "bench latency --json o.json", "bench"),
        ("onnx", "bench peak", "bench"),
        ("onnx", "bench rounds lite ufuser", "bench"),
        ("torch", "bench islands x.safetensors --pairs d", "bench"),
        ("matplotlib", "bench report --results r.json --out o", "bench"),
        ("jinja2", "bench report --results r.json --out o", "bench"),
    ],
)
def test_a_missing_extra_is_named_when_it_is_needed(
    tmp_path: Path, package: str, words: str, extra: str
) -> None:
    (measured,) = (ROOT / "docs" / "benchmarks").glob("*/cost.json")
    shutil.copy(measured, tmp_path / "r.json")
    done = subprocess.run(
        [sys.executable, "-c", blocking(package), *words.split()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert f'pip install "ufuser[{extra}]"' in line


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


@pytest.mark.parametrize(
    "words",
    ["bench compare a.json b.json", "fuse --ir a --vi b --out c", "calibrate offset --ir a --vi b"],
)
def test_an_unknown_option_names_the_help_of_its_command(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words.split(), "--limit", "3"])
    assert ended.value.code == 2
    command = " ".join(words.split()[: 1 if words.startswith("fuse") else 2])
    assert (
        capsys.readouterr().err == f"error: unrecognized arguments: --limit 3 (see ufuser {command} --help)\n"
    )
