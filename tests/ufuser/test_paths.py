"""Every path that any command takes: bad ones end in one line, and no output destroys an input.

The options are found by walking the parsers, so that a new one is tested, or named here as no path.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ufuser.benchmarks import results
from ufuser.cli import get_parser
from ufuser.runtime.alignment import Calibration
from ufuser.runtime.frame import Frame
from ufuser.runtime.sinks import VideoSink

Command = Callable[..., SimpleNamespace]
ROOT = Path(__file__).resolve().parents[2]
TRAINING = "--recipe recipe.toml --data data --out run --validation list.txt --init"
LINES = {
    "fuse": "--ir ir.png --vi vi.png --out out.png --model max.onnx",
    "stream": "--ir ir.mp4 --vi vi.mp4 --out out.mkv --model max.onnx --calibration pair.json --report out.json "
    "--config stream.toml",
    "demo": "--out demo --frames 1 --model max.onnx",
    "calibrate points": "--out out.json --points points.csv --start pair.json --ir ir.png --vi vi.png",
    "calibrate board": "--out out.json --ir data/ir --vi data/vi --board 9x6 --spacing 1",
    "calibrate refine": "--out out.json --ir data/ir --vi data/vi --start pair.json",
    "calibrate check": "--out out.png --ir data/ir --vi data/vi --calibration pair.json",
    "calibrate offset": "--out out.json --ir ir.mp4 --vi vi.mp4 --calibration pair.json",
    "doctor": "",
    "explain": "--ir ir.png --vi vi.png --out parts --model max.onnx",
    "train import": "release.pth --out out.safetensors",
    "train average": "ufuser.safetensors ufuser.safetensors --out out.safetensors",
    "train direct": f"{TRAINING} ufuser.safetensors",
    "train sensing": f"{TRAINING} sensing_ir.safetensors --pseudo data/ir",
    "train emma": f"{TRAINING} ufuser.safetensors --sensing-ir sensing_ir.safetensors --sensing-vi "
    "sensing_vi.safetensors",
    "train distill": f"{TRAINING} lite.safetensors --teacher ufuser.safetensors --teacher-pictures taught "
    "--sensing-ir sensing_ir.safetensors --sensing-vi sensing_vi.safetensors",
    "train daefuse": f"{TRAINING} ufuser.safetensors",
    "train fnet": f"{TRAINING} ufuser.safetensors",
    "export": "--checkpoint ufuser.safetensors --out out.onnx --calibration data --validation list.txt "
    "--precision fp16",
    "build": "--onnx max.onnx --out out.engine --script out.sh",
    "verify": "max.onnx max.onnx --pairs data --list list.txt --heatmap out.png",
    "bench quality": "--ir data/ir --vi data/vi --fused m=data/ir --model max.onnx --list list.txt --json out.json "
    "--csv out.csv",
    "bench cost": "--models max.onnx --json out.json --no-audit",
    "bench latency": "--ir data/ir --vi data/vi --list list.txt --models max.onnx --checkpoint ufuser.safetensors "
    "--peers eager --json out.json",
    "bench peak": "--results results.json --json out.json",
    "bench energy": "--model max.onnx --json out.json",
    "bench rounds": "max.onnx",
    "bench islands": "ufuser.safetensors --pairs data --list list.txt",
    "bench compare": "results.json results.json",
    "bench report": "--out report --results results.json --quality TNO=quality.json --ir data/ir --vi data/vi "
    "--fused m=data/ir --list list.txt --model max.onnx",
    "bench schema": "out.json",
    "bench stream": "--model max.onnx --json out.json",
    "bench calibration": "pairs --ir data/ir --vi data/vi --json out.json",
    "bench video": "--ir ir.mp4 --vi vi.mp4 --model max.onnx --json out.json",
}
"""A command line of each command, with every option that takes a path."""
NO_PATHS = [
    "engine",
    "engines",
    "peers",
    "threads",
    "cpu_precision",
    "sync",
    "max_skew",
    "max_age",
    "ir_offset",
    "vi_offset",
    "lost_after",
    "agc",
    "metrics",
    "bind",
    "token",
    "duration",
    "speed",
    "task",
    "frames",
    "size",
    "sizes",
    "seed",
    "distance",
    "baseline",
    "vi_fov",
    "ir_fov",
    "ir_size",
    "vi_size",
    "board",
    "spacing",
    "pattern",
    "pairs",
    "seconds",
    "share",
    "device",
    "opset",
    "precision",
    "int8_for",
    "crops",
    "min",
    "opt",
    "max",
    "workspace",
    "optimization_level",
    "shapes",
    "max_error",
    "mean_error",
    "psnr",
    "ssim",
    "workers",
    "batches",
    "rounds",
    "idle",
    "busy",
    "shape",
    "every",
    "crop",
    "extremes",
    "what",
    "count",
    "together",
]
NAMED_MODELS = ("export", "train import")
"""Their --model is the name of an architecture."""


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """All commands without subcommands, with their parsers."""
    tables = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not tables:
        yield name, parser
        return
    for word, child in tables[0].choices.items():
        full = f"{name} {word}".strip()
        commands = getattr(tables[0], "commands", None)
        if commands is not None:  # imported when it is run
            child = importlib.import_module(commands[word].module).get_parser(f"ufuser {full}")
        yield from leaves(child, full)


COMMANDS = dict(leaves(get_parser()))


def paths_of(name: str) -> list[argparse.Action]:
    """The options and positional arguments of a command that take a path."""
    found = []
    for action in COMMANDS[name]._actions:
        is_path = getattr(action.type, "__name__", "") == "file_path"
        if action.nargs == 0 or not (is_path or action.type is None):
            continue
        named = action.dest == "model" and name in NAMED_MODELS
        if is_path or not (action.dest in NO_PATHS or action.choices or named):
            found.append(action)
    return found


def test_every_command_has_a_line() -> None:
    assert set(LINES) == set(COMMANDS)
    for name, line in LINES.items():
        COMMANDS[name].parse_args(line.split())
        for action in paths_of(name):
            if action.option_strings:
                assert action.option_strings[0] in line.split(), f"{name}: is {action.dest} a path?"


def test_no_argument_takes_a_path_unchecked() -> None:
    for name, parser in COMMANDS.items():
        assert not [a.dest for a in parser._actions if a.type is Path], f"{name}: expected type=file_path"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, max_model: Path) -> Path:
    """A folder with all that the lines name as inputs."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for side in ("ir", "vi"):
        (folder / "data" / side).mkdir(parents=True)
        for name in "abcd":
            picture = rng.integers(0, 256, (160, 160), np.uint8)
            cv2.imwrite(str(folder / "data" / side / f"{name}.png"), picture)
        shutil.copy(folder / "data" / side / "a.png", folder / f"{side}.png")
        with VideoSink(folder / f"{side}.mp4", 25) as sink:
            for number in range(3):
                sink.write(Frame(rng.integers(0, 256, (64, 64, 3), np.uint8), number / 25, number, "made"))
    shutil.copy(max_model, folder / "max.onnx")
    for name in ("ufuser", "lite", "sensing_ir", "sensing_vi"):
        shutil.copy(ROOT / f"train/weights/{name}.safetensors", folder)
    Calibration((160, 160), (160, 160), np.eye(3), method="points").save(folder / "pair.json")
    results.write(folder / "results.json", results.Results.here())
    (folder / "quality.json").write_text('{"conventions": {}, "methods": {}}')
    (folder / "points.csv").write_text("vi_x,vi_y,ir_x,ir_y\n1,1,1,1\n99,1,99,1\n1,99,1,99\n99,99,99,99\n")
    (folder / "list.txt").write_text("d\n")
    (folder / "roadscene_validation.txt").write_text("d\n")
    (folder / "stream.toml").write_text('sync = "hold"\n')
    (folder / "release.pth").write_bytes(b"no pickle")
    return folder


RECIPES = {
    "direct": "ufuser_direct",
    "sensing": "sensing_ir",
    "emma": "emma",
    "distill": "lite",
    "daefuse": "daefuse_phase1",
    "fnet": "fnet_stage2",
}


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    return tmp_path


def prepare(place: Path, name: str) -> None:
    if name in (f"train {objective}" for objective in RECIPES):
        recipe = (ROOT / f"train/recipes/{RECIPES[name.split()[1]]}.toml").read_text(encoding="utf-8")
        recipe = recipe.replace("[distill]\n", "[distill]\nsensing = 0.1\n")
        (place / "recipe.toml").write_text(recipe, encoding="utf-8")


@pytest.fixture
def permissions() -> Iterator[None]:
    """Make the bits of files bind this thread, although it is the superuser's."""
    if os.name == "nt" or os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, without = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    if not hasattr(libc, "capget") or libc.capget(header, before):
        pytest.skip("the superuser may write anywhere, and its capabilities cannot be dropped here")
    without[:] = before[:]
    without[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; 0 is the effective set
    assert libc.capset(header, without) == 0
    yield
    assert libc.capset(header, before) == 0


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def replaced(name: str, line: str, action: argparse.Action, make: Callable[[str], str]) -> list[str]:
    """The words of a line with another value for one option; `make` gets the suffix that it should have."""
    words = line.split()
    if action.option_strings:
        at = words.index(action.option_strings[0]) + 1
    else:
        at = [a.dest for a in COMMANDS[name]._actions if not a.option_strings].index(action.dest)
    prefix, _, value = words[at].rpartition("=")
    words[at] = (f"{prefix}=" if prefix else "") + make(Path(value).suffix)
    return [*name.split(), *words]


BAD = {
    "empty": lambda suffix: "",
    "NUL": lambda suffix: f"a\0b{suffix}",
    "not UTF-8": lambda suffix: f"caf\udce9{suffix}",
    "too long": lambda suffix: f"{'x' * 300}{suffix}",
    "in a file": lambda suffix: f"list.txt/x{suffix}",
    "in a closed folder": lambda suffix: f"closed/x{suffix}",
}


@pytest.mark.parametrize("name", [name for name in LINES if paths_of(name)])
@pytest.mark.usefixtures("permissions")
def test_a_bad_path_is_one_line(place: Path, quick_command: Command, name: str) -> None:
    prepare(place, name)
    before = listing(place)
    faults = []
    for action in paths_of(name):
        flag = action.option_strings[0] if action.option_strings else action.dest
        for kind, make in BAD.items():
            done = quick_command(*replaced(name, LINES[name], action, make))
            is_line = done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
            names = (flag, action.dest, str(action.metavar), make("")[:3] or "''", "a\\x00b")
            is_named = any(text in done.stderr for text in names)
            if done.returncode != 2 or not is_line or not is_named or done.stdout:
                faults.append(f"{flag}, {kind}: {done.returncode} {done.stderr[-300:]}")
            if listing(place) != before:
                faults.append(f"{flag}, {kind}: files were written")
                before = listing(place)
    assert not faults, "\n".join(faults)


OUTPUTS = ("out", "report", "json", "csv", "heatmap", "script")
IN_FOLDER = {
    "demo": "report.json",
    "explain": "fused.png",
    "bench report": "report.html",
    **{f"train {objective}": "best.safetensors" for objective in RECIPES},
}
"""Commands whose output is a folder, with a file that they write into it."""
NOT_READ = {("calibrate offset", "calibration"), ("train distill", "teacher_pictures")}
"""Inputs that are outputs, too: the offset is added to the calibration."""


def collisions(name: str) -> Iterator[tuple[argparse.Action, argparse.Action]]:
    """Each output of a command with each of its inputs."""
    actions = paths_of(name)
    for output in actions:
        for given in actions:
            if output.dest in OUTPUTS and given.dest not in OUTPUTS and (name, given.dest) not in NOT_READ:
                yield output, given


@pytest.mark.parametrize("name", [name for name in LINES if any(collisions(name))])
def test_an_output_that_is_an_input_is_refused(place: Path, quick_command: Command, name: str) -> None:
    """By a hard link, which has the suffix that the output must have."""
    prepare(place, name)
    faults = []
    for output, given in collisions(name):
        source = place / value_of(name, given).rpartition("=")[2]
        if source.is_dir():
            inside = source if (source / "a.png").exists() else source / "ir"
            source = inside / "a.png"
        content = source.read_bytes()
        target = place / f"same{Path(value_of(name, output)).suffix}"
        if name in IN_FOLDER:
            target = place / "folder" / IN_FOLDER[name]
            target.parent.mkdir(exist_ok=True)
        os.link(source, target)
        to = str((target.parent if name in IN_FOLDER else target).relative_to(place))
        done = quick_command(*replaced(name, LINES[name], output, lambda suffix, to=to: to))
        if done.returncode != 2 or "same file or folder as the input" not in done.stderr:
            faults.append(f"{output.dest} on {given.dest}: {done.returncode} {done.stderr[-300:]}")
        assert source.read_bytes() == content, f"{output.dest} destroyed {given.dest}"
        assert target.samefile(source)
        target.unlink()
    assert not faults, "\n".join(faults)


def value_of(name: str, action: argparse.Action) -> str:
    words = LINES[name].split()
    if action.option_strings:
        return words[words.index(action.option_strings[0]) + 1]
    return words[[a.dest for a in COMMANDS[name]._actions if not a.option_strings].index(action.dest)]


@pytest.mark.parametrize(
    "outputs",
    [
        ("--out", "x.mkv", "--out", "x.mkv?codec=h264"),
        ("--out", "x.mp4", "--out", "./x.mp4"),
        ("--out", "folder:x", "--out", "x/"),
        ("--out", "x.avi", "--report", "x.avi"),
    ],
)
def test_two_outputs_to_one_file_are_refused(
    place: Path, quick_command: Command, outputs: tuple[str, ...]
) -> None:
    before = listing(place)
    done = quick_command("stream", "--ir", "ir.mp4", "--vi", "vi.mp4", "--model", "max.onnx", *outputs)
    assert done.returncode == 2
    assert "it is the same file or folder as the output x" in done.stderr
    assert listing(place) == before


def test_an_offset_may_be_added_to_the_calibration_itself(place: Path, quick_command: Command) -> None:
    done = quick_command(
        "calibrate",
        "offset",
        *("--ir", "ir.mp4", "--vi", "vi.mp4", "--calibration", "pair.json"),
        *("--out", "pair.json"),
    )
    assert "same file" not in done.stderr  # but three frames do not suffice


WRITERS = {
    "fuse": "out.png",
    "calibrate points": "out.json",
    "train average": "out.safetensors",
    "build": "out.sh",
    "verify": "out.png",
    "bench cost": "out.json",
    "bench schema": "out.json",
}
"""Commands that end soon, with the file that they write."""
FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # every write to a file fails
from ufuser.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_full_disk_is_one_line_and_keeps_the_older_file(place: Path, name: str) -> None:
    target = place / WRITERS[name]
    target.write_bytes(b"older")
    before = listing(place)
    words = [sys.executable, "-c", FULL_DISK, *name.split(), *LINES[name].split()]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: cannot write {target.name}: File too large")
    assert "Traceback" not in done.stderr
    assert listing(place) == before
