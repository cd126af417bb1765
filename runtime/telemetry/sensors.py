"""Memory, temperatures and power as Linux reports them; a missing sensor is left out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/sys")
_CHANNELS = {"ina3221": (1, 2, 3), "ina238": (1,)}  # further ones are of shunts
_UNLABELLED = {"ina3221": "", "ina238": "VIN"}
_NOT_CONNECTED = "NC"
_INPUTS = ("VDD_IN", "VIN", "POM_5V_IN")
"""The input of Orin NX, Orin Nano and Xavier NX; of Thor, carrier board included; of the first Nano."""
_FED_BY_ANOTHER = ("VDDQ_VDD2_1V8AO",)
"""AGX Orin has no input rail, but VDD_GPU_SOC, VDD_CPU_CV and VIN_SYS_5V0, which feeds this one."""
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
        value = number(zone / "temp")
        if value is not None:
            found[text(zone / "type") or zone.name] = value / 1000
    return found


@dataclass(frozen=True, slots=True)
class Rail:
    """One supply rail that a power monitor of a Jetson watches."""

    chip: str
    """As in "INA3221"."""
    label: str
    millivolts: Path
    milliamperes: Path

    def watts(self) -> float | None:
        """Current power; None if it cannot be read."""
        voltage, current = number(self.millivolts), number(self.milliamperes)
        return None if voltage is None or current is None else voltage * current / 1e6


def rails(system: Path = SYSTEM) -> tuple[Rail, ...]:
    """The rails of a Jetson's INA3221 monitors and, on Thor, of the INA238 at the power input."""
    found = []
    for chip in sorted((system / "class/hwmon").glob("hwmon*")):
        name = text(chip / "name")
        for channel in _CHANNELS.get(name, ()):
            volts, amperes = chip / f"in{channel}_input", chip / f"curr{channel}_input"
            label = text(chip / f"in{channel}_label") or text(chip / "label") or _UNLABELLED[name]
            if label and label != _NOT_CONNECTED and volts.is_file() and amperes.is_file():
                found.append(Rail(name.upper(), label, volts, amperes))
    return tuple(found)


def input_rails(found: Sequence[Rail]) -> tuple[Rail, ...]:
    """The rails whose sum is the power that goes in: no rail that another one of them feeds."""
    for label in _INPUTS:
        whole = tuple(rail for rail in found if rail.label == label)
        if whole:
            return whole
    return tuple(rail for rail in found if rail.label not in _FED_BY_ANOTHER)


def powers(system: Path = SYSTEM) -> dict[str, float]:
    """Watts by name of the rail; rails feed each other, so that their sum means nothing."""
    read = {rail.label: rail.watts() for rail in rails(system)}
    return {label: watts for label, watts in read.items() if watts is not None}


def text(path: Path) -> str:
    """What a file says, without spaces at its ends; "" if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> float | None:
    """The number in a file; None if there is none."""
    try:
        return float(text(path))
    except ValueError:
        return None
