"""The last filter: no secret is left in any text, whatever its characters and its encoding."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ufuser.runtime.credentials import Credentials
from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.uri import mask

ANY = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20)
"""What may stand in a command line."""
FORMS = (
    "rtsp://{user}:{secret}@10.0.0.9/live?channel=1",
    "rtsps://{user}:{secret}@[fe80::1]:554",
    "rtsp://10.0.0.9/live?user=a&password={secret}",
    "rtsp://10.0.0.9/?pass={secret}",
    "http://10.0.0.9/video.mjpg?x=1&pwd={secret}",
    "mjpeg://:8080?token={secret}",
    "gst:rtspsrc location=rtsp://{user}:{secret}@10.0.0.9/1 latency=0 ! decodebin",
    'gst:rtspsrc location="rtsp://10.0.0.9/1" user-id="{user}" user-pw="{secret}" ! decodebin',
)
"""URIs of a camera or an output with a password."""


def shown_somehow(text: str) -> list[str]:
    """A text as libraries show it."""
    return [
        text,
        repr(text),
        json.dumps(text),
        html.escape(text),
        quote(text),
        quote(text, safe=""),
        re.sub("%..", lambda octet: octet[0].lower(), quote(text, safe="")),
        " ".join(text.split()),
        ascii(text),
    ]


def is_in(secret: str, text: str) -> bool:
    """Whether a secret can be read in a text, in any of the forms above."""
    return any(form.strip("'\"") in text for form in shown_somehow(secret) if form.strip("'\" "))


@pytest.mark.parametrize("form", FORMS)
@given(user=ANY, secret=ANY)
@example(user="admin", secret="pa'ss<wo @rd/x")
@example(user="admin", secret="a&b#c?d=e;f,g!h")
@example(user="a:b", secret='two " quotes"')
@example(user="ü", secret="pässwörd\n€")
@example(user="a", secret="x\\'y\\")
@settings(max_examples=25, deadline=None)
def test_no_secret_is_left(form: str, user: str, secret: str) -> None:
    assume(
        len(secret.strip()) >= 3
        and not is_in(secret, form.format(user="", secret=""))
        and "***" not in secret
    )
    for given_as in (secret, quote(secret, safe="")):
        known = Credentials()
        known.learn(form.format(user=user, secret=given_as))
        for text in shown_somehow(
            f"cannot open {form.format(user=user, secret=given_as)}: {secret} is wrong"
        ):
            left = known.clean(text)
            assert not is_in(secret, left), left
            assert given_as not in left


@pytest.mark.parametrize("form", FORMS)
@given(secret=st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), min_size=1, max_size=2))
@settings(max_examples=15, deadline=None)
def test_a_short_secret_is_removed_in_its_place(form: str, secret: str) -> None:
    assume(secret.strip() and secret.strip(" *'\""))
    known = Credentials()
    known.learn(form.format(user="admin", secret=secret))
    left = known.clean(f"cannot open {form.format(user='admin', secret=secret)} refused")
    for place in (
        f"admin:{secret}@",
        f"pass={secret.strip()}",
        f"password={secret.strip()}",
        f"pwd={secret.strip()}",
    ):
        assert place not in left.replace("***", "")


def test_a_short_secret_does_not_take_words_apart() -> None:
    known = Credentials()
    known.learn("rtsp://admin:ab@10.0.0.9/")
    assert known.clean("about rtsp://admin:ab@10.0.0.9/") == "about rtsp://***@10.0.0.9/"


def test_numbers_and_names_of_fields_stay() -> None:
    known = Credentials()
    known.learn("rtsp://admin:frames@10.0.0.9/")
    known.learn_secret("1234")
    report = {
        "frames": 1234,
        "cameras": [{"uri": "rtsp://admin:frames@10.0.0.9/1234"}],
        "rtsp://x/frames": "a",
    }
    assert known.clean_all(report) == {
        "frames": 1234,
        "cameras": [{"uri": "rtsp://***@10.0.0.9/***"}],
        "rtsp://x/***": "a",
    }


def test_a_text_is_cleaned_before_it_is_cut() -> None:
    """Or a part of the password would remain at the end of the text."""
    mask("rtsp://u:x@h")
    from ufuser.runtime.credentials import KNOWN

    KNOWN.learn("rtsp://admin:correct-horse-battery@10.0.0.9/")
    for length in range(170, 200):
        error = ValueError("x" * length + "correct-horse-battery")
        assert "corr" not in first_line(error)
    assert str(InputError("correct-horse-battery is wrong")) == "*** is wrong"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux")
def test_the_process_list_shows_no_password(tmp_path: Path) -> None:
    script = (
        "import sys; from ufuser.cli import main; import ufuser.runtime.command as c\n"
        "c._run = lambda *a: print(open('/proc/self/cmdline', 'rb').read()) or 0\n"
        "main()"
    )
    words = ["stream", "--ir", "rtsp://bob:hunter2@10.0.0.9/a", "--token", "correct-horse"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False, env=os.environ
    )
    assert "rtsp://***@10.0.0.9/a" in done.stdout, done.stderr
    assert "hunter2" not in done.stdout
    assert "correct-horse" not in done.stdout
