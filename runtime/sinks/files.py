"""Where fused frames go: a picture, a folder of pictures, a video. None leaves anything half-written."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import Unfinished, make_folder, require_writable
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import require_image_suffix, write_image
from ufuser.runtime.video import VideoWriter, open_writer, require_video_suffix


class Sink(Protocol):
    """Takes frames. A context manager: left without an error it publishes, with one it cleans up."""

    def write(self, frame: Frame) -> None:
        """Take one frame."""

    def __enter__(self) -> Sink: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ImageSink:
    """One picture file, its format by suffix (see `write_image`).

    Raises InputError, at once, if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        require_image_suffix(path)
        require_writable(path)
        self._path = path

    def write(self, frame: Frame) -> None:
        write_image(self._path, frame.image)

    def __enter__(self) -> ImageSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class FolderSink:
    """A picture a frame: named as the file the frame came from, or by its sequence number.

    Each picture appears whole, so after an error the finished ones stay. The folder is created if need be.

    Args:
        folder: where to.
        suffix: `.png`, `.jpg`, ...: the format.
        named_by_source: `<stem of frame.source>.png` instead of `000012.png`.

    Raises:
        InputError: unknown suffix; the folder cannot be created or written into.
    """

    def __init__(self, folder: Path, suffix: str = ".png", named_by_source: bool = False) -> None:
        self._folder, self._suffix, self._by_source = folder, suffix, named_by_source
        require_image_suffix(folder / f"frame{suffix}")
        self._created = make_folder(folder)
        require_writable(folder / f"frame{suffix}")

    def write(self, frame: Frame) -> None:
        stem = Path(frame.source).stem if self._by_source else f"{frame.sequence:06d}"
        write_image(self._folder / f"{stem}{self._suffix}", frame.image)

    def __enter__(self) -> FolderSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._created and not any(self._folder.iterdir()):
            self._folder.rmdir()


class VideoSink:
    """A video file in the format its suffix names.

    - `.mp4`: H.264 (libx264, CRF 18, 4:2:0, BT.601) by PyAV.
    - `.mkv`: FFV1 by PyAV, lossless in BGR or grey.
    - `.avi`: Motion JPEG by OpenCV, without PyAV.

    H.264 and Motion JPEG need even sides: an odd width or height grows by one column or row, a copy of the
    last. FFV1 takes any size.

    The file is written under a temporary name and moved into place when the sink is left without an error.

    Args:
        path: the file.
        size: width and height of every frame, pixels.
        fps: frames per second.

    Raises:
        InputError: another suffix, PyAV not installed, or a file that cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        require_video_suffix(path)
        self._size, self._frames = size, 0
        self._file = Unfinished(path)
        self._writer: VideoWriter | None = None
        try:
            self._writer = open_writer(self._file.path, size, fps)
        except BaseException:
            self._file.discard()
            raise

    def write(self, frame: Frame) -> None:
        """Append one frame: uint8, H×W or H×W×3, of the sink's size; all grey or all in colour.

        Raises InputError for another dtype or size.
        """
        image, (width, height) = frame.image, self._size
        if image.dtype != np.uint8 or image.shape[:2] != (height, width):
            raise InputError(
                f"frame {frame.sequence} is {image.shape[1]}x{image.shape[0]} {image.dtype}: "
                f"the video takes {width}x{height} uint8"
            )
        if self._writer is None:
            raise ValueError("the video is closed")
        self._writer.write(image)
        self._frames += 1

    def __enter__(self) -> VideoSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(publish=kind is None)

    def close(self, publish: bool = True) -> None:
        """Finish the file and move it into place, or remove it. A second call does nothing.

        Without a single frame there is no video to publish: the file is removed.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        publish = publish and self._frames > 0
        try:
            writer.close(finish=publish)
        except BaseException:
            self._file.discard()
            raise
        if publish:
            self._file.publish()
        else:
            self._file.discard()
