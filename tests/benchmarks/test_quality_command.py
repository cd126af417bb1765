"""``ufuser bench quality`` as a user runs it, and the folder functions behind it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.quality.baselines import BASELINES
from ufuser.benchmarks.quality.command import _open_models
from ufuser.benchmarks.quality.folder import Options, match, means, measure, read_grey, read_sources
from ufuser.benchmarks.quality.registry import METRICS, evaluate
from ufuser.runtime.errors import InputError
from ufuser.runtime.thermal.still import tone_mapped

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("a", "b", "c")


def save(path: Path, image: npt.NDArray[np.uint8 | np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """ir/ (PNG), vi/ (colour BMP) and fused/ with three pairs 48×56."""
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        ir = rng.integers(0, 256, (48, 56)).astype(np.uint8)
        vi = np.asarray(
            cv2.GaussianBlur(rng.integers(0, 256, (48, 56, 3)).astype(np.uint8), (0, 0), 2), np.uint8
        )
        save(tmp_path / "ir" / f"{name}.png", ir)
        save(tmp_path / "vi" / f"{name}.bmp", vi)
        save(tmp_path / "fused" / f"{name}.png", np.asarray(ir // 2 + 40, dtype=np.uint8))
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "quality",
        "--ir",
        str(folder / "ir"),
        "--vi",
        str(folder / "vi"),
    ]
    return subprocess.run(
        [*command, *arguments], check=False, cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )


def test_prints_a_table_and_writes_it(pictures: Path) -> None:
    (pictures / "names").write_text("a.png\n\nc\n")
    done = run(
        pictures, "--fused", f"mine={pictures / 'fused'}", "--list", str(pictures / "names"),
        "--json", str(pictures / "out.json"), "--csv", str(pictures / "out.csv"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""

    lines = done.stdout.splitlines()
    assert lines[0].split() == ["method", *METRICS, "mean", "rank"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:5]}
    assert set(rows) == {"mine", *BASELINES}
    assert all(any(row[column].endswith("*") for row in rows.values()) for column in range(len(METRICS) + 1))
    best_rank = [float(row[-1].rstrip("*")) for row in rows.values()]
    assert best_rank == sorted(best_rank)
    assert "2 pairs" in done.stdout
    assert "data range 255" in done.stdout

    report = json.loads((pictures / "out.json").read_text())
    assert set(report["methods"]["mine"]["pairs"]) == {"a", "c"}
    ir, vi, fused = (read_grey(pictures / path) for path in ("ir/a.png", "vi/a.bmp", "fused/a.png"))
    assert report["methods"]["mine"]["pairs"]["a"] == pytest.approx(evaluate(ir, vi, fused))

    with (pictures / "out.csv").open() as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    mine = report["methods"]["mine"]
    assert float(table["mine"]["VIF"]) == pytest.approx(mine["mean"]["VIF"], rel=1e-5)
    assert float(table["mine"]["mean_rank"]) == pytest.approx(mine["mean_rank"], rel=1e-5)
    assert sorted(path.name for path in pictures.glob(".*")) == []


def test_says_what_it_leaves_out_and_how_it_measures(pictures: Path) -> None:
    (pictures / "fused" / "b.png").unlink()
    done = run(
        pictures, "--fused", f"mine={pictures / 'fused'}", "--no-baselines", "--stretch", "--ssim", "printed",
        "--workers", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "2 names are common to all folders; 1 others are left out\n"
    assert "stretched to 0..255 each" in done.stdout
    assert "data range 2\n" in done.stdout
    assert "maximum" not in done.stdout


def _remove_ir(folder: Path) -> None:
    (folder / "ir").rename(folder / "elsewhere")


def _rename_all(folder: Path) -> None:
    for path in (folder / "vi").iterdir():
        path.rename(path.with_name(f"other_{path.name}"))


def _other_size(folder: Path) -> None:
    save(folder / "fused" / "b.png", np.zeros((40, 56), dtype=np.uint8))


def _garbage(folder: Path) -> None:
    (folder / "vi" / "b.bmp").write_bytes(b"no picture")


def _empty_file(folder: Path) -> None:
    (folder / "vi" / "b.bmp").write_bytes(b"")


def _two_of_a_name(folder: Path) -> None:
    save(folder / "ir" / "b.bmp", np.zeros((48, 56), dtype=np.uint8))


def _tiny(folder: Path) -> None:
    for path in (folder / "ir" / "b.png", folder / "vi" / "b.bmp", folder / "fused" / "b.png"):
        save(path, np.zeros((40, 56), dtype=np.uint8))


def _nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "arguments", "words"),
    [
        (_remove_ir, [], ["--ir", "is not a folder"]),
        (_rename_all, [], ["no file name in common", "other_a", "rename"]),
        (_other_size, [], ["56x40", "56x48", "one size", "b.png"]),
        (_garbage, [], ["b.bmp", "cannot be read as a picture", "10 bytes"]),
        (_nothing, ["--fused", "nameless"], ["nameless", "NAME=DIR"]),
        (_nothing, ["--list", "{folder}/missing"], ["cannot read", "missing", "no such file"]),
        (_nothing, ["--csv", "{folder}/missing/out.csv"], ["cannot write", "there is no folder"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    arguments: list[str],
    words: list[str],
) -> None:
    spoil(pictures)
    sources = ["--ir", str(pictures / "ir"), "--vi", str(pictures / "vi")]
    fused = ["--fused", f"mine={pictures / 'fused'}"]
    assert main(["quality", *sources, *fused, *(a.format(folder=pictures) for a in arguments)]) == 2
    said, error = capsys.readouterr()
    assert said == ""
    assert len(error.splitlines()) == 1, error
    for word in words:
        assert word in error


def test_bad_input_ends_the_process_with_2(pictures: Path) -> None:
    done = run(pictures, "--fused", "nameless")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_empty_file, "0 bytes"),
        (_two_of_a_name, "both b.bmp and b.png"),
        (_tiny, "pair b, method mine: VIF .* at least 41"),
    ],
)
def test_other_bad_pictures_are_named(pictures: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(pictures)

    def attempt() -> None:
        pairs, _ = match(pictures / "ir", pictures / "vi", {"mine": pictures / "fused"})
        measure(pairs, Options(), workers=1)

    with pytest.raises(InputError, match=words):
        attempt()


def test_every_listed_name_must_be_everywhere(pictures: Path) -> None:
    (pictures / "fused" / "b.png").unlink()
    with pytest.raises(InputError, match="--fused mine holds no picture named b"):
        match(pictures / "ir", pictures / "vi", {"mine": pictures / "fused"}, ["a", "b"])
    pairs, left_out = match(pictures / "ir", pictures / "vi", {"mine": pictures / "fused"}, ["c", "a", "c"])
    assert [pair.name for pair in pairs] == ["c", "a"]
    assert left_out == 0


def test_processes_give_what_one_process_gives(pictures: Path) -> None:
    pairs, _ = match(pictures / "ir", pictures / "vi", {"mine": pictures / "fused"})
    # A closure cannot be pickled: it must run on this side of the processes.
    models = {"darker": lambda ir, vi: np.asarray(np.minimum(ir, vi), dtype=np.uint8)}
    one, two = (measure(pairs, Options(), models, workers) for workers in (1, 2))
    assert one == two
    assert list(one) == ["mine", "darker", *BASELINES]
    assert list(one["darker"]) == list(NAMES)
    assert means(one)["mine"]["EN"] == pytest.approx(
        np.mean([values["EN"] for values in one["mine"].values()])
    )


def test_an_error_leaves_no_process_waiting(pictures: Path) -> None:
    _garbage(pictures)
    pairs, _ = match(pictures / "ir", pictures / "vi", {})
    with pytest.raises(InputError, match=r"b\.bmp"):
        measure(pairs, Options(), workers=2)


def test_models_are_opened_by_name_or_file(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Fuser:
        """Stands for the runtime's: this room only relies on ``open(model=…)`` and ``fuse(ir, vi)``."""

        @classmethod
        def open(cls, model: str) -> Fuser:
            opened.append(model)
            return cls()

        def fuse(self, ir: npt.NDArray[np.uint8], vi: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
            return np.minimum(ir, vi)

    monkeypatch.setattr("ufuser.runtime.fuser.Fuser", Fuser)
    assert list(_open_models(["lite", "folder/mine.onnx"], {})) == ["lite", "mine"]
    assert opened == ["lite", "folder/mine.onnx"]
    with pytest.raises(InputError, match="mine"):
        _open_models(["folder/mine.onnx"], {"mine": Path("fused")})
    two = ["before=a/m.onnx", "after=b/m.onnx"]
    assert list(_open_models(two, {})) == ["before", "after"]
    assert opened[-2:] == ["a/m.onnx", "b/m.onnx"]
    with pytest.raises(InputError, match=r"the name m; expected NAME=b/m\.onnx with a unique name"):
        _open_models(["a/m.onnx", "b/m.onnx"], {})
    with pytest.raises(InputError, match="maximum"):
        _open_models(["maximum.onnx"], {})


def test_colour_is_read_as_luma(tmp_path: Path) -> None:
    colour = np.zeros((4, 4, 3), dtype=np.uint8)
    colour[..., 1] = 200
    save(tmp_path / "green.png", colour)
    assert read_grey(tmp_path / "green.png").tolist() == np.full((4, 4), round(0.587 * 200)).tolist()
    save(tmp_path / "alpha.png", np.dstack([colour, np.full((4, 4), 9, dtype=np.uint8)]))
    assert read_grey(tmp_path / "alpha.png").tolist() == read_grey(tmp_path / "green.png").tolist()


def test_sixteen_bits_are_measured_as_the_runtime_fuses_them(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 48 * 56).reshape(48, 56).astype(np.uint16)
    save(tmp_path / "ir" / "raw.png", deep // 8 + 1000)
    save(tmp_path / "ir" / "full.png", deep)
    for name in ("raw", "full"):
        save(tmp_path / "vi" / f"{name}.png", deep)
    full, raw = (read_sources(pair) for pair in match(tmp_path / "ir", tmp_path / "vi", {})[0])
    np.testing.assert_array_equal(full[0], np.rint(deep / 257))
    np.testing.assert_array_equal(full[1], full[0])
    np.testing.assert_array_equal(raw[0], tone_mapped(deep // 8 + 1000))
    assert np.ptp(raw[0]) > 200
    words = ["--ir", str(tmp_path / "ir"), "--vi", str(tmp_path / "vi"), "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "ufuser.benchmarks", "quality", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1 infrared pictures hold raw counts: tone mapped to 8 bits" in done.stderr
