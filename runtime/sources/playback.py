"""Files, folders and simulated cameras played as cameras: at their pace, with the faults one asks for."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import cv2
from numpy.typing import NDArray

from ufuser.runtime import uri as uris
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import read_image
from ufuser.runtime.sources.camera import END, TIMEOUT, Reading, Status, failed
from ufuser.runtime.sources.files import VIDEOS, VideoSource, pictures_in
from ufuser.runtime.uri import Uri
from ufuser.simulation import Scene, SimCamera, SimConfig, Timeline

FOLDER_FPS = 25.0
Spans = tuple[tuple[float, float], ...]


class Feed(Protocol):
    """Numbered pictures."""

    def picture(self, index: int) -> NDArray[Any] | None:
        """Picture `index`; the calls' indices rise. None behind the last. Raises InputError."""

    def frozen(self, index: int) -> bool:
        """Whether a flat-field correction holds an earlier picture."""

    def close(self) -> None:
        """Let go of the file."""


class SimFeed:
    """A simulated camera's pictures."""

    def __init__(self, config: SimConfig, scene: Scene | None) -> None:
        self.camera = SimCamera(config, scene)

    def picture(self, index: int) -> NDArray[Any]:
        return self.camera.frame(index)[0]

    def frozen(self, index: int) -> bool:
        return self.camera.timeline.frozen(index)

    def close(self) -> None:
        pass


class FolderFeed:
    """A folder's pictures in order of their names."""

    def __init__(self, folder: Path, loop: bool) -> None:
        self._paths, self._loop = pictures_in(folder), loop
        read_image(self._paths[0])

    def picture(self, index: int) -> NDArray[Any] | None:
        if index >= len(self._paths) and not self._loop:
            return None
        return read_image(self._paths[index % len(self._paths)])

    def frozen(self, index: int) -> bool:
        return False

    def close(self) -> None:
        pass


class VideoFeed:
    """A video's frames; what lies between two indices is decoded but not converted."""

    def __init__(self, path: Path, loop: bool) -> None:
        with VideoSource(path) as probe:  # says in one line what is wrong with the file
            self.fps, self._length = probe.fps, probe.length
        self._path, self._loop = path, loop
        self._capture = cv2.VideoCapture(str(path))
        self._next = 0

    def picture(self, index: int) -> NDArray[Any] | None:
        if self._next == 0 and self._loop and self._length:
            # Opened anew in the middle of a long run: whole rounds need no decoding.
            self._next = index // self._length * self._length
        while self._next <= index:
            if not self._capture.grab() and not (self._loop and self._rewind()):
                return None
            self._next += 1
        done, image = self._capture.retrieve()
        return image if done else None

    def _rewind(self) -> bool:
        self._capture.release()
        self._capture = cv2.VideoCapture(str(self._path))
        return self._capture.grab()

    def frozen(self, index: int) -> bool:
        return False

    def close(self) -> None:
        self._capture.release()


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to a played camera at moments one can name, in seconds from the start of the stream."""

    silent: Spans = ()
    """It is there, but no frame comes."""
    gone: Spans = ()
    """It fails, and cannot be opened until it is back."""

    @staticmethod
    def within(spans: Sequence[tuple[float, float]], moment: float) -> bool:
        """Whether the moment lies in one of the spans."""
        return any(begin <= moment < end for begin, end in spans)


class Player:
    """A `Camera` over numbered pictures.

    Args:
        name: what it is called, credentials masked.
        feed: the pictures.
        timeline: when each is taken, which are lost and how their stamps err.
        clock: of the stream.
        origin: the moment on it at which picture 0 is taken. A camera opened later is in the middle already.
        faults: what else happens.

    Raises:
        InputError: the camera is gone at this moment.
    """

    live = True

    def __init__(
        self, name: str, feed: Feed, timeline: Timeline, clock: Clock, origin: float, faults: Faults
    ) -> None:
        self.name = name
        self.fps: float | None = timeline.config.fps
        self._feed, self._timeline, self._clock, self._origin = feed, timeline, clock, origin
        self._faults = faults
        self._period = 1.0 / timeline.config.fps
        self._next = max(0, int((clock.now() - origin) / self._period))
        self._pause = threading.Event()
        if faults.within(faults.gone, clock.now() - origin):
            feed.close()
            raise InputError(f"{name}: no such device (simulated: gone)")

    def read(self, timeout: float) -> Reading:
        deadline = self._clock.now() + timeout
        late = 0
        while True:
            moment = self._timeline.exposed(self._next)
            if self._faults.within(self._faults.gone, self._clock.now() - self._origin):
                return failed(f"{self.name}: the device has gone (simulated)")
            if self._origin + moment > deadline:
                self._clock.wait(self._pause, deadline - self._clock.now())
                return TIMEOUT
            lost = not self._timeline.delivered(self._next) or self._faults.within(
                self._faults.silent, moment
            )
            overdue = self._clock.now() - self._origin - moment >= self._period
            if not lost and not overdue:
                return self._take(late)
            # The next tick is due already: a camera does not wait for its reader.
            late += overdue and not lost
            self._next += 1

    def _take(self, late: int) -> Reading:
        index, self._next = self._next, self._next + 1
        due = self._origin + self._timeline.exposed(index)
        # Fetched ahead of its moment where there is time: a sensor's read-out costs the host nothing.
        image = self._feed.picture(index)
        if image is None:
            return END
        self._clock.wait(self._pause, due - self._clock.now())
        flags = frozenset({"frozen"}) if self._feed.frozen(index) else frozenset[str]()
        stamp = self._origin + self._timeline.stamp(index)
        frame = Frame(image, stamp, index, self.name, flags, self._clock.now())
        return Reading(Status.FRAME, frame, "", late)

    def close(self) -> None:
        self._feed.close()


class FileReader:
    """A `Camera` that is a file: every frame, as fast as it is asked, on the file's own time from 0."""

    live = False

    def __init__(
        self, name: str, fps: float | None, frames: Iterator[Frame], close: Callable[[], None], clock: Clock
    ) -> None:
        self.name, self.fps = name, fps
        self._frames, self._close, self._clock = frames, close, clock

    def read(self, timeout: float) -> Reading:
        frame = next(self._frames, None)
        if frame is None:
            return END
        return Reading(Status.FRAME, replace(frame, source=self.name, arrival=self._clock.now()))

    def close(self) -> None:
        self._close()


def _spans(text: str) -> Spans:
    """`10-15,70-75.5`: from and to, seconds."""
    spans = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+\.?\d*)-(\d+\.?\d*)", part)
        if match is None or float(match[1]) >= float(match[2]):
            raise ValueError("expected spans of seconds, such as 10-15 or 10-15,70-75")
        spans.append((float(match[1]), float(match[2])))
    return tuple(spans)


_FAULT_OPTIONS: dict[str, Callable[[str], Any]] = {"silent": _spans, "gone": _spans}
_PLAY_OPTIONS: dict[str, Callable[[str], Any]] = {
    "live": uris.switch,
    "fps": uris.number,
    "loop": uris.switch,
    "drop": float,
    "jitter": uris.seconds,
    "stall": uris.seconds,
    "offset": uris.seconds,
    "seed": uris.whole,
    **_FAULT_OPTIONS,
}


def open_sim(uri: Uri, clock: Clock, origin: float, scenes: dict[tuple[int, int, int], Scene]) -> Player:
    """`sim://thermal?...` at its pace: `ufuser.simulation`'s options, and `silent=10-15`, `gone=20-25`.

    Args:
        uri: what was asked for.
        clock: of the stream.
        origin: when its time 0 is.
        scenes: streets built so far, by seed and size; one is added where it is missing.

    Raises:
        InputError: a bad option; the camera is gone at this moment.
    """
    own = Uri(
        uri.text, uri.scheme, uri.address, {k: v for k, v in uri.options.items() if k in _FAULT_OPTIONS}
    )
    rest = {k: v for k, v in uri.options.items() if k not in _FAULT_OPTIONS}
    config = SimConfig.from_uri(f"sim://{uri.address}" + (f"?{urlencode(rest)}" if rest else ""))
    key = (config.seed, config.width, config.height)
    if key not in scenes:
        scenes[key] = Scene(*key)
    feed = SimFeed(config, scenes[key])
    return Player(uri.name, feed, Timeline(config), clock, origin, Faults(**own.read(_FAULT_OPTIONS)))


def open_file(uri: Uri, thermal: bool, clock: Clock, origin: float, live: bool) -> Player | FileReader:
    """A video or a folder of pictures, read to its end or played as a camera.

    Options: `live=1` plays it at its pace, or at `fps`, `loop=1` endlessly; then `drop=0.02`, `jitter=8ms`,
    `stall=5`, `offset=12ms`, `seed=1` and the spans `silent`, `gone` are faults as simulated cameras have them.

    Args:
        uri: `folder:DIR?...`, `file:PATH?...` or a path.
        thermal: which camera it stands for: drops and jitter of the two differ.
        clock: of the stream.
        origin: when its time 0 is.
        live: play it even without `live=1`, because the other side is a camera.

    Raises:
        InputError: no such file, or not a video; a bad option.
    """
    options = uri.read(_PLAY_OPTIONS)
    path, loop = Path(uri.address), bool(options.pop("loop", False))
    folder = uri.scheme == "folder" or path.is_dir()
    if folder and not path.is_dir():
        raise InputError(f"no folder {path}: expected a folder of pictures")
    if not folder and path.is_file() and path.suffix.lower() not in VIDEOS:
        raise InputError(f"{path} is no video by its suffix: expected {', '.join(VIDEOS)}, or a folder")
    if not (options.pop("live", False) or live):
        fps = options.pop("fps", None)
        if options or loop:
            names = ", ".join([*options, *(["loop"] if loop else [])])
            raise InputError(f"{uri.name}: {names} only with live=1, which plays it as a camera")
        return (
            _read_folder(uri, path, fps or FOLDER_FPS, clock)
            if folder
            else _read_video(uri, path, fps, clock)
        )
    feed: FolderFeed | VideoFeed = FolderFeed(path, loop) if folder else VideoFeed(path, loop)
    fps = options.pop("fps", None) or (feed.fps if isinstance(feed, VideoFeed) else FOLDER_FPS)
    if fps is None:
        raise InputError(f"{uri.name} gives no frame rate: expected one as ?live=1&fps=25")
    faults = Faults(**{key: options.pop(key) for key in _FAULT_OPTIONS if key in options})
    in_ms = {f"{key}_ms": options.pop(key) * 1000 for key in ("jitter", "offset") if key in options}
    timeline = Timeline(SimConfig("thermal" if thermal else "visible", fps=fps, **in_ms, **options))
    return Player(uri.name, feed, timeline, clock, origin, faults)


def _read_folder(uri: Uri, path: Path, fps: float, clock: Clock) -> FileReader:
    paths = pictures_in(path)
    frames = (Frame(read_image(p), index / fps, index, str(p)) for index, p in enumerate(paths))
    return FileReader(uri.name, fps, frames, lambda: None, clock)


def _read_video(uri: Uri, path: Path, fps: float | None, clock: Clock) -> FileReader:
    video = VideoSource(path)
    frames = iter(video)
    if fps is not None:
        frames = (replace(frame, timestamp=frame.sequence / fps) for frame in frames)
    return FileReader(uri.name, fps or video.fps, frames, video.close, clock)
