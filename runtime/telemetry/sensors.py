"""Memory, temperatures and power as Linux reports them; a missing sensor is left out."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM = Path("/sys")
_STATM = Path("/proc/self/statm")


def resident_bytes() -> int | None:
    """Resident memory of this process; None if the system does not report it."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def temperatures(system: Path = SYSTEM) -> dict[str, float]:
    """Degrees Celsius by name of the thermal zone."""
    found: dict[str, float] = {}
    for zone in sorted((system / "class/thermal").glob("thermal_zone*")):
        value = _number(zone / "temp")
        if value is not None:
            found[_text(zone / "type") or zone.name] = value / 1000
    return found


def powers(system: Path = SYSTEM) -> dict[str, float]:
    """Watts by name of the rail, from INA3221 monitors, which Jetsons have."""
    found: dict[str, float] = {}
    for chip in sorted((system / "class/hwmon").glob("hwmon*")):
        if _text(chip / "name") != "ina3221":
            continue
        for channel in range(1, 4):
            millivolts, milliamperes = (
                _number(chip / f"in{channel}_input"),
                _number(chip / f"curr{channel}_input"),
            )
            if millivolts is not None and milliamperes is not None:
                rail = _text(chip / f"in{channel}_label") or f"{chip.name} channel {channel}"
                found[rail] = millivolts * milliamperes / 1e6
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
