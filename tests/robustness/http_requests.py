"""Requests to the page and the figures of a stream: nobody gets in without the token, and the server stays up."""

from __future__ import annotations

import functools
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.robustness.mutations import of_http
from tests.robustness.reader import TRACEBACK, Case, Finding, Reader, Seed
from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.sinks.page import PageSink
from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.web.server import Access

TOKEN = "correct-horse"
_SERVED = (b"HTTP/1.1 200", b"HTTP/1.1 303")


class _Page:
    """A page that keeps the exceptions of its connections."""

    def __init__(self) -> None:
        self.sink = PageSink("mjpeg://test", ("127.0.0.1", 0), Access(token=TOKEN))
        self.sink.server.telemetry = Telemetry({"ir": "sim://thermal", "vi": "sim://visible"}, Clock())
        grey = np.full((24, 32), 90, np.uint8)
        self.sink.write(FusedFrame(grey, 0.0, 0, "x", ir=grey, vi=grey))
        self.errors: list[BaseException] = []
        connections: Any = self.sink.server._http
        connections.handle_error = self._keep

    def _keep(self, *_: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            self.errors.append(error)

    def answer(self, request: bytes) -> bytes:
        """The beginning of the answer; empty where the connection is closed without one."""
        address = ("127.0.0.1", self.sink.server.port)
        with socket.create_connection(address, timeout=10) as connection:
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                return connection.recv(4096)
            except OSError:  # closed before all was sent
                return b""


@functools.cache
def _page() -> _Page:
    return _Page()


def seeds(folder: Path) -> list[Seed]:
    """A request for each address, with each way to carry the token."""
    paths = (
        "/",
        "/page.css",
        "/report.json",
        "/metrics",
        "/healthz",
        "/stream/fused.mjpg",
        "/stream/ir.mjpg",
        "/x",
    )
    bearer = f"Authorization: Bearer {TOKEN}\r\n"
    cookie = f"Cookie: a=b; ufuser_token={TOKEN.encode().hex()}\r\n"
    texts = [
        *(f"GET {path} HTTP/1.1\r\nHost: localhost:8080\r\n{bearer}\r\n" for path in paths),
        f"GET /?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        f"HEAD /healthz HTTP/1.1\r\nHost: [::1]:80\r\n{cookie}\r\n",
        f"GET /page.js HTTP/1.0\r\n{cookie}\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n{bearer}\r\nabc",
    ]
    return [Seed(f"{n}.http", text.encode()) for n, text in enumerate(texts)]


def read(case: Case) -> None:
    page = _page()
    answer = page.answer(case.data)
    if page.errors:
        error = page.errors.pop()
        raise Finding(TRACEBACK, f"{type(error).__name__}: {error}")
    if case.rng.random() < 0.05:
        alive = page.answer(f"GET /healthz HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        case.require(alive.startswith(b"HTTP/1.1 503"), f"/healthz answers {alive[:40]!r}")
    if not answer.startswith(_SERVED):
        case.require(TOKEN.encode() not in answer, "the answer shows the token")
        raise InputError(answer.partition(b"\r\n")[0].decode("latin-1") or "closed")
    proofs = (TOKEN.encode(), TOKEN.encode().hex().encode())
    case.require(
        any(proof in case.data for proof in proofs) or b"%" in case.data, "answered without the token"
    )


READERS = (Reader("requests", seeds, of_http, read),)
