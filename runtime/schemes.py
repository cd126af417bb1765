"""The table of URI schemes: built-in sources and sinks, and those that installed packages register.

A package registers a source by an entry point whose name is the scheme and whose value is a callable:

    [project.entry-points."ufuser.sources"]
    acme = "acme_camera:AcmeCamera"

`ufuser` calls it with the `Uri` and a `SourceContext` and gets a `Source`. For sinks the group is `ufuser.sinks`, the
arguments are the `Uri` and a `SinkContext`, and the result is a `Sink`. Nothing is imported before its scheme is used.
Two optional attributes of the callable describe a source: `live` and `virtual`, see `Scheme`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ufuser.runtime import uri as uris
from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.uri import Uri

SOURCES, SINKS = "ufuser.sources", "ufuser.sinks"
"""Groups of entry points."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One row of the table."""

    name: str
    """In URIs, without the colon; "" for a path."""
    target: str
    """`module:attribute` of the callable that opens it."""
    has_options: bool = True
    """Whether the part after the last `?` holds options for us. If not, it belongs to the address."""
    live: bool = True
    """Sources: frames come at their own pace, as from a camera. False for files."""
    virtual: bool = False
    """Sources: time is that of `SourceContext.clock`, so that `--speed` applies. False for real devices."""

    def load(self) -> Callable[[Uri, Any], Any]:
        """Import the callable. Raises InputError, in one line, for any failure."""
        module, _, attribute = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for name in attribute.split("."):
                found = getattr(found, name)
        except Exception as e:  # a broken package may raise anything
            reason = uris.mask(first_line(e))
            raise InputError(f"cannot load {self.target}, which opens '{self.name}:': {reason}") from None
        if not callable(found):
            raise InputError(f"{self.target}, which should open '{self.name}:', is not callable")
        return found  # type: ignore[no-any-return]

    def parse(self, text: str) -> Uri:
        """A URI or path of this scheme in its parts. Raises InputError for malformed options."""
        return uris.split(text, self.has_options)

    def open(self, uri: Uri, context: Any) -> Any:
        """Open a URI of this scheme.

        Raises:
            InputError: it cannot be opened. Any other exception becomes one.
        """
        opener = self.load()
        try:
            return opener(uri, context)
        except InputError:
            raise
        except Exception as e:  # a package may raise anything; a device may vanish while it is opened
            raise as_input_error(e, uri.name) from e


_FILES = "ufuser.runtime.sources.files:open_file"
_RECORDING = "ufuser.runtime.sinks.opening:open_path"
_BUILT_IN: Mapping[str, tuple[Scheme, ...]] = {
    SOURCES: (
        Scheme("v4l2", "ufuser.runtime.sources.v4l2:open_v4l2"),
        Scheme("csi", "ufuser.runtime.sources.gstreamer:open_csi"),
        Scheme("gst", "ufuser.runtime.sources.gstreamer:open_gst", has_options=False),
        Scheme("rtsp", "ufuser.runtime.sources.rtsp:open_rtsp", has_options=False),
        Scheme("rtsps", "ufuser.runtime.sources.rtsp:open_rtsp", has_options=False),
        Scheme("file", _FILES, live=False, virtual=True),
        Scheme("folder", _FILES, live=False, virtual=True),
        Scheme("", _FILES, live=False, virtual=True),
    ),
    SINKS: (
        Scheme("window", "ufuser.runtime.sinks.simple:open_window"),
        Scheme("file", _RECORDING),
        Scheme("folder", _RECORDING),
        Scheme("", _RECORDING),
        Scheme("mjpeg", "ufuser.runtime.sinks.page:open_page"),
        Scheme("rtsp", "ufuser.runtime.sinks.push:open_push", has_options=False),
        Scheme("rtsps", "ufuser.runtime.sinks.push:open_push", has_options=False),
        Scheme("null", "ufuser.runtime.sinks.simple:open_null"),
    ),
}


def find(group: str, text: str) -> Scheme:
    """The row for a URI or path.

    Built-in schemes cannot be replaced by a package.

    Args:
        group: `SOURCES` or `SINKS`.
        text: a URI or path.

    Raises:
        InputError: unknown scheme, two packages that register it, or a package that cannot be imported.
    """
    name = uris.scheme_of(text)
    for scheme in _BUILT_IN[group]:
        if scheme.name == name:
            return scheme
    targets = sorted(
        {point.value.split("[")[0].strip() for point in _registered(group) if point.name == name}
    )
    if len(targets) > 1:
        raise InputError(
            f"{uris.mask(text)}: scheme '{name}' is registered twice, by {' and '.join(targets)}: "
            f"expected one; uninstall the other package"
        )
    if targets:
        scheme = Scheme(name, targets[0])
        opener = scheme.load()
        live, virtual = getattr(opener, "live", True), getattr(opener, "virtual", False)
        return replace(scheme, live=bool(live), virtual=bool(virtual))
    known = sorted(
        {s.name for s in _BUILT_IN[group] if s.name} | {point.name for point in _registered(group)}
    )
    close = difflib.get_close_matches(name, known, 1)
    near = f" (did you mean {close[0]}?)" if close else ""
    raise InputError(
        f"{uris.mask(text)}: unknown scheme '{name}', expected {', '.join(known)} or a path{near}"
    )


def parse(group: str, text: str) -> Uri:
    """A URI or path in its parts. Raises InputError as `find` does, or for malformed options."""
    return find(group, text).parse(text)


def as_input_error(error: Exception, name: str) -> InputError:
    """The exception of a package or device as one line that names its URI, credentials masked."""
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return InputError(f"{name}: {kind}{uris.mask(first_line(error))}")


def _registered(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))
