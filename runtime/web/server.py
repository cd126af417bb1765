"""The HTTP server of a stream: the page, pictures as multipart JPEG, `/report.json`, `/metrics`, `/healthz`.

For the local machine or network. It is read-only, and checks the token before it answers anything.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler
from importlib import import_module
from io import BufferedReader
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ufuser.runtime.errors import InputError
from ufuser.runtime.remedies import how_to_install
from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.web.connections import Connections, Limits, UntilDeadline, client_has_gone, for_a_viewer
from ufuser.runtime.web.pictures import Pictures

LOOPBACK = "127.0.0.1"
_ASSETS = Path(__file__).parent
_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_COOKIE = "ufuser_token"
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
        try:
            self._http = Connections((host, port), partial(_Handler, self), self.limits.requests)
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
        raise InputError(
            f"prometheus_client is not installed: {how_to_install('prometheus_client')}"
        ) from None


class _Handler(BaseHTTPRequestHandler):
    server: Connections
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ufuser", ""

    def __init__(self, owner: Server, *connection: Any) -> None:
        self.owner = owner
        super().__init__(*connection)

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = BufferedReader(UntilDeadline(self.connection, self.owner.limits.request_s))

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
        for_a_viewer(self.connection)
        with pictures.watched(view):
            number = 0
            while not self.owner.closing.is_set():
                number, jpeg = pictures.after(view, number, self.owner.limits.watch_s)
                if jpeg:
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                elif client_has_gone(self.connection):
                    break

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

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request that is no HTTP, without showing it: it may hold a token."""
        self.close_connection = True
        self._plain(HTTPStatus(code), "bad request\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the address may hold a token."""


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and all(c in "0123456789abcdef" for c in text)
