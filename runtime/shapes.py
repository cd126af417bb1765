"""Picture sizes that every network and engine takes."""

from __future__ import annotations

SMALLEST = 16
"""Pixels of the shortest side: a network halves three times and reflects at the borders."""
MULTIPLE = 8
"""Height and width of a network's input are multiples of it; the runtime pads and crops."""
