"""The parsers in Python, guided by coverage: `python -m tests.robustness --guided`. Needs atheris.

    pip install atheris

libFuzzer keeps inputs that reach new branches. It sees Python code only, so it is for the parsers that are ours.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ufuser.runtime.errors import InputError


def parsers(folder: Path) -> dict[str, Callable[[bytes], object]]:
    """What is tried, by name; `folder` is for the parsers that take a file."""
    from ufuser.runtime import images, schemes, uri
    from ufuser.runtime.alignment import Calibration
    from ufuser.runtime.calibration.points import read_points
    from ufuser.runtime.engines.operators import operators_of
    from ufuser.runtime.options import from_toml
    from ufuser.runtime.streaming.options import StreamOptions

    def of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        path = folder / name

        def parse(data: bytes) -> object:
            path.write_bytes(data)
            return read(path)

        return parse

    return {
        "uris": lambda data: schemes.parse(schemes.SOURCES, os.fsdecode(data).replace("\0", "")),
        "masks": lambda data: uri.mask(data.decode("utf-8", "replace")),
        "picture headers": images._truncated,
        "operators": of_file("x.onnx", operators_of),
        "options": of_file("x.toml", lambda path: from_toml(StreamOptions, path)),
        "calibrations": of_file("x.json", Calibration.load),
        "points": of_file("x.csv", read_points),
    }


def main(minutes: float) -> int:
    """Try all of them; the exit code."""
    try:
        import atheris
    except ImportError:
        print("error: atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="ufuser-guided-"))
    with atheris.instrument_imports(include=["ufuser.runtime"]):
        tried = list(parsers(folder).values())

    def one(data: bytes) -> None:
        """The first byte chooses the parser."""
        if data:
            with contextlib.suppress(InputError):
                tried[data[0] % len(tried)](data[1:])

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(_seeds()):
        (corpus / str(number)).write_bytes(bytes([number % len(tried)]) + seed)
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={int(minutes * 60)}",
            "-timeout=5",
            f"-artifact_prefix={folder}/",
            str(corpus),
        ],
        one,
    )
    atheris.Fuzz()
    return 0


def _seeds() -> list[bytes]:
    """One for each parser, in their order."""
    from tests.robustness.pictures import encoded, max_network, scene
    from tests.robustness.texts import URIS, calibration_seeds, option_seeds, points_seeds

    nowhere = Path()
    return [
        URIS[0].encode(),
        b"rtsp://user:pass@host/path?token=x",
        encoded(".png", scene()),
        max_network(),
        option_seeds(nowhere)[0].data,
        calibration_seeds(nowhere)[1].data,
        points_seeds(nowhere)[1].data,
    ]
