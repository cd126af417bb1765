"""Opens both cameras by their URIs, and again after they failed."""

from __future__ import annotations

import os
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ufuser.runtime import schemes
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.pairing import SIDES, Side
from ufuser.runtime.sources.source import Source, SourceContext


def open_source(text: str, context: SourceContext | None = None) -> Source:
    """Open one source by its URI or path. Raises InputError."""
    scheme = schemes.find(schemes.SOURCES, text)
    source: Source = scheme.open(scheme.parse(text), context or SourceContext())
    return source


class Cameras:
    """The two cameras of a stream.

    If either is live, both are: a file beside a camera is played at its own rate.

    Args:
        ir, vi: URIs or paths.
        clock: of the stream.
        paced: False reads simulated cameras as fast as possible, like files, unless the other one is real.

    Raises:
        InputError: unknown scheme, or both are the same device.
    """

    def __init__(self, ir: str, vi: str, clock: Clock, paced: bool = True) -> None:
        self.clock, self._origin = clock, clock.now()
        texts: dict[Side, str] = {"ir": ir, "vi": vi}
        self._schemes = {side: schemes.find(schemes.SOURCES, text) for side, text in texts.items()}
        self._uris = {side: self._schemes[side].parse(text) for side, text in texts.items()}
        if self._identity("ir") == self._identity("vi"):
            raise InputError(
                f"{self._uris['ir'].name} and {self._uris['vi'].name} are the same device: expected two"
            )
        self.live = any(
            (self._schemes[side].live and (paced or not self._schemes[side].virtual))
            or self._uris[side].options.get("live") == "1"
            for side in SIDES
        )
        self._shared: dict[Hashable, Any] = {}
        self._open: dict[Side, Source] = {}

    def start(self) -> None:
        """Set time 0 of simulated and played cameras to now."""
        self._origin = self.clock.now()

    def name(self, side: Side) -> str:
        """URI of a side with credentials masked."""
        return self._uris[side].name

    def check(self) -> None:
        """Open both, and keep them until `open`. Raises InputError where that fails."""
        for side in SIDES:
            source = self.open(side)
            if self._schemes[side].virtual:
                source.close()  # its time begins with the stream
            else:
                self._open[side] = source

    def close(self) -> None:
        """Close the cameras that `check` opened and `open` did not hand out."""
        while self._open:
            with suppress(Exception):  # of a package: the error that ends the stream says more
                self._open.popitem()[1].close()

    def open(self, side: Side) -> Source:
        """Open one side, for the first time or again. Raises InputError where that fails."""
        if side in self._open:
            return self._open.pop(side)
        context = SourceContext(self.clock, side, self.live, self._origin, self._shared)
        source: Source = self._schemes[side].open(self._uris[side], context)
        return source

    def _identity(self, side: Side) -> object:
        """Equal for two URIs of one device or file."""
        uri = self._uris[side]
        if uri.scheme == "v4l2":
            # Links such as /dev/v4l/by-id/… lead to the same node.
            try:
                return "device", os.stat(uri.address).st_rdev
            except OSError:
                return "device", os.path.realpath(uri.address)
        if uri.scheme in ("", "file", "folder"):
            return "file", os.path.realpath(Path(uri.address))
        # Options make another simulated camera, but not another device.
        options = tuple(sorted(uri.options.items())) if self._schemes[side].virtual else ()
        return uri.scheme, uri.address.rstrip("/"), options
