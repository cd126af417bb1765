"""A small RTSP camera for tests: H.264 over TCP, a password, and a way to close the connection."""

from __future__ import annotations

import base64
import itertools
import socket
import struct
import threading
import time
from fractions import Fraction
from typing import Any

import numpy as np

SIZE, FPS = (96, 64), 25
"""Width and height; frames per second."""


def _units(count: int) -> list[list[bytes]]:
    """NAL units of `count` frames, each its own key frame: grey levels that rise by eight."""
    import av

    codec: Any = av.CodecContext.create("libx264", "w")
    codec.width, codec.height = SIZE
    codec.pix_fmt, codec.time_base, codec.framerate = "yuv420p", Fraction(1, FPS), Fraction(FPS)
    codec.options = {
        "tune": "zerolatency",
        "g": "1",
        "preset": "ultrafast",
        "x264-params": "sliced-threads=0",
    }
    frames = []
    for index in range(count):
        image = np.full((SIZE[1] * 3 // 2, SIZE[0]), 128, np.uint8)
        image[: SIZE[1]] = 20 + 8 * (index % 25)
        frame = av.VideoFrame.from_ndarray(image, "yuv420p")
        frame.pts, frame.time_base = index, codec.time_base
        data = b"".join(bytes(packet) for packet in codec.encode(frame))
        frames.append([unit.strip(b"\0") for unit in data.split(b"\0\0\1") if unit.strip(b"\0")])
    return frames


class RtspServer:
    """Serves one camera on a free port of this machine.

    Args:
        password: of the user `admin`; None asks for none.
        hang_up_after: frames after which each connection is closed; None never.
    """

    def __init__(self, password: str | None = None, hang_up_after: int | None = None) -> None:
        self._password, self._hang_up = password, hang_up_after
        self._frames = _units(50)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._stop = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """Address without scheme and credentials."""
        return f"127.0.0.1:{self.port}/live"

    def close(self) -> None:
        """Stop serving."""
        self._stop.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while True:
                head = list(itertools.takewhile(lambda line: line not in (b"\r\n", b""), lines))
                if not head:
                    return
                method = head[0].split()[0].decode()
                fields = {
                    k.strip().lower(): v.strip() for k, _, v in (h.decode().partition(":") for h in head[1:])
                }
                if not self._answer(connection, method, fields):
                    return

    def _answer(self, connection: socket.socket, method: str, fields: dict[str, str]) -> bool:
        def say(status: str, *extra: str, body: str = "") -> bool:
            lines = [f"RTSP/1.0 {status}", f"CSeq: {fields.get('cseq', '0')}", *extra]
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
            return True

        if method == "OPTIONS":
            return say("200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        given = fields.get("authorization", "")
        wanted = "Basic " + base64.b64encode(f"admin:{self._password}".encode()).decode()
        if self._password is not None and given != wanted:
            return say("401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"')
        if method == "DESCRIBE":
            sets = ",".join(base64.b64encode(u).decode() for u in self._frames[0] if u[0] & 31 in (7, 8))
            sdp = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                "a=rtpmap:96 H264/90000\r\n"
                f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:track0\r\n"
            )
            return say("200 OK", "Content-Type: application/sdp", f"Content-Length: {len(sdp)}", body=sdp)
        if method == "SETUP":
            return say("200 OK", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1")
        if method == "PLAY":
            say("200 OK", "Session: 1")
            self._play(connection)
        return False

    def _play(self, connection: socket.socket) -> None:
        self.connections += 1
        sequence, began = itertools.count(), time.monotonic()
        for index in itertools.count():
            if self._stop.is_set() or index == self._hang_up:
                return
            time.sleep(max(0.0, began + index / FPS - time.monotonic()))
            units = [u for u in self._frames[index % len(self._frames)] if u[0] & 31 in (5, 7, 8)]
            for place, unit in enumerate(units):
                marker = 0x80 if place == len(units) - 1 else 0
                head = struct.pack(
                    ">BBHII", 0x80, 96 | marker, next(sequence) & 0xFFFF, index * 90000 // FPS, 1
                )
                packet = head + unit
                try:
                    connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                except OSError:
                    return
