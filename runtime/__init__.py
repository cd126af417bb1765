"""Real-time infrared-visible fusion: `from runtime import Fuser`.

Needs NumPy, OpenCV and one inference engine.
"""

from __future__ import annotations

from runtime.errors import InputError
from runtime.fuser import Fuser

__all__ = ["Fuser", "InputError"]
