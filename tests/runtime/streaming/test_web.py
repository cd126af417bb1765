"""The page and the figures over HTTP: access, content, and slow clients, which never delay the stream or others."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from ufuser.runtime.clock import Clock
from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import FusedFrame
from ufuser.runtime.sinks.page import PageSink, page_address
from ufuser.runtime.telemetry import Telemetry
from ufuser.runtime.uri import split
from ufuser.runtime.web.connections import Limits
from ufuser.runtime.web.server import Access, Server, is_loopback

TOKEN = "correct horse"


def page(access: Access | None = None, host: str = "127.0.0.1") -> PageSink:
    sink = PageSink("mjpeg://test", (host, 0), access or Access())
    sink.server.telemetry = Telemetry({"ir": "sim://thermal", "vi": "sim://visible"}, Clock())
    return sink


@pytest.fixture
def open_page() -> Iterator[PageSink]:
    """A page for this machine, without a token."""
    sink = page()
    yield sink
    sink.close()


@pytest.fixture
def closed_page() -> Iterator[PageSink]:
    """A page on all addresses, with a token."""
    sink = page(Access(token=TOKEN), "0.0.0.0")
    yield sink
    sink.close()


def get(sink: PageSink, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", sink.server.port, timeout=5)
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


def frame(index: int, lost: bool = False) -> FusedFrame:
    grey = np.full((48, 64), 10 * index % 256, np.uint8)
    return FusedFrame(
        cv2.merge([grey] * 3), index / 10, index, "x", ir=None if lost else grey, vi=cv2.merge([grey] * 3)
    )


def stream(sink: PageSink, view: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", sink.server.port), timeout=5)
    connection.sendall(f"GET /stream/{view}.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def next_jpeg(lines: Any) -> np.ndarray:
    length = 0
    for line in lines:
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        elif line == b"\r\n" and length:
            image = cv2.imdecode(np.frombuffer(lines.read(length), np.uint8), cv2.IMREAD_UNCHANGED)
            assert image is not None
            return image
    raise AssertionError("the stream ended")


def test_page_and_its_parts(open_page: PageSink) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, headers, body = get(open_page, path)
        assert status == 200
        assert headers["content-type"].startswith(kind)
        assert "default-src 'self'" in headers["content-security-policy"]
        assert len(body) > 500
    html = get(open_page, "/")[2].decode()
    assert "<style" not in html
    assert not re.search(r"<script(?! src)|\son\w+=|style=|https?://", html), "the policy would refuse it"
    assert get(open_page, "/etc/passwd")[0] == 404
    assert get(open_page, "/../server.py")[0] == 404


def test_pictures_of_each_view(open_page: PageSink) -> None:
    open_page.write(frame(3))
    for view, level in (("fused", 30), ("ir", 30), ("vi", 30)):
        connection = stream(open_page, view)
        lines = connection.makefile("rb")
        image = next_jpeg(lines)
        assert image.shape[:2] == (48, 64)
        assert int(np.median(image)) == pytest.approx(level, abs=3)
        open_page.write(frame(9))
        assert int(np.median(next_jpeg(lines))) == pytest.approx(90, abs=3)
        open_page.write(frame(3))
        connection.close()
    assert get(open_page, "/stream/secret.mjpg")[0] == 404


def test_a_lost_camera_sends_nothing(open_page: PageSink) -> None:
    connection = stream(open_page, "ir")
    time.sleep(0.1)
    open_page.write(frame(1, lost=True))
    open_page.write(frame(7))
    assert int(np.median(next_jpeg(connection.makefile("rb")))) == pytest.approx(70, abs=3)
    connection.close()


def test_nothing_is_encoded_without_a_viewer(open_page: PageSink, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*_: Any) -> None:
        raise AssertionError("encoded without a viewer")

    monkeypatch.setattr(cv2, "imencode", encode)
    for index in range(5):
        open_page.write(frame(index))


def test_a_hanging_client_delays_nobody(start_stream: Any, open_page: PageSink) -> None:
    hanging = [stream(open_page, "fused") for _ in range(3)]
    for connection in hanging:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)  # a large JPEG
    slowest = 0.0
    for index in range(40):
        began = time.monotonic()
        open_page.write(FusedFrame(np.roll(noise, index, 0), index / 10, index, "x"))
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 1, "no longer than encoding takes on a busy machine; the clients wait five seconds"
    looking = stream(open_page, "fused")
    assert next_jpeg(looking.makefile("rb")).shape == (480, 640, 3)
    for connection in (*hanging, looking):
        connection.close()
    # And in a stream, beside another sink.
    run = start_stream([open_page], fps=(30.0, 30.0))
    hanging = [stream(open_page, "fused") for _ in range(3)]
    run.until(lambda: run.moment > 1.5)
    assert run.stream.telemetry.report()["fused"]["fps_lately"] > 20
    for connection in hanging:
        connection.close()


# Clients that hold connections


@pytest.fixture
def small() -> Iterator[PageSink]:
    """A page with room for four watchers and four incomplete requests, whose deadline never comes."""
    sink = page()
    sink.close()
    sink.server = Server(
        "127.0.0.1", 0, Access(), Limits(request_s=600, watch_s=0.05, requests=4, watchers=4)
    )
    sink.server.telemetry = Telemetry({"ir": "sim://thermal", "vi": "sim://visible"}, Clock())
    sink.server.pictures = sink._pictures
    yield sink
    sink.close()


def watch(sink: PageSink, view: str) -> tuple[socket.socket, int]:
    """A connection that watches a view, and the status that it was answered."""
    connection = stream(sink, view)
    return connection, int(connection.recv(12).split()[1])


@pytest.mark.parametrize("view", ["ir", "fused"])
def test_a_watcher_that_has_gone_frees_its_place(small: PageSink, view: str) -> None:
    if view == "ir":
        small.write(
            frame(1, lost=True)
        )  # the infrared camera is lost; without a frame nothing is shown at all
    connections, statuses = zip(*(watch(small, view) for _ in range(4)), strict=True)
    assert statuses == (200,) * 4
    refused, status = watch(small, view)
    assert status == 503
    for connection in (*connections, refused):
        connection.close()
    deadline = time.monotonic() + 10
    while status != 200 and time.monotonic() < deadline:
        connection, status = watch(small, view)
        connection.close()
    assert status == 200


def test_health_and_metrics_are_answered_while_others_hold_connections(small: PageSink) -> None:
    watchers = [watch(small, "ir")[0] for _ in range(4)]
    slow = []
    for _ in range(3):
        for _ in range(5):
            slow.append(socket.create_connection(("127.0.0.1", small.server.port), timeout=5))
            slow[-1].sendall(b"GET / HTTP/1.1\r\nX: a")
        assert get(small, "/healthz")[0] == 503  # no frames, but an answer
        assert get(small, "/metrics")[0] == 200
    assert slow[0].recv(1) == b"", "the oldest incomplete request was ended"
    for connection in (*watchers, *slow):
        connection.close()


def test_a_slow_request_has_a_deadline() -> None:
    server = Server("127.0.0.1", 0, Access(), Limits(request_s=0.4))
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.05) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
        answer, sent = None, 0
        while answer is None and sent < 200:
            try:
                connection.sendall(b"a")
                sent += 1
                answer = connection.recv(1)
            except TimeoutError:
                continue
            except OSError:
                answer = b""
    assert answer == b""
    assert sent < 200
    server.close()


def test_many_connections_wait_to_be_accepted() -> None:
    server = Server("127.0.0.1", 0, Access())
    server._http.shutdown()  # accept no more
    connections = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(60)]
    for connection in connections:
        connection.close()
    server.close()


def test_head_returns_headers_only(open_page: PageSink) -> None:
    open_page.write(frame(1))
    for path in ("/", "/page.js", "/metrics", "/report.json", "/healthz", "/stream/fused.mjpg", "/gone"):
        expected = "multipart" if "stream" in path else get(open_page, path)[1]["content-type"]
        status, headers, body = get(open_page, path, method="HEAD")
        assert status == {"/healthz": 503, "/gone": 404}.get(path, 200), path
        assert headers["content-type"].startswith(expected)
        assert body == b""


def test_figures_and_health(open_page: PageSink) -> None:
    telemetry = open_page.server.telemetry
    assert telemetry is not None
    status, _, body = get(open_page, "/healthz")
    assert (status, body) == (503, b"no frames\n")
    telemetry.fused(frozenset())
    assert get(open_page, "/healthz")[0] == 200
    report = json.loads(get(open_page, "/report.json")[2])
    assert report["fused"]["frames"] == 1
    status, headers, body = get(open_page, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    assert b"ufuser_fused_frames_total 1.0\n" in body


def test_only_metrics_without_a_page() -> None:
    server = Server("127.0.0.1", 0, Access())
    server.telemetry = Telemetry({"ir": "a", "vi": "b"}, Clock())
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", "/")
    assert connection.getresponse().status == 404
    server.close()


def test_without_prometheus_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "ufuser.runtime.telemetry.prometheus")
    with pytest.raises(InputError, match=r"prometheus_client is not installed.*ufuser\[metrics\]"):
        Server("127.0.0.1", 0, Access())


# Access


def test_without_the_token_nothing_is_answered(closed_page: PageSink) -> None:
    closed_page.write(frame(1))
    for path in (
        "/",
        "/page.js",
        "/metrics",
        "/healthz",
        "/report.json",
        "/stream/fused.mjpg",
        "/?token=wrong",
    ):
        status, headers, body = get(closed_page, path)
        assert status == 401, path
        assert TOKEN.encode() not in body
        assert "set-cookie" not in headers
    assert get(closed_page, "/metrics", Authorization="Bearer wrong")[0] == 401
    assert get(closed_page, "/metrics", Cookie="ufuser_token=zz")[0] == 401
    assert get(closed_page, "/metrics", Cookie='"\\')[0] == 401


@pytest.mark.parametrize(
    "request_text",
    [f"GET /?token={TOKEN} x HTTP/1.1", f"PUT /?token={TOKEN} HTTP/1.1", f"{TOKEN}", "GET / HTTP/9.9"],
)
def test_what_is_no_request_is_not_shown_in_the_answer(closed_page: PageSink, request_text: str) -> None:
    with socket.create_connection(("127.0.0.1", closed_page.server.port), timeout=5) as connection:
        connection.sendall(f"{request_text}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    assert "bad request" in answer
    assert TOKEN not in answer
    assert TOKEN.split()[0] not in answer


def test_with_the_token(closed_page: PageSink) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert get(closed_page, "/metrics", Authorization=f"{scheme} {TOKEN}")[0] == 200
    status, headers, _ = get(closed_page, "/?token=correct%20horse")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    kept = cookie.split(";")[0]
    assert get(closed_page, "/", Cookie=kept)[0] == 200
    assert get(closed_page, "/report.json", Cookie=kept)[0] == 200


def test_a_foreign_name_for_this_machine_is_refused(open_page: PageSink) -> None:
    assert get(open_page, "/report.json", Host="localhost:8080")[0] == 200
    assert get(open_page, "/report.json", Host="[::1]:8080")[0] == 200
    assert get(open_page, "/report.json", Host="evil.example:8080")[0] == 401


def test_addresses() -> None:
    assert page_address(split("mjpeg://127.0.0.1:8080"), Access()) == ("127.0.0.1", 8080)
    assert page_address(split("mjpeg://:8080"), Access("10.0.0.5", TOKEN)) == ("10.0.0.5", 8080)
    assert page_address(split("mjpeg://[::1]:0/"), Access()) == ("::1", 0)
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "evil.example", "")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    for host in ("0.0.0.0", "::"):
        with pytest.raises(InputError, match="can be reached by others: expected `token`"):
            Server(host, 0, Access())
