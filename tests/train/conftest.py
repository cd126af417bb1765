"""Fixtures: reference files, generated pairs, tiny recipes and runs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ufuser.train.__main__ import main
from ufuser.train.checkpoint import save_checkpoint
from ufuser.train.models import create
from ufuser.train.recipe import load_recipe
from ufuser.train.trainer import Trainer

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

RECIPE = """
name = "tiny"
model = "ufuser"
seed = 3
validate_every = 2

[network]
global_blocks = [0, 0, 0, 1]
local_blocks = [1, 1, 1, 0]

[data]
validation = "validation.txt"
crop = 16
gamma = [0.6, 1.7]
gain = [0.6, 1.3]
noise = 0.02
invert = 0.5

[optim]
steps = 6
batch = 2
warmup = 2
"""

EMMA = """
name = "tiny-emma"
model = "ufuser"
seed = 5
validate_every = 2

[network]
global_blocks = [0, 0, 0, 1]
local_blocks = [1, 1, 1, 0]

[data]
validation = "validation.txt"
crop = 16
shared_jitter = true
gamma = [0.8, 1.25]

[emma]
gradient = 0.5
equivariant_batch = 2

[transforms]
count = 2

[loss]
intensity = 0.5
gradient = 0.0
ssim = 0.0

[optim]
steps = 4
batch = 2
warmup = 1
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from a second thread; the command line may change the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def plain_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not draw: it takes longer than a tiny run. `test_journal.py` tests it."""
    monkeypatch.setattr(
        "ufuser.train.trainer.curve", lambda log, title: f"{title}: {len(log)} points".encode()
    )


@pytest.fixture
def reference() -> Path:
    """Parity vectors and release layouts beside the checkout."""
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip(f"reference files are not beside this checkout ({folder.name}/ in {SHARED.name}/)")
    return folder


def make_pairs(root: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    """`root` with textured ir/NAME.png and vi/NAME.png of each (height, width)."""
    rng = np.random.default_rng(0)
    for side in ("ir", "vi"):
        (root / side).mkdir(parents=True, exist_ok=True)
        for name, size in sizes.items():
            image = rng.integers(0, 256, size, dtype=np.uint8)
            assert cv2.imwrite(str(root / side / f"{name}.png"), image)
    return root


def make_project(root: Path) -> Path:
    """`root` with data/ (four pairs) and tiny.toml, which keeps the pair `d` for validation."""
    make_pairs(root / "data", {"a": (24, 32), "b": (40, 36), "c": (33, 21), "d": (43, 50)})
    (root / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    (root / "validation.txt").write_text("d\n", encoding="utf-8")
    return root


def make_emma_project(root: Path) -> Path:
    """A project with emma.toml and random A_i.safetensors and A_v.safetensors of width 1, too."""
    make_project(root)
    (root / "emma.toml").write_text(EMMA, encoding="utf-8")
    torch.manual_seed(7)
    for name, target in (("A_i", "ir"), ("A_v", "vi")):
        state = create("pseudo_sensing", {"width": 1}).state_dict()
        path = root / f"{name}.safetensors"
        save_checkpoint(path, state, "pseudo_sensing", "", {"target": target}, {"width": 1})
    return root


@pytest.fixture
def write_pairs() -> Callable[..., Path]:
    """write_pairs(root, {"name": (height, width), …}) → root with textured ir/NAME.png and vi/NAME.png."""
    return make_pairs


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with data/ (four pairs) and tiny.toml, which keeps the pair `d` for validation."""
    return make_project(tmp_path)


@pytest.fixture
def emma_project(tmp_path: Path) -> Path:
    """`project` with emma.toml and random A_i.safetensors and A_v.safetensors of width 1."""
    return make_emma_project(tmp_path)


@pytest.fixture
def emma_words() -> Callable[..., list[str]]:
    """emma_words(project, out, …) → the command line that trains by emma.toml, and more words."""
    return command_line


@contextmanager
def interrupted_before(step: int) -> Iterator[None]:
    """Ctrl-C before a step of training."""
    train_step = Trainer._train_step

    def interrupted(trainer: Trainer) -> dict[str, float]:
        if trainer._step == step:
            raise KeyboardInterrupt
        return train_step(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_step", interrupted)
        yield


@pytest.fixture
def ctrl_c_before() -> Callable[[int], AbstractContextManager[None]]:
    """ctrl_c_before(step): a context in which training is interrupted before that step."""
    return interrupted_before


def read_log(out: Path) -> list[dict[str, str]]:
    """log.csv without time and memory, which differ between runs."""
    with (out / "log.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    return [{k: v for k, v in row.items() if k not in ("seconds_per_step", "peak_mib")} for row in rows]


@pytest.fixture
def losses() -> Callable[[Path], list[dict[str, str]]]:
    """losses(out): the rows of a run's log without time and memory."""
    return read_log


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """refused(words): the only line on stderr of a command that ends with code 2."""

    def run(words: list[str]) -> str:
        capsys.readouterr()
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error

    return run


def command_line(project: Path, out: Path, *more: object) -> list[str]:
    words = ["emma", "--recipe", project / "emma.toml", "--data", project / "data", "--out", out]
    modules = ["--sensing-ir", project / "A_i.safetensors", "--sensing-vi", project / "A_v.safetensors"]
    return [*map(str, [*words, *modules, "--threads", 1, *more])]


@pytest.fixture(scope="session")
def emma_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An `emma_project` with two runs of one process: one/, and half/, interrupted after step 3 of 4.

    Both began with --init start.safetensors.

    Files are replaced atomically, so an interruption leaves the same as a kill (`test_trainer.py`).
    """
    root = make_emma_project(tmp_path_factory.mktemp("emma"))
    torch.set_num_threads(1)
    options = load_recipe(root / "emma.toml").network
    start = root / "start.safetensors"
    save_checkpoint(start, create("ufuser", options).state_dict(), "ufuser", "", {}, options)
    assert main(command_line(root, root / "one", "--init", start)) == 0
    with interrupted_before(3):
        assert main(command_line(root, root / "half", "--init", start)) == 130
    assert torch.load(root / "half" / "last.pt", weights_only=True)["step"] == 2
    return root
