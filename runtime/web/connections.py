"""The connections of the HTTP server: slow clients, and clients that have gone, must not lock out the others."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds before the first probe and between probes, and the number of lost ones that end a connection."""


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


class Connections(ThreadingHTTPServer):
    """Accepts connections and gives each a thread.

    Args:
        address: host and port to listen on.
        handler: handles one connection; it calls `complete` when it has read the request.
        requests: see `Limits.requests`.
    """

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


class UntilDeadline(io.RawIOBase):
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


def for_a_viewer(connection: socket.socket) -> None:
    """Prepare a connection for pictures."""
    # Small kernel buffers: a picture that waits there is old when it is shown.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
    # A client that vanished from the network closes nothing: let the kernel probe it.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def client_has_gone(connection: socket.socket) -> bool:
    """Whether the client has closed its end, which shows nowhere else while nothing is sent."""
    timeout = connection.gettimeout()
    connection.settimeout(0)
    try:
        return not connection.recv(1 << 12)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(timeout)
