"""`mjpeg://127.0.0.1:8080`: a web page with the pictures and live figures."""

from __future__ import annotations

import re

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.sinks.sink import SinkContext
from ufuser.runtime.uri import Uri
from ufuser.runtime.web.pictures import Pictures
from ufuser.runtime.web.server import Access, Server


def page_address(uri: Uri, access: Access) -> tuple[str, int]:
    """Host and port of `mjpeg://HOST:PORT`; without a host it is `access.bind`. Raises InputError."""
    uri.read({})
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:/\[\]]*):([0-9]{1,5})/?", uri.address)
    if match is None or int(match[2]) > 65535:
        raise InputError(f"{uri.name}: expected host and port, such as mjpeg://127.0.0.1:8080")
    return match[1].strip("[]") or access.bind, int(match[2])


class PageSink:
    """Serves from construction until `close`. `write` only stores the frame for the clients."""

    every_frame, in_main_thread = False, False

    def __init__(self, name: str, address: tuple[str, int], access: Access) -> None:
        self.name = name
        self._pictures = Pictures()
        self.server = Server(*address, access)
        self.server.pictures = self._pictures

    def write(self, frame: FusedFrame) -> None:
        self._pictures.show(frame)

    def close(self) -> None:
        self.server.close()

    def abort(self) -> None:
        self.close()


def open_page(uri: Uri, context: SinkContext) -> PageSink:
    """Open `mjpeg://HOST:PORT`. Raises InputError."""
    access = context.access or Access()
    return PageSink(uri.name, page_address(uri, access), access)
