"""A URI or path → frames: a picture, a folder of pictures, a video file, a simulated camera."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import cv2
from numpy.typing import NDArray

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import READABLE, read_image
from ufuser.simulation import Scene, SimCamera, SimConfig

if TYPE_CHECKING:
    from typing_extensions import Self  # in `typing` from Python 3.11 only

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")


class Source(Protocol):
    """Gives frames, once, in order. A context manager that lets go of the device or file."""

    @property
    def name(self) -> str:
        """URI or path."""

    @property
    def fps(self) -> float | None:
        """Frames per second; None where time means nothing (pictures) or the file does not say."""

    @property
    def length(self) -> int | None:
        """Frames in all; None if endless. A video's container may be wrong about it."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels; of a folder, those of its first picture."""

    def __iter__(self) -> Iterator[Frame]:
        """The frames. Raises InputError at one that cannot be read."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _Closes:
    """The context-manager half of every source."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the device or file."""


class ImagesSource(_Closes):
    """Picture files, one frame each, read when asked for. `timestamp` is the sequence number: no clock.

    Raises InputError if the first cannot be read.
    """

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.name, self.fps, self.length = name, None, len(paths)
        self._paths = paths
        height, width = read_image(paths[0]).shape[:2]
        self.size = (width, height)

    def __iter__(self) -> Iterator[Frame]:
        for sequence, path in enumerate(self._paths):
            yield Frame(read_image(path), float(sequence), sequence, str(path))


class VideoSource(_Closes):
    """A video file by OpenCV: uint8 BGR, stamped by the container.

    Raises InputError if there is no such file or not one frame of it can be decoded.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"no file {path}: expected a video ({', '.join(VIDEOS)})")
        self.name = str(path)
        self._capture = cv2.VideoCapture(self.name)
        # The header alone does not tell whether anything can be decoded.
        _, image = self._capture.read() if self._capture.isOpened() else (False, None)
        if image is None:
            self._capture.release()
            raise InputError(f"{path} cannot be read as a video: expected a whole file OpenCV can decode")
        self._first: NDArray[Any] | None = image
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and fps > 0 else None
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.length = int(count) if math.isfinite(count) and count > 0 else None
        self.size = (image.shape[1], image.shape[0])

    def __iter__(self) -> Iterator[Frame]:
        image, self._first = self._first, None
        sequence, latest = 0, 0.0
        while image is not None:
            # Some containers report no time, or one that steps back.
            latest = max(latest, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0)
            yield Frame(image, latest, sequence, self.name)
            sequence += 1
            done, image = self._capture.read()
            if not done:
                return

    def count_rest(self) -> int:
        """Frames not yet given, decoded but not converted: exact where the container's count is a guess."""
        rest = 0 if self._first is None else 1
        while self._capture.grab():
            rest += 1
        return rest

    def close(self) -> None:
        self._capture.release()


class SimSource(_Closes):
    """A simulated camera (see `ufuser.simulation`), endless; lost frames leave gaps in `sequence`.

    It renders as fast as it is asked: whoever wants the camera's pace waits for the stamps.
    """

    def __init__(self, uri: str, scene: Scene | None = None) -> None:
        self.name, self.length = uri, None
        self.camera = SimCamera(SimConfig.from_uri(uri), scene)
        config = self.camera.config
        self.fps, self.size = config.fps, (config.width, config.height)

    def __iter__(self) -> Iterator[Frame]:
        for index in self.camera.indices():
            image, stamp = self.camera.frame(index)
            flags = frozenset({"frozen"}) if self.camera.timeline.frozen(index) else frozenset[str]()
            yield Frame(image, stamp, index, self.name, flags)


SCHEMES = ("sim",)


def scheme_of(uri: str) -> str:
    """What stands before `://`; "" for a path. Raises InputError for a scheme no source has."""
    match = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", uri)
    if match is None:
        return ""
    scheme = match.group(1).lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{s}://" for s in SCHEMES)
        raise InputError(f"{uri}: unknown scheme '{scheme}', expected {known} or a path")
    return scheme


def kind_of(uri: str | Path) -> str:
    """ "image", "folder", "video" or "sim".

    Raises InputError for an unknown scheme, nothing of that name, or a file with an unknown suffix.
    """
    scheme = scheme_of(str(uri))
    if scheme:
        return scheme
    path = Path(uri)
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise InputError(f"no file or folder {path}: expected a picture, a video or a folder of pictures")
    for kind, suffixes in (("image", READABLE), ("video", VIDEOS)):
        if path.suffix.lower() in suffixes:
            return kind
    raise InputError(
        f"{path} is neither a picture ({', '.join(READABLE)}) nor a video ({', '.join(VIDEOS)}) by its suffix"
    )


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted by name, hidden ones left out. Raises InputError if none."""
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in READABLE and not p.name.startswith(".")]
    except OSError as e:
        raise InputError(f"cannot read folder {folder}: {e.strerror}") from None
    if not found:
        raise InputError(f"no pictures in {folder}: expected files that end in {', '.join(READABLE)}")
    return sorted(found)


def open_source(uri: str | Path, scene: Scene | None = None) -> Source:
    """Open a source by what the URI or path is: see `kind_of`.

    Args:
        uri: a path, or `sim://visible?...`, `sim://thermal?...`.
        scene: street for a simulated camera; None builds one.

    Raises:
        InputError: unknown scheme or suffix, or the source cannot be opened.
    """
    kind, path = kind_of(uri), Path(uri)
    if kind == "sim":
        return SimSource(str(uri), scene)
    if kind == "video":
        return VideoSource(path)
    return ImagesSource(pictures_in(path) if kind == "folder" else [path], str(uri))


def open_pair(ir: str | Path, vi: str | Path) -> tuple[Source, Source]:
    """Open infrared and visible; simulated cameras of one seed and size share their street, built once."""
    first = open_source(ir)
    scene: Scene | None = None
    if isinstance(first, SimSource) and kind_of(vi) == "sim":
        config, other = first.camera.config, SimConfig.from_uri(str(vi))
        if (config.seed, config.width, config.height) == (other.seed, other.width, other.height):
            scene = first.camera.scene
    try:
        return first, open_source(vi, scene)
    except BaseException:
        first.__exit__(None, None, None)
        raise
