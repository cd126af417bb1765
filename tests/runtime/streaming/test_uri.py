"""Parsing of URIs, and masking of credentials in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ufuser.runtime.errors import InputError
from ufuser.runtime.uri import mask, number, scheme_of, seconds, size, split, switch, whole


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:hunter2@cam/live", "rtsp://***@cam/live"),
        ("rtsp://admin@cam:554/live?channel=1", "rtsp://***@cam:554/live?channel=1"),
        ("rtsp://a:p@ss@cam/live", "rtsp://***@cam/live"),
        ("rtsp://a:p/ss@cam/live", "rtsp://***@cam/live"),
        ("rtsp://cam/user@home", "rtsp://cam/user@home"),
        ("rtsp://cam/live?user=a&password=hunter2&x=1", "rtsp://cam/live?user=a&password=***&x=1"),
        ("http://cam/?token=abc", "http://cam/?token=***"),
        (
            "rtspsrc location=rtsp://a:b@cam/1 user-id=admin user-pw=hunter2 ! decodebin",
            "rtspsrc location=rtsp://***@cam/1 user-id=*** user-pw=*** ! decodebin",
        ),
        ('rtspsrc user-pw="two words" ! x', "rtspsrc user-pw=*** ! x"),
        ("cannot open 'rtsp://a:b@cam/1': refused", "cannot open 'rtsp://***@cam/1': refused"),
        ("v4l2:///dev/video0?format=Y16", "v4l2:///dev/video0?format=Y16"),
        ("sim://thermal?fps=9&offset=12ms", "sim://thermal?fps=9&offset=12ms"),
    ],
)
def test_credentials_are_masked(text: str, shown: str) -> None:
    assert mask(text) == shown
    assert mask(shown) == shown


@given(st.text(st.characters(exclude_categories=("Cs", "Z", "C"), exclude_characters="'\"<>@"), min_size=6))
def test_no_password_survives(secret: str) -> None:
    assert f":{secret}@" not in mask(f"see rtsp://user:{secret}@10.0.0.9/live")


def test_parts() -> None:
    uri = split("v4l2:///dev/video0?format=Y16&size=640x512")
    assert (uri.scheme, uri.address, dict(uri.options)) == (
        "v4l2",
        "/dev/video0",
        {"format": "Y16", "size": "640x512"},
    )
    assert split("folder:DIR?fps=25").address == "DIR"
    assert split("gst:videotestsrc ! video/x-raw,width=64 ! appsink", with_options=False).address.endswith(
        "appsink"
    )
    assert split("gst:" + "queue ! " * 60 + "appsink", with_options=False).scheme == "gst"
    assert split("rtsp://cam/live?x=1", with_options=False).address == "cam/live?x=1"
    assert (scheme_of("C:\\clips\\a.mp4"), scheme_of("a.mp4"), scheme_of("RTSP://x")) == ("", "", "rtsp")


def test_what_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = Path("take?2=x.mp4")
    odd.touch()
    assert (split(str(odd)).address, split(str(odd)).options) == (str(odd), {})
    assert split("file:take?2=x.mp4").address == str(odd)


@pytest.mark.parametrize("text", ["x.mp4?live", "x.mp4?live=1&live=0"])
def test_bad_options(text: str) -> None:
    with pytest.raises(InputError, match=r"x\.mp4"):
        split(text)


def test_values() -> None:
    assert (
        number("2.5"),
        whole("7"),
        size("640x480"),
        switch("1"),
        seconds("8ms"),
        seconds("0.5s"),
        seconds("2"),
    ) == (
        2.5,
        7,
        (640, 480),
        True,
        0.008,
        0.5,
        2.0,
    )
    for parser, bad in (
        (number, "0"),
        (number, "nan"),
        (whole, "-1"),
        (size, "640"),
        (switch, "yes"),
        (seconds, "8 min"),
    ):
        with pytest.raises(ValueError, match="expected"):
            parser(bad)


@pytest.mark.parametrize("part", ["a-", "F", "token", "token= ", "a://", "a:@", " ", '"', "pass="])
def test_masking_takes_time_in_proportion_to_the_text(part: str) -> None:
    """A pattern that goes back and forth would take hours."""
    long = part * (300_000 // len(part))
    assert len(mask(long)) <= 3 * len(long)
    assert "hunter2" not in mask(f"{long} rtsp://u:hunter2@h {'x' * 100}-token=hunter2")
