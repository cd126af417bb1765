"""The vendors' real modules, as far as they are available without a GPU.

Wheels are downloaded once into a cache outside the repository (`UFUSER_TEST_CACHE`, else the user's cache folder) and
loaded against stub libraries that are compiled here. pybind11-stubgen turns them into type stubs. What is missing is
skipped, with the reason.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

BINDINGS = {
    "10.3": ("tensorrt_cu12_bindings", "10.3.0"),  # JetPack 6.1, 6.2
    "10.13": ("tensorrt_cu13_bindings", "10.13.2.6"),  # JetPack 7.1
    "10.16": ("tensorrt_cu13_bindings", "10.16.1.11"),  # JetPack 7.2, which has 10.16.2
    "11.4": ("tensorrt_cu13_bindings", "11.4.0.106"),  # JetPack 7.2.2 and the build for servers, 11.4.1
}
PYCUDA = "2026.1"
# Headers for compiling PyCUDA; without CURAND it needs no library of NVIDIA.
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


# What the bindings have and pybind11-stubgen does not see.
_UNSEEN = {
    "Dims": "def __iter__(self) -> typing.Iterator[int]: ...",
    "IHostMemory": "def __bytes__(self) -> bytes: ...",
}


def _valid(stub: str) -> str:
    """A generated stub as valid Python: bindings may call an argument `in`. Such a method takes anything."""
    lines = []
    for line in stub.splitlines():
        if line.lstrip().startswith("def "):
            try:
                ast.parse(f"{line.strip()} ...")
            except SyntaxError:
                line = re.sub(
                    r"(def \w+).*", r"\1(self, *a: typing.Any, **k: typing.Any) -> typing.Any:", line
                )
        lines.append(line)
        unseen = _UNSEEN.get(line.removeprefix("class ").rstrip(":"))
        lines += [f"    {unseen}"] if unseen else []
    return "\n".join(lines) + "\n"


class Bindings:
    """One version of the vendor's bindings.

    `folder` is to be imported from, with the stub `libraries`; `types` holds the type stubs of the module `tensorrt`.
    """

    def __init__(self, version: str) -> None:
        package, self.release = BINDINGS[version]
        self.folder = _cache() / f"{package}-{self.release}"
        self.libraries, self.types = self.folder / "stubs", self.folder / "types"
        if not (self.libraries / "done").is_file():
            self._fetch(f"{package}=={self.release}")
        if not (self.types / "tensorrt" / "__init__.pyi").is_file():
            self._describe()

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

    def _describe(self) -> None:
        if find_spec("pybind11_stubgen") is None:
            pytest.skip("pybind11-stubgen is not installed")
        shutil.rmtree(self.types, ignore_errors=True)
        environment = os.environ | {"LD_LIBRARY_PATH": str(self.libraries), "PYTHONPATH": str(self.folder)}
        module = (sys.executable, "-m", "pybind11_stubgen", "tensorrt_bindings.tensorrt")
        _tool(*module, "--ignore-all-errors", "-o", self.types, env=environment)
        stub = self.types / "tensorrt_bindings" / "tensorrt.pyi"
        text = _valid(stub.read_text(encoding="utf-8"))
        (self.types / "tensorrt").mkdir()
        (self.types / "tensorrt" / "__init__.pyi").write_text(f"{text}__version__: str\n", encoding="utf-8")
        shutil.rmtree(stub.parent)


@pytest.fixture(scope="session", params=sorted(BINDINGS))
def bindings(request: pytest.FixtureRequest) -> Bindings:
    """Each supported version."""
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
def pycuda_names() -> set[str]:
    """`name` and `Class.member` of the real PyCUDA, compiled without a GPU. Takes minutes, once: only on request."""
    folder = _cache() / f"pycuda-{PYCUDA}"
    if not (folder / "done").is_file():
        if not os.environ.get("UFUSER_BUILD_PYCUDA"):
            pytest.skip("compiling PyCUDA takes minutes: set UFUSER_BUILD_PYCUDA=1 to do it once")
        _build_pycuda(folder)
    code = (
        "import pycuda.driver as d\n"
        "for n in dir(d):\n    print(n)\n    for m in dir(getattr(d, n)): print(f'{n}.{m}')\n"
    )
    environment = os.environ | {
        "LD_PRELOAD": str(folder / "stubs" / "libcuda.so.1"),
        "PYTHONPATH": str(folder),
    }
    return set(_tool(sys.executable, "-c", code, env=environment).split())


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
