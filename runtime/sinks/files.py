"""Sinks of `ufuser fuse`: a picture, a folder of pictures, a video. None leaves a file half written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ufuser.runtime.errors import InputError
from ufuser.runtime.files import Unfinished, make_folder, require_writable, sync_folder
from ufuser.runtime.frame import Frame
from ufuser.runtime.images import require_image_suffix, write_image
from ufuser.runtime.video import (
    CODECS,
    Encoder,
    EncoderError,
    import_av,
    require_frames,
    require_video_suffix,
)

if TYPE_CHECKING:
    from typing_extensions import Self  # in `typing` from Python 3.11 only

_CRF = 18


class _FileSink:
    """Base of the file sinks: also a context manager, which closes or, after an exception, aborts."""

    every_frame, in_main_thread = True, False

    def close(self) -> None:
        """Finish and publish."""

    def abort(self) -> None:
        """Clean up after an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class ImageSink(_FileSink):
    """One picture file, its format by suffix (see `write_image`).

    Raises InputError, at once, if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        require_image_suffix(path)
        require_writable(path)
        self.name, self._path = str(path), path

    def write(self, frame: Frame) -> None:
        write_image(self._path, frame.image)


class FolderSink(_FileSink):
    """A picture per frame: named as the file the frame came from, or by its sequence number.

    Each picture appears whole, so after an error the finished ones stay. The folder is created if it is missing. Each
    file is flushed to the disk before it is moved into place; the folder's entries are flushed once, by `close`.

    Args:
        folder: where to write.
        suffix: `.png`, `.jpg`, ...: the format.
        named_by_source: `<stem of frame.source>.png` instead of `000012.png`.
        name: None for the folder.

    Raises:
        InputError: unknown suffix; the folder cannot be created or written into.
    """

    def __init__(
        self, folder: Path, suffix: str = ".png", named_by_source: bool = False, name: str | None = None
    ) -> None:
        self.name = name or str(folder)
        self._folder, self._suffix, self._by_source = folder, suffix, named_by_source
        require_image_suffix(folder / f"frame{suffix}")
        self._created = make_folder(folder)
        require_writable(folder / f"frame{suffix}")

    def write(self, frame: Frame) -> None:
        stem = Path(frame.source).stem if self._by_source else f"{frame.sequence:06d}"
        write_image(self._folder / f"{stem}{self._suffix}", frame.image, durable=False)

    def close(self) -> None:
        sync_folder(self._folder)

    def abort(self) -> None:
        if self._created and not any(self._folder.iterdir()):
            self._folder.rmdir()
        else:
            self.close()


class VideoSink(_FileSink):
    """A video file in the format that its suffix names.

    - `.mp4`: H.264 (libx264, CRF 18, 4:2:0, BT.601).
    - `.mkv`: FFV1, lossless in BGR or grey, of any size.
    - `.avi`: Motion JPEG.

    The file is written under a temporary name. `close` reads it again, counts its frames and moves it into place: an
    incomplete file never replaces an older one.

    Args:
        path: the file.
        fps: constant frames per second; None keeps the time between the frames' stamps.

    Raises:
        InputError: another suffix, PyAV not installed, or a file that cannot be written.
    """

    def __init__(self, path: Path, fps: float | None = None) -> None:
        require_video_suffix(path)
        import_av(str(path))
        self.name, self._path = str(path), path
        # Television's rates are such fractions: 29.97 is 30000/1001.
        self._rate = None if fps is None else Fraction(fps).limit_denominator(1001)
        self._file = Unfinished(path)
        self._encoder: Encoder | None = None
        self._shape: tuple[int, ...] = ()
        self._first = 0.0
        self._open = True

    def write(self, frame: Frame) -> None:
        """Append one frame: uint8, H×W or H×W×3 BGR, all of one size.

        Raises InputError for another type or size, or where the file cannot be written.
        """
        image = frame.image
        shape = self._shape or image.shape[:2]
        if image.dtype != np.uint8 or image.shape[:2] != shape:
            raise InputError(
                f"frame {frame.sequence} is {image.shape[1]}x{image.shape[0]} {image.dtype}: "
                f"the video takes {shape[1]}x{shape[0]} uint8"
            )
        if not self._open:
            raise ValueError("the video is closed")
        try:
            if self._encoder is None:
                codec = CODECS[self._path.suffix.lower()][0]
                self._encoder = Encoder(str(self._file.path), codec, image, rate=self._rate, crf=_CRF)
                self._shape, self._first = shape, frame.timestamp
            self._encoder.write(image, frame.timestamp - self._first)
        except EncoderError as e:
            raise InputError(f"cannot write {self.name}: {e}") from None

    def close(self) -> None:
        """Finish the file, check it and move it into place. A second call does nothing.

        Without a single frame there is no video: the temporary file is removed.
        """
        if not self._open:
            return
        encoder, self._open = self._encoder, False
        try:
            if encoder is not None:
                encoder.close()
                require_frames(self._file.path, encoder.frames)
                self._file.publish()
        except EncoderError as e:
            raise InputError(f"cannot write {self.name}: {e}") from None
        finally:
            self._file.discard()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._open = False
        if self._encoder is not None:
            self._encoder.abort()
        self._file.discard()
