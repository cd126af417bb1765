"""`sim://thermal` and `sim://visible` as sources of the runtime, registered by an entry point."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from numpy.typing import NDArray

from ufuser.runtime.frame import Frame
from ufuser.runtime.sources.playback import FAULT_OPTIONS, Faults, Player
from ufuser.runtime.sources.source import Reading, Source, SourceContext, Status
from ufuser.runtime.uri import Uri
from ufuser.simulation import Scene, SimCamera, SimConfig


class SimSource:
    """A simulated camera, rendered as fast as it is read; lost frames leave gaps in `sequence`."""

    live, length, repeats = False, None, True

    def __init__(self, name: str, camera: SimCamera) -> None:
        self.name, self._camera = name, camera
        self._indices = camera.indices()

    def read(self, timeout: float) -> Reading:
        index = next(self._indices)
        image, stamp = self._camera.frame(index)
        flags = frozenset({"frozen"}) if self._camera.timing.frozen(index) else frozenset[str]()
        return Reading(Status.FRAME, Frame(image, stamp, index, self.name, flags))

    def close(self) -> None:
        pass


class SimFeed:
    """Pictures of a simulated camera, for a `Player`."""

    repeats = True

    def __init__(self, camera: SimCamera) -> None:
        self._camera = camera

    def picture(self, index: int) -> NDArray[Any]:
        return self._camera.frame(index)[0]

    def close(self) -> None:
        pass


class _Opener:
    """Opens `sim://thermal?...`: options of `SimConfig.from_uri`, and `silent=10-15`, `gone=20-25`.

    Two cameras of one seed and size share their street, which takes a second or two to build.

    Raises:
        InputError: a bad option; the camera is gone at this moment.
    """

    live, virtual = True, True

    def __call__(self, uri: Uri, context: SourceContext) -> Source:
        faults = {key: text for key, text in uri.options.items() if key in FAULT_OPTIONS}
        rest = {key: text for key, text in uri.options.items() if key not in FAULT_OPTIONS}
        config = SimConfig.from_uri(f"sim://{uri.address}" + (f"?{urlencode(rest)}" if rest else ""))
        key = ("sim", config.seed, config.width, config.height)
        if key not in context.shared:
            context.shared[key] = Scene(config.seed, config.width, config.height)
        camera = SimCamera(config, context.shared[key])
        if not context.live:
            return SimSource(uri.name, camera)
        spans = Faults(**Uri(uri.text, uri.scheme, uri.address, faults).read(FAULT_OPTIONS))
        return Player(uri.name, SimFeed(camera), config.timing(), context, spans)


open_sim = _Opener()
