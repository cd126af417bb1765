"""The vendors' real modules, as far as they can be had without a GPU.

Wheels are downloaded once into a cache outside the repository (`UFUSER_TEST_CACHE`, else the user's cache folder)
and loaded against stub libraries built on the spot. What can't be had is skipped, with the reason.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
BINDINGS = {
    "10.3": ("tensorrt_cu12_bindings", "10.3.0"),  # JetPack 6.1, 6.2
    "10.13": ("tensorrt_cu13_bindings", "10.13.2.6"),  # JetPack 7.1
    "11.4": ("tensorrt_cu13_bindings", "11.4.0.106"),  # JetPack 7.2.2
}
PYCUDA = "2026.1"
# Headers that PyCUDA compiles against; without CURAND it needs no library of theirs.
_HEADERS = ("nvidia-cuda-runtime", "nvidia-cuda-crt", "nvidia-cuda-profiler-api")
_FOREIGN = re.compile(
    r"^(create|get|init)\w*(INTERNAL|Registry|ParserVersion|LibNvInferPlugins)$|^cu[A-Z]\w+$"
)


def _cache() -> Path:
    base = os.environ.get("UFUSER_TEST_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(base) if base else home / "ufuser-tests") / sysconfig.get_config_var("SOABI")


def _tool(*command: str | Path, **options: Any) -> str:
    """Run a tool, or skip the test with what it said."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        pytest.skip(f"{Path(command[0]).name} {command[1]} …: {(lines or ['failed'])[-1][:200]}")
    return done.stdout


def _download(requirement: str, folder: Path, *options: str) -> Path:
    """One file from the package index."""
    pip = (sys.executable, "-m", "pip", "download", "--no-deps", "--retries", "1", "--timeout", "20", "-q")
    _tool(*pip, *options, "-d", folder, requirement, timeout=300)
    (file,) = folder.iterdir()
    return file


def _stub(library: Path, symbols: list[str]) -> None:
    """A shared library that answers every call with 100, CUDA's "no device", or a null pointer."""
    source = library.with_suffix(".c")
    body = "".join(f"long {s}(void) {{ return {100 if s.startswith('cu') else 0}; }}\n" for s in symbols)
    source.write_text(body, encoding="utf-8")
    soname = f"-Wl,-soname,{library.name}"
    _tool("cc", "-w", "-shared", "-fPIC", "-o", library, source, soname)


def _undefined(extension: Path) -> list[str]:
    """The foreign functions that an extension module links to."""
    names = (
        line.split()[-1].split("@")[0]
        for line in _tool("nm", "-D", "--undefined-only", extension).splitlines()
    )
    return sorted({name for name in names if _FOREIGN.match(name)})


def _described(module: str, folder: Path, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HERE / "describe.py"), module, str(folder)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Bindings:
    """One version of the vendor's bindings: `folder` to import from, `libraries` with the stubs, its `api`."""

    def __init__(self, version: str) -> None:
        package, release = BINDINGS[version]
        self.release = release
        self.folder = _cache() / f"{package}-{release}"
        self.libraries = self.folder / "stubs"
        if not (self.libraries / "done").is_file():
            self._fetch(f"{package}=={release}")
        self.api = _described("tensorrt", self.folder, LD_LIBRARY_PATH=str(self.libraries))["api"]

    def _fetch(self, requirement: str) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        wheel = _download(requirement, self.folder / "wheel", "--only-binary=:all:")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.folder)
        self.libraries.mkdir()
        extension = self.folder / "tensorrt_bindings" / "tensorrt.so"
        needed = re.findall(r"\[(libnv[^\]]+)\]", _tool("readelf", "-d", extension))
        symbols = _undefined(extension)
        for name in needed:
            _stub(self.libraries / name, symbols if name.startswith("libnvinfer.so") else [])
        # As the vendor's own `tensorrt` package does it.
        (self.folder / "tensorrt").mkdir()
        code = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
        (self.folder / "tensorrt" / "__init__.py").write_text(code, encoding="utf-8")
        (self.libraries / "done").touch()


@pytest.fixture(scope="session", params=sorted(BINDINGS))
def bindings(request: pytest.FixtureRequest) -> Bindings:
    """Each supported version in turn."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the stub libraries are made for Linux")
    return Bindings(request.param)


@pytest.fixture(scope="session")
def pycuda_source() -> str:
    """PyCUDA's own source of the names that `pycuda.driver` has: its wrapper and its Python part."""
    folder = _cache() / f"pycuda-{PYCUDA}-source"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(fresh, ignore_errors=True)
        archive = _download(f"pycuda=={PYCUDA}", fresh, "--no-binary=:all:", "--no-build-isolation")
        with tarfile.open(archive) as tar:
            tar.extractall(fresh, filter="data")
        fresh.rename(folder)
    root = folder / f"pycuda-{PYCUDA}"
    files = (root / "src" / "wrapper" / "wrap_cudadrv.cpp", root / "pycuda" / "driver.py")
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.fixture(scope="session")
def pycuda_api() -> dict[str, Any]:
    """The real PyCUDA, compiled without a GPU: minutes, so only where asked for, and kept."""
    folder = _cache() / f"pycuda-{PYCUDA}"
    if not (folder / "done").is_file():
        if not os.environ.get("UFUSER_BUILD_PYCUDA"):
            pytest.skip("compiling PyCUDA takes minutes: UFUSER_BUILD_PYCUDA=1 does it once")
        _build_pycuda(folder)
    environment = {"LD_PRELOAD": str(folder / "stubs" / "libcuda.so.1")}
    found: dict[str, Any] = _described("pycuda.driver", folder, **environment)["api"]
    return found


def _build_pycuda(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    headers = folder / "headers"
    for package in _HEADERS:
        wheel = _download(package, folder / "wheels" / package, "--only-binary=:all:")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(headers)
    includes = [str(p.parent) for p in headers.rglob("cuda.h")]
    (folder / "stubs").mkdir(parents=True)
    _stub(folder / "stubs" / "libcuda.so", [])
    source = _download(f"pycuda=={PYCUDA}", folder / "source", "--no-binary=:all:", "--no-build-isolation")
    with tarfile.open(source) as tar:
        tar.extractall(folder, filter="data")
    root = folder / f"pycuda-{PYCUDA}"
    (root / "siteconf.py").write_text("CUDA_ENABLE_CURAND = False\n", encoding="utf-8")
    environment = os.environ | {
        "CUDA_ROOT": str(Path(includes[0]).parent),
        "CPATH": ":".join(includes),
        "LIBRARY_PATH": str(folder / "stubs"),
        "LDFLAGS": f"-L{folder / 'stubs'}",
        "CFLAGS": "-O0",
    }
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-warn-script-location", "--target", folder)
    _tool(*pip, root, env=environment, timeout=1800)
    extension = next((folder / "pycuda").glob("_driver*.so"))
    _stub(folder / "stubs" / "libcuda.so.1", _undefined(extension))
    (folder / "done").touch()


@pytest.fixture(scope="session")
def usage() -> ModuleType:
    """The module that walks our sources."""
    spec = importlib.util.spec_from_file_location("tensorrt_api_usage", HERE / "usage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def polygraphy_api() -> dict[str, Any]:
    """The installed Polygraphy."""
    pytest.importorskip("polygraphy")
    found: dict[str, Any] = _described("polygraphy.backend.trt", HERE)["api"]
    return found


@pytest.fixture(scope="session")
def double_api() -> dict[str, dict[str, Any]]:
    """The doubles, described like the real ones."""
    folder = HERE / "double"
    return {name: _described(name, folder)["api"] for name in ("tensorrt", "pycuda.driver")}
