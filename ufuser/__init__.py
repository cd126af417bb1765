"""Real-time infrared-visible fusion: `from ufuser import Fuser`, and `ufuser.stream(ir=…, vi=…)` for two cameras.

The public API. Each name is imported on first use, so `import ufuser` needs neither NumPy nor OpenCV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ufuser.runtime.errors import InputError
    from ufuser.runtime.fuser import Fuser
    from ufuser.runtime.streaming.session import stream

    __version__: str

__all__ = ["Fuser", "InputError", "__version__", "stream"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "Fuser":
        from ufuser.runtime.fuser import Fuser

        return Fuser
    if name == "InputError":
        from ufuser.runtime.errors import InputError

        return InputError
    if name == "stream":
        from ufuser.runtime.streaming.session import stream

        return stream
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ufuser")
        except PackageNotFoundError:  # a checkout that is not installed
            return "0+unknown"
    raise AttributeError(f"module 'ufuser' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, whether imported yet or not."""
    return sorted(__all__)
