"""The HTTP server of a stream: the page, pictures as multipart JPEG, `/report.json`, `/metrics`, `/healthz`.

For the local machine or network. It is read-only, and checks the token before it answers anything.
"""

from __future__ import annotations

import hmac
import io
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ufuser.runtime.errors import InputError
from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.web.pictures import Pictures

LOOPBACK = "127.0.0.1"
_ASSETS = Path(__file__).parent
_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_COOKIE = "ufuser_token"
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds before the first probe and between probes, and the number of lost ones that end a connection."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect."""

    bind: str = LOOPBACK
    """Address to listen on if a URI names none."""
    token: str | None = None
    """Every request must carry it; required on any address but loopback."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client can take from the others. `/healthz` and `/metrics` are answered however many watch."""

    request_s: float = 5.0
    """Seconds from the connection until the request's headers are complete."""
    send_s: float = 5.0
    """Seconds in which a client must take an answer or a picture."""
    watch_s: float = 0.5
    """Seconds after which a connection without new pictures is checked for a client that has gone."""
    requests: int = 16
    """Connections whose request is incomplete; a new one replaces the oldest."""
    watchers: int = 24
    """Connections that are sent pictures; the next is answered 503."""


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
        access: who may connect.
        limits: deadlines and numbers of connections.

    Raises:
        InputError: the port is in use, the address is not this machine's, others could connect without a token, or
            prometheus_client is not installed.
    """

    def __init__(self, host: str, port: int, access: Access, limits: Limits | None = None) -> None:
        if not is_loopback(host) and not access.token:
            raise InputError(
                f"{host}:{port} can be reached by others: expected `token` with it, or an address such as "
                f"{LOOPBACK}"
            )
        self.metrics = _metrics_module()
        self.telemetry: Telemetry | None = None
        """Set when the stream exists."""
        self.pictures: Pictures | None = None
        """Set by the page's sink."""
        self._access, self.limits = access, limits or Limits()
        self.closing = threading.Event()
        self._watchers = threading.BoundedSemaphore(self.limits.watchers)
        handler = type("Handler", (_Handler,), {"owner": self, "timeout": self.limits.send_s})
        try:
            self._http = _Http((host, port), handler, self.limits.requests)
        except OSError as e:
            raise InputError(f"cannot listen on {host}:{port}: {e.strerror}") from None
        self.host, self.port = host, int(self._http.server_address[1])
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name="ufuser web", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """The address for a browser."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    def admits(self, host_header: str, token: str) -> bool:
        """Whether a request may be answered.

        Without a token, the Host header must be a loopback address too: another web page could resolve its own name
        to this machine (DNS rebinding).
        """
        if self._access.token is not None:
            return hmac.compare_digest(token.encode(), self._access.token.encode())
        name = host_header.rsplit(":", 1)[0] if not host_header.endswith("]") else host_header
        return is_loopback(name.strip("[]"))

    @contextmanager
    def watching(self) -> Iterator[bool]:
        """Count a watcher; gives whether there is room for it."""
        room = self._watchers.acquire(blocking=False)
        try:
            yield room
        finally:
            if room:
                self._watchers.release()

    def close(self) -> None:
        """Stop listening and end every connection."""
        if not self.closing.is_set():
            self.closing.set()
            self._http.shutdown()
            self._http.server_close()


def _metrics_module() -> ModuleType:
    try:
        return import_module("ufuser.runtime.telemetry.prometheus")
    except ModuleNotFoundError as e:
        if e.name != "prometheus_client":
            raise
        raise InputError('prometheus_client is not installed: pip install "ufuser[metrics]"') from None


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], handler: Callable[..., BaseHTTPRequestHandler], requests: int
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._requests = requests
        self._lock = threading.Lock()
        self._incomplete: dict[socket.socket, None] = {}
        """Connections whose request is incomplete, the oldest first."""
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread. Slow clients lose their place: they must not lock out the others."""
        with self._lock:
            if len(self._incomplete) >= self._requests:
                oldest = next(iter(self._incomplete))
                del self._incomplete[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread reads the end and closes it
            self._incomplete[request] = None
        super().process_request(request, client_address)

    def complete(self, request: Any) -> None:
        """The connection's request has been read, or the connection ends."""
        with self._lock:
            self._incomplete.pop(request, None)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self.complete(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of a connection: the client has gone."""


class _UntilDeadline(io.RawIOBase):
    """Reads from a socket until a deadline that holds for all reads together."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._deadline = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    server: _Http
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ufuser", ""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_UntilDeadline(self.connection, self.owner.limits.request_s))

    def parse_request(self) -> bool:
        """Read the headers after the request line; from here on only sending has a deadline."""
        complete = super().parse_request()
        self.server.complete(self.request)
        self.connection.settimeout(self.owner.limits.send_s)
        return complete

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

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, path: str) -> None:
        telemetry, pictures = self.owner.telemetry, self.owner.pictures
        if path == "/healthz":
            healthy = telemetry is not None and telemetry.healthy()
            status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
            self._plain(status, "ok\n" if healthy else "no frames\n")
        elif path == "/metrics" and telemetry is not None:
            metrics = self.owner.metrics
            self._send(HTTPStatus.OK, metrics.CONTENT_TYPE, metrics.exposition(telemetry))
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
        with self.owner.watching() as room:
            if not room:
                return self._plain(HTTPStatus.SERVICE_UNAVAILABLE, "too many watchers\n")
            self.send_response(HTTPStatus.OK)
            self._headers("multipart/x-mixed-replace; boundary=frame")
            if self.command != "HEAD":
                self._send_pictures(pictures, view)

    def _send_pictures(self, pictures: Pictures, view: str) -> None:
        # Small kernel buffers: a picture that waits there is old when it is shown.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        # A client that vanished from the network closes nothing: let the kernel probe it.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            if hasattr(socket, option):
                self.connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        with pictures.watched(view):
            number = 0
            while not self.owner.closing.is_set():
                number, jpeg = pictures.after(view, number, self.owner.limits.watch_s)
                if jpeg:
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                elif self._client_has_gone():
                    break

    def _client_has_gone(self) -> bool:
        """Whether the client has closed the connection, which shows nowhere else while nothing is sent."""
        self.connection.settimeout(0)
        try:
            return not self.connection.recv(1 << 12)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.connection.settimeout(self.owner.limits.send_s)

    def _token(self, query: dict[str, list[str]]) -> str:
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return given.strip()
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
        """Move the token from the address, which histories and screenshots show, into a cookie."""
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
        if self.command != "HEAD":
            self.wfile.write(body)

    def _headers(self, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the address may hold a token."""


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and all(c in "0123456789abcdef" for c in text)
