"""Files as sources: a picture, a folder of pictures, a video; read to the end or played as a camera."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cv2
from numpy.typing import NDArray

from ufuser.runtime import schemes
from ufuser.runtime import uri as uris
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import READABLE, read_image
from ufuser.runtime.names import require_path
from ufuser.runtime.quiet import NATIVE
from ufuser.runtime.sources.playback import (
    FAULT_OPTIONS,
    Faults,
    FolderFeed,
    Player,
    VideoFeed,
    are_lossless,
    is_lossless,
)
from ufuser.runtime.sources.source import Reading, Source, SourceContext, Status, frames
from ufuser.runtime.sources.timing import Timing
from ufuser.runtime.uri import Uri

if TYPE_CHECKING:
    from typing_extensions import Self  # in `typing` from Python 3.11 only

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")
FOLDER_FPS = 25.0
_PLAY_OPTIONS: dict[str, Callable[[str], Any]] = {
    "live": uris.switch,
    "fps": uris.number,
    "loop": uris.switch,
    "drop": float,
    "jitter": uris.seconds,
    "stall": uris.seconds,
    "offset": uris.seconds,
    "seed": uris.whole,
    **FAULT_OPTIONS,
}


class _FileSource:
    """Base of both file sources: iterable, and a context manager."""

    live = False

    def __init__(self, name: str, fps: float | None, length: int | None, clock: Clock | None) -> None:
        self.name, self.fps, self.length = name, fps, length
        self._clock = clock
        self._sequence = 0

    def _next(self) -> tuple[NDArray[Any], float, str] | None:
        """Picture, stamp and where it is from; None at the end."""
        raise NotImplementedError

    def read(self, timeout: float) -> Reading:
        found = self._next()
        if found is None:
            return Reading(Status.END, detail=self._missing())
        image, stamp, origin = found
        sequence, self._sequence = self._sequence, self._sequence + 1
        arrival = math.nan if self._clock is None else self._clock.now()
        return Reading(Status.FRAME, Frame(image, stamp, sequence, origin, arrival=arrival))

    def _missing(self) -> str:
        """At the end: what says that the file is not whole; else empty."""
        return ""

    def close(self) -> None:
        """Release the file."""

    def __iter__(self) -> Iterator[Frame]:
        source: Source = self  # type: ignore[assignment]  # a subclass has the rest of the protocol
        return frames(source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ImagesSource(_FileSource):
    """Picture files, one frame each, loaded when they are read.

    Args:
        paths: the files, at least one.
        name: of the folder or picture.
        fps: frames per second of the stamps; None uses the sequence number as stamp.
        clock: for the frames' arrival; None leaves it out.

    Raises:
        InputError: the first cannot be read.
    """

    def __init__(
        self, paths: Sequence[Path], name: str, fps: float | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__(name, fps, len(paths), clock)
        self._paths, self.repeats = paths, are_lossless(paths)
        read_image(paths[0])

    def _next(self) -> tuple[NDArray[Any], float, str] | None:
        if self._sequence >= len(self._paths):
            return None
        path = self._paths[self._sequence]
        return read_image(path), self._sequence / (self.fps or 1.0), str(path)


class VideoSource(_FileSource):
    """A video file, by OpenCV: uint8 BGR.

    Args:
        path: the file.
        fps: frames per second of the stamps; None takes the container's stamps.
        clock: for the frames' arrival; None leaves it out.
        name: None for the path.

    Raises:
        InputError: no such file, or not one frame of it can be decoded.
    """

    def __init__(
        self, path: Path, fps: float | None = None, clock: Clock | None = None, name: str | None = None
    ) -> None:
        require_path(path)
        if not path.is_file():
            raise InputError(f"no file {path}: expected a video ({', '.join(VIDEOS)})")
        with NATIVE.muted():
            self._capture = cv2.VideoCapture(str(path))
            # The header alone does not tell whether anything can be decoded.
            _, image = self._capture.read() if self._capture.isOpened() else (False, None)
        if image is None:
            self._capture.release()
            raise InputError(
                f"{path} cannot be read as a video: expected a complete file that OpenCV can decode"
            )
        self._first: NDArray[Any] | None = image
        self.repeats = is_lossless(self._capture)
        self._stamped = fps is None
        claimed = self._capture.get(cv2.CAP_PROP_FPS)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        super().__init__(
            name or str(path),
            fps or (claimed if math.isfinite(claimed) and claimed > 0 else None),
            int(count) if math.isfinite(count) and count > 0 else None,
            clock,
        )
        self._latest = 0.0

    def _next(self) -> tuple[NDArray[Any], float, str] | None:
        image, self._first = self._first, None
        if image is None:
            with NATIVE.muted():
                done, image = self._capture.read()
            if not done:
                return None
        if not self._stamped and self.fps is not None:
            return image, self._sequence / self.fps, self.name
        # Some containers report no time, or one that steps back.
        self._latest = max(self._latest, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0)
        return image, self._latest, self.name

    def _missing(self) -> str:
        # The number in a header may be an estimate from duration and rate.
        if self.length is None or self._sequence >= self.length - max(2, 0.02 * self.length):
            return ""
        return f"{self.name} ended after {self._sequence} of {self.length} frames: the file is truncated or damaged"

    def count_rest(self) -> int:
        """Number of frames not read yet. They are decoded but not converted: exact, unlike `length`."""
        rest = 0 if self._first is None else 1
        with NATIVE.muted():
            while self._capture.grab():
                rest += 1
        return rest

    def close(self) -> None:
        self._capture.release()


def kind_of(text: str | Path) -> str:
    """Kind of source that a URI or path names: "image", "folder", "video", or the scheme of another source.

    Raises InputError for an unknown scheme, a missing file, or a file with an unknown suffix.
    """
    uri = schemes.parse(schemes.SOURCES, str(text))
    if uri.scheme not in ("", "file", "folder"):
        return uri.scheme
    path = Path(uri.address)
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
    """The picture files of a folder, sorted by name, without hidden ones. Raises InputError if there are none."""
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in READABLE and not p.name.startswith(".")]
    except OSError as e:
        raise InputError(f"cannot read folder {folder}: {e.strerror}") from None
    if not found:
        raise InputError(f"no pictures in {folder}: expected files that end in {', '.join(READABLE)}")
    return sorted(found)


def open_file(uri: Uri, context: SourceContext) -> Source:
    """Open a picture, a folder of pictures or a video: read to its end, or played as a camera.

    Options: `live=1` plays a video or folder at its own rate, or at `fps`; `loop=1` plays it endlessly. Played, it can
    have the faults of simulated cameras: `drop=0.02`, `jitter=8ms`, `stall=5`, `offset=12ms`, `seed=1`, and the time
    spans `silent`, `gone`.

    Args:
        uri: `folder:DIR?...`, `file:PATH?...` or a path.
        context: with `live`, a file is played without `live=1` too.

    Raises:
        InputError: no such file, or not a video; a bad option.
    """
    require_path(uri.address)
    options = uri.read(_PLAY_OPTIONS)
    path, loop = Path(uri.address), bool(options.pop("loop", False))
    if uri.scheme == "folder" and not path.is_dir():
        raise InputError(f"no folder {path}: expected a folder of pictures")
    kind = kind_of(path)
    if not (options.pop("live", False) or context.live):
        fps = options.pop("fps", None)
        if options or loop:
            names = ", ".join([*options, *(["loop"] if loop else [])])
            raise InputError(f"{uri.name}: {names} only with live=1, which plays it as a camera")
        if kind == "video":
            return VideoSource(path, fps, context.clock, uri.name)
        paths = pictures_in(path) if kind == "folder" else [path]
        return ImagesSource(paths, uri.name, fps or FOLDER_FPS, context.clock)
    if kind == "image":
        raise InputError(f"{path} is a single picture: expected a video ({', '.join(VIDEOS)}) or a folder")
    feed = FolderFeed(pictures_in(path), loop) if kind == "folder" else _video_feed(path, loop)
    fps = options.pop("fps", None) or (feed.fps if isinstance(feed, VideoFeed) else FOLDER_FPS)
    if fps is None:
        raise InputError(f"{uri.name} gives no frame rate: expected one as ?live=1&fps=25")
    faults = Faults(**{key: options.pop(key) for key in FAULT_OPTIONS if key in options})
    in_ms = {f"{key}_ms": options.pop(key) * 1000 for key in ("jitter", "offset") if key in options}
    timing = Timing(fps, thermal=context.side == "ir", **in_ms, **options)
    return Player(uri.name, feed, timing, context, faults)


def _video_feed(path: Path, loop: bool) -> VideoFeed:
    with VideoSource(path) as probe:  # reports a bad file in one line
        return VideoFeed(path, loop, probe.fps, probe.length)
