"""Real-time infrared-visible fusion: `from runtime import Fuser`, and `runtime.stream(ir=…, vi=…)` for cameras.

Needs NumPy, OpenCV and one inference engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.errors import InputError

if TYPE_CHECKING:
    from runtime.fuser import Fuser
    from runtime.streaming.session import stream

__all__ = ["Fuser", "InputError", "stream"]


def __getattr__(name: str) -> Any:
    """Import when asked for: who fuses pictures needs no cameras, and `ufuser doctor` not even OpenCV."""
    if name == "Fuser":
        from runtime.fuser import Fuser

        return Fuser
    if name == "stream":
        from runtime.streaming.session import stream

        return stream
    raise AttributeError(f"module 'runtime' has no attribute {name!r}")
