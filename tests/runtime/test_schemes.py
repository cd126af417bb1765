"""The table of URI schemes, and sources and sinks that other packages register in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ufuser import runtime
from ufuser.runtime import schemes
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.sinks.opening import open_sink
from ufuser.runtime.sinks.sink import SinkContext
from ufuser.runtime.sources import VideoSource, frames, open_source
from ufuser.runtime.sources.opening import Cameras

EXAMPLE = Path(runtime.__file__).parents[1] / "examples" / "camera_plugin"
Install = Callable[..., Path]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a small distribution on the path: a module, and its entry points."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))

    def make(name: str, code: str, entry_points: str) -> Path:
        (site / f"{name}.py").write_text(code, encoding="utf-8")
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return site

    return make


@pytest.fixture
def example(install: Install) -> Path:
    """The package of docs/extend.md."""
    lines = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8").split('[project.entry-points."')[1:]
    entry_points = "".join(f"[{line.replace(chr(34) + ']', ']', 1).replace(chr(34), '')}" for line in lines)
    return install("acme_camera", (EXAMPLE / "acme_camera.py").read_text(encoding="utf-8"), entry_points)


def test_the_example_streams_by_the_command(
    tmp_path: Path, example: Path, max_model: Path, command: Run
) -> None:
    done = command(
        *("stream", "--ir", "acme://7?fps=50", "--vi", "acme://8?fps=50", "--out", "brightness:log.txt"),
        *("--duration", "1", "--model", max_model, "--sync", "hold"),
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) > 3
    assert all(50 < float(line.split()[1]) < 255 for line in lines)


def test_the_example_reports_its_own_errors_in_one_line(
    example: Path, max_model: Path, quick_command: Run
) -> None:
    for uri, said in (("acme://seven", "expected a serial number"), ("acme://7?fsp=9", "did you mean fps")):
        done = quick_command(
            "stream", "--ir", uri, "--vi", "acme://8", "--out", "null:", "--model", max_model
        )
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert said in line


RECORDING = """\
import numpy as np
from ufuser.runtime.frame import Frame
from ufuser.runtime.sources import Reading, Status

class Recording:
    live, length, repeats = False, 6, True

    def __init__(self, uri, context):
        self.name, self._index = uri.name, 0

    def read(self, timeout):
        if self._index == self.length:
            return Reading(Status.END)
        index, self._index = self._index, self._index + 1
        return Reading(Status.FRAME, Frame(np.full((64, 64), 40 * index, np.uint8), index / 5, index, self.name))

    def close(self):
        pass
"""


def test_fuse_takes_the_recordings_and_outputs_of_packages(
    tmp_path: Path, install: Install, example: Path, max_model: Path, quick_command: Run
) -> None:
    install("seq", RECORDING, "[ufuser.sources]\nseq = seq:Recording\n")
    words = ("fuse", "--ir", "seq:a", "--vi", "seq:b", "--model", max_model, "--out")
    done = quick_command(*words, "out.mkv")
    assert done.returncode == 0, done.stderr
    found = list(VideoSource(tmp_path / "out.mkv"))
    assert [int(f.image[9, 9, 0]) for f in found] == [0, 40, 80, 120, 160, 200]
    assert [f.timestamp for f in found] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0], abs=2e-3)
    done = quick_command(*words, "brightness:log.txt")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 6
    done = quick_command("fuse", "--ir", "acme://1", "--vi", "seq:b", "--model", max_model, "--out", "x.mkv")
    assert done.returncode == 2
    assert "acme://1 is a camera" in done.stderr
    done = quick_command(*words, "mjpeg://127.0.0.1:0")
    assert done.returncode == 2
    assert "shows the newest frame only" in done.stderr


def test_two_of_one_device_are_refused(example: Path) -> None:
    with pytest.raises(InputError, match="are the same device"):
        Cameras("acme://7", "acme://7?fps=9", Clock())
    assert Cameras("acme://7", "acme://8", Clock()).live


BROKEN = """\
def opens(uri, context):
    raise RuntimeError(f"no SDK for rtsp://user:secret@host\\nand more")

class Fails:
    name, live, length, repeats = "fails:", False, None, True
    def __init__(self, uri, context):
        pass
    def read(self, timeout):
        raise KeyError("gone")
    def close(self):
        pass

number = 7
"""


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_module:open", r"cannot load no_such_module:open, which opens 'vendor:': No module named"),
        ("vendor:absent", r"cannot load vendor:absent.*no attribute 'absent'"),
        ("vendor:number", r"not callable"),
        ("vendor:opens", r"^vendor:x: RuntimeError: no SDK for rtsp://\*\*\*@host$"),
    ],
)
@pytest.mark.parametrize("group", [schemes.SOURCES, schemes.SINKS])
def test_a_broken_package_is_one_line(install: Install, group: str, target: str, said: str) -> None:
    install("vendor", BROKEN, f"[{group}]\nvendor = {target}\n")
    with pytest.raises(InputError, match=said):
        open_source("vendor:x") if group == schemes.SOURCES else open_sink("vendor:x", SinkContext())


def test_a_package_that_fails_while_it_is_read_is_one_line(install: Install) -> None:
    install("vendor", BROKEN, "[ufuser.sources]\nfails = vendor:Fails\n")
    with pytest.raises(InputError, match=r"^fails:: KeyError: 'gone'$"):
        list(frames(open_source("fails:")))


def test_a_package_that_ends_the_import_with_a_syntax_error(install: Install) -> None:
    install("vendor", "def broken(:\n", "[ufuser.sources]\nvendor = vendor:open\n")
    with pytest.raises(InputError, match=r"cannot load vendor:open.*invalid syntax"):
        open_source("vendor:x")


def test_two_packages_with_one_scheme(install: Install) -> None:
    install("vendor", BROKEN, "[ufuser.sources]\nvendor = vendor:opens\n")
    install("other", BROKEN, "[ufuser.sources]\nvendor = other:opens\n")
    with pytest.raises(InputError, match="registered twice, by other:opens and vendor:opens"):
        open_source("vendor:x")


def test_a_package_cannot_replace_a_built_in_scheme(install: Install) -> None:
    install("vendor", BROKEN, "[ufuser.sources]\nrtsp = vendor:opens\n")
    assert schemes.find(schemes.SOURCES, "rtsp://camera").target.startswith("ufuser.runtime.")


def test_an_unknown_scheme_lists_the_known(install: Install) -> None:
    install("vendor", BROKEN, "[ufuser.sources]\nvendor = vendor:opens\n")
    with pytest.raises(
        InputError,
        match=r"unknown scheme 'vendro', expected .*sim, v4l2, vendor or a path \(did you mean vendor",
    ):
        schemes.parse(schemes.SOURCES, "vendro:x")
    with pytest.raises(InputError, match=r"unknown scheme 'vendor', expected .*mjpeg, null.*or a path"):
        schemes.parse(schemes.SINKS, "vendor:x")


@pytest.mark.parametrize("group", [schemes.SOURCES, schemes.SINKS])
def test_every_built_in_row_can_be_imported(group: str) -> None:
    for scheme in schemes._BUILT_IN[group]:
        assert callable(scheme.load())


def test_the_runtime_works_without_the_simulation() -> None:
    """Neither installed nor registered: the runtime reads files, and names the schemes there are."""
    code = """
import importlib.metadata, sys
sys.modules["ufuser.simulation"] = None
importlib.metadata.entry_points = lambda **chosen: ()
from ufuser.runtime import schemes
schemes.entry_points = importlib.metadata.entry_points
from ufuser.runtime.sources import open_source
from ufuser.runtime.sources.opening import Cameras
from ufuser.runtime.sinks.opening import open_sink
from ufuser.runtime.errors import InputError
import ufuser.runtime.streaming.session, ufuser.cli
try:
    open_source("sim://thermal")
except InputError as e:
    print(e)
print([name for name in sys.modules if name.startswith("ufuser.simulation.")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, loaded = done.stdout.splitlines()
    assert said.startswith(
        "sim://thermal: unknown scheme 'sim', expected csi, file, folder, gst, rtsp, rtsps, v4l2 or a path"
    )
    assert loaded == "[]"
