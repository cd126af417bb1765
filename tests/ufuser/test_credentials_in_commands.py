"""No command prints, serves or writes a password: random ones, in any part of a URI, by flag and by settings file."""

from __future__ import annotations

import contextlib
import html
import io
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from ufuser.cli import main
from ufuser.runtime import schemes
from ufuser.runtime.credentials import KNOWN
from ufuser.runtime.frame import Frame
from ufuser.runtime.sources.source import Reading, SourceContext, Status
from ufuser.runtime.uri import Uri
from ufuser.runtime.web.server import Server

SECRET = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=6, max_size=16)
FORMS = st.sampled_from(
    [
        "rtsp://{user}:{secret}@127.0.0.1:9/live",
        "rtsps://{user}:{secret}@127.0.0.1:9/live?channel=1",
        "rtsp://127.0.0.1:9/live?user=admin&password={secret}",
        "rtsp://127.0.0.1:9/?pass={secret}",
        "rtsp://127.0.0.1:9/?channel=1&pwd={secret}",
        "gst:rtspsrc location=rtsp://{user}:{secret}@127.0.0.1:9/live ! decodebin",
        'gst:rtspsrc location=rtsp://127.0.0.1:9/live user-id="{user}" user-pw="{secret}" ! decodebin',
        "mjpeg://127.0.0.1:1?token={secret}",
        "http://{user}:{secret}@127.0.0.1:9/video.mjpg",
        "v4l2:///dev/video77?password={secret}",
        "clip.mp4?live=1&token={secret}",
    ]
)
QUICK = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Talkative:
    """A camera whose library quotes its URI in every error, in many ways."""

    live, length, repeats = True, None, True

    def __init__(self, uri: Uri, context: SourceContext) -> None:
        self.name, self._uri, self._clock, self._reads = uri.name, uri.text, context.clock, 0

    def read(self, timeout: float) -> Reading:
        self._reads += 1
        text = self._uri
        if self._reads > 3:
            raise RuntimeError(f"{text} {text!r} {quote(text)} {quote(text, safe='')} {html.escape(text)}")
        image = np.full((64, 64, 3), 60 * self._reads, np.uint8)
        now = self._clock.now()
        return Reading(Status.FRAME, Frame(image, now, self._reads, self.name, arrival=now))

    def close(self) -> None:
        raise OSError(f"cannot close {self._uri}")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    KNOWN.forget()


def output_of(*words: str) -> str:
    """What a command prints on both streams."""
    KNOWN.forget()
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        main([*words])
    return out.getvalue()


def ways_to_show(secret: str) -> set[str]:
    shown = {
        secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        html.escape(secret),
        quote(secret),
        quote(secret, safe=""),
    }
    return {form for form in shown if form.strip()}


def require_hidden(secret: str, *texts: str) -> None:
    for text in texts:
        for form in ways_to_show(secret):
            assert form not in text, text


def written_in(folder: Path) -> str:
    """Names and contents of all files of a folder."""
    return "\n".join(
        f"{path.name} {path.read_bytes().decode(errors='replace') if path.is_file() else ''}"
        for path in folder.rglob("*")
        if path.name != "settings.toml"
    )


Words = Callable[[str, Path], list[str]]
COMMANDS: dict[str, Words] = {
    "stream": lambda uri, at: [
        "stream",
        "--ir",
        uri,
        "--vi",
        "sim://visible",
        "--out",
        "null:",
        "--report",
        f"{at}/r",
    ],
    "stream out": lambda uri, at: ["stream", "--ir", "sim://thermal", "--vi", f"{at}/none.png", "--out", uri],
    "stream token": lambda uri, at: ["stream", "--ir", uri, "--vi", uri, "--token", uri, "--tokem", uri],
    "fuse": lambda uri, at: ["fuse", "--ir", uri, "--vi", f"{at}/b.png", "--out", f"{at}/out.png", "--json"],
    "fuse out": lambda uri, at: ["fuse", "--ir", f"{at}/a.png", "--vi", f"{at}/b.png", "--out", uri],
    "fuse model": lambda uri, at: [
        "fuse",
        "--ir",
        "a.png",
        "--vi",
        "b.png",
        "--out",
        "c.png",
        "--model",
        uri,
    ],
    "points": lambda uri, at: [
        "calibrate",
        "points",
        "--ir",
        uri,
        "--vi",
        f"{at}/b.png",
        "--out",
        f"{at}/c.json",
    ],
    "refine": lambda uri, at: [
        "calibrate",
        "refine",
        "--ir",
        uri,
        "--vi",
        f"{at}/b.png",
        "--out",
        f"{at}/c.json",
    ],
    "offset": lambda uri, at: ["calibrate", "offset", "--ir", uri, "--vi", uri, "--seconds", "1"],
    "check": lambda uri, at: [
        "calibrate",
        "check",
        "--ir",
        uri,
        "--vi",
        f"{at}/b.png",
        "--out",
        f"{at}/c.png",
    ],
    "wrong word": lambda uri, at: ["stream", uri],
    "wrong choice": lambda uri, at: ["stream", "--ir", uri, "--vi", uri, "--sync", uri, "--max-skew", uri],
}


@pytest.mark.parametrize("command", COMMANDS)
@given(form=FORMS, user=SECRET, secret=SECRET, encoded=st.booleans())
@QUICK
def test_no_command_shows_a_password(
    command: str, form: str, user: str, secret: str, encoded: bool, tmp_path: Path
) -> None:
    assume(secret.strip() == secret and secret not in form)
    uri = form.format(user=user, secret=quote(secret, safe="") if encoded else secret)
    require_hidden(secret, output_of(*COMMANDS[command](uri, tmp_path)), written_in(tmp_path))


@given(
    form=FORMS, user=SECRET, secret=SECRET, key=st.sampled_from(["ir", "vi", "out", "token", "sync", "irr"])
)
@QUICK
def test_nor_do_settings_of_a_file(form: str, user: str, secret: str, key: str, tmp_path: Path) -> None:
    assume(secret.strip() == secret and secret not in form)
    uri = form.format(user=user, secret=secret)
    values = {"ir": "sim://thermal", "vi": f"{tmp_path}/none.png", "out": "null:", key: uri}
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    lines += [f"extra = [{{a = {json.dumps(uri)}}}]"] if key == "irr" else []
    config = tmp_path / "settings.toml"
    config.write_text("\n".join(lines), encoding="utf-8")
    require_hidden(secret, output_of("stream", "--config", str(config)), written_in(tmp_path))


@given(form=FORMS, secret=SECRET)
@settings(QUICK, max_examples=6, phases=[Phase.explicit, Phase.generate])
def test_a_camera_that_fails_shows_it_nowhere(
    form: str, secret: str, tmp_path: Path, max_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its library shows the URI in every error; report, events, page, metrics and JSON are read."""
    assume(secret.strip() == secret and secret not in form and not secret.isdigit())
    uri = form.format(user="admin", secret=secret)
    find = schemes.find
    scheme = schemes.Scheme("talk", f"{__name__}:Talkative", has_options=False)
    load = schemes.Scheme.load
    monkeypatch.setattr(schemes.Scheme, "load", lambda self: Talkative if self is scheme else load(self))
    monkeypatch.setattr(schemes, "find", lambda group, text: scheme if text == uri else find(group, text))
    pages: list[str] = []
    close = Server.close

    def read_and_close(self: Any) -> None:
        for path in ("", "metrics", "report.json", "healthz"):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}{path}", timeout=5) as page:
                pages.append(page.read().decode())
        close(self)

    monkeypatch.setattr(Server, "close", read_and_close)
    report = tmp_path / "report.json"
    words = [
        "stream",
        "--ir",
        uri,
        "--vi",
        "sim://visible?size=64x64",
        "--model",
        str(max_model),
        "--out",
        "null:",
    ]
    words += ["--metrics", "0", "--report", str(report), "--duration", "0.5", "--json"]
    printed = output_of(*words)
    assert '"schema"' in printed, printed
    assert len(pages) >= 2
    require_hidden(secret, printed, written_in(tmp_path), *pages)
    assert "RuntimeError" in report.read_text()
