"""The HTTP server of a stream: the page, pictures as multipart JPEG, `/report.json`, `/metrics`, `/healthz`.

It is for one's own machine or network, by the standard library alone. Whoever may look is decided before
anything else; there is nothing to change here, only to read.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ufuser.runtime.errors import InputError
from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.telemetry.prometheus import CONTENT_TYPE, exposition
from ufuser.runtime.web.pictures import Pictures

LOOPBACK = "127.0.0.1"
_ASSETS = Path(__file__).parent
_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_COOKIE = "ufuser_token"
_SEND_TIMEOUT = 5.0
"""Seconds after which a client that takes nothing is let go."""
_CLIENTS = 24
"""Connections at a time; the next is refused."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may look."""

    bind: str = LOOPBACK
    """Address to listen on where a URI names none."""
    token: str | None = None
    """Asked of everybody, where there is one; needed for any address but the machine's own."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server:
    """Serves in threads of its own, from construction until `close`.

    Args:
        host, port: where to listen; port 0 takes any free one.
        access: who may look.

    Raises:
        InputError: the port is in use, the address is not this machine's, or others could look without a token.
    """

    def __init__(self, host: str, port: int, access: Access) -> None:
        if not is_loopback(host) and not access.token:
            raise InputError(
                f"{host}:{port} can be reached by others: expected --token SECRET with it, or an address such as "
                f"{LOOPBACK}"
            )
        self.telemetry: Telemetry | None = None
        """Set when the stream exists."""
        self.pictures: Pictures | None = None
        """Set by the page's sink."""
        self._access, self._host = access, host
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        try:
            self._http = _Http((host, port), handler)
        except OSError as e:
            raise InputError(f"cannot listen on {host}:{port}: {e.strerror}") from None
        self.host, self.port = host, int(self._http.server_address[1])
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name="ufuser web", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    def admits(self, host_header: str, token: str) -> bool:
        """Whether a request may be answered.

        On the machine's own address the Host header must be such an address too: a page elsewhere could
        point its own name here (DNS rebinding).
        """
        if self._access.token is not None:
            return hmac.compare_digest(token.encode(), self._access.token.encode())
        name = host_header.rsplit(":", 1)[0] if not host_header.endswith("]") else host_header
        return is_loopback(name.strip("[]"))

    def close(self) -> None:
        """Listen no more and let every client go."""
        if not self.closing.is_set():
            self.closing.set()
            self._http.shutdown()
            self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._free = threading.BoundedSemaphore(_CLIENTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread, or refuse it: threads must not pile up."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread of one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    timeout = _SEND_TIMEOUT
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ufuser", ""

    def do_GET(self) -> None:
        self.close_connection = True
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if not self.owner.admits(self.headers.get("Host", ""), self._token(query)):
            self._plain(HTTPStatus.UNAUTHORIZED, "open this address with ?token=SECRET\n")
        elif "token" in query and parts.path == "/":
            self._remember(query["token"][0])
        else:
            self._answer(parts.path)

    def _answer(self, path: str) -> None:
        telemetry, pictures = self.owner.telemetry, self.owner.pictures
        if path == "/healthz":
            healthy = telemetry is not None and telemetry.healthy()
            status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
            self._plain(status, "ok\n" if healthy else "no frames\n")
        elif path == "/metrics" and telemetry is not None:
            self._send(HTTPStatus.OK, CONTENT_TYPE, exposition(telemetry).encode())
        elif path == "/report.json" and telemetry is not None:
            self._send(HTTPStatus.OK, "application/json", json.dumps(telemetry.report()).encode())
        elif path.startswith("/stream/") and pictures is not None:
            self._pictures(pictures, path.removeprefix("/stream/").removesuffix(".mjpg"))
        elif path in _PAGE and pictures is not None:
            name, kind = _PAGE[path]
            self._send(HTTPStatus.OK, kind, (_ASSETS / name).read_bytes())
        else:
            self._plain(HTTPStatus.NOT_FOUND, "not found\n")

    def _pictures(self, pictures: Pictures, view: str) -> None:
        if view not in pictures.VIEWS:
            return self._plain(HTTPStatus.NOT_FOUND, f"expected one of {', '.join(pictures.VIEWS)}\n")
        self.send_response(HTTPStatus.OK)
        self._headers("multipart/x-mixed-replace; boundary=frame")
        # Little in the kernel's hands: what waits there is old when it is seen.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        with pictures.watched(view):
            number = 0
            while not self.owner.closing.is_set():
                number, jpeg = pictures.after(view, number, timeout=0.5)
                if jpeg:
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")

    def _token(self, query: dict[str, list[str]]) -> str:
        given = self.headers.get("Authorization", "")
        if given.startswith("Bearer "):
            return given.removeprefix("Bearer ")
        if "token" in query:
            return query["token"][0]
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(_COOKIE)
        except CookieError:
            return ""
        return (
            bytes.fromhex(cookie.value).decode(errors="replace") if cookie and _is_hex(cookie.value) else ""
        )

    def _remember(self, token: str) -> None:
        """Keep the token in a cookie and out of the address, which histories and screenshots show."""
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Set-Cookie", f"{_COOKIE}={token.encode().hex()}; HttpOnly; SameSite=Strict; Path=/")
        self.send_header("Location", "/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _plain(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", text.encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self._headers(kind)
        self.wfile.write(body)

    def _headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a token may stand in the address."""


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and all(c in "0123456789abcdef" for c in text)
