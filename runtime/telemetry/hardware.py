"""What the machine itself reports: GPU load, clocks, throttling, power mode, memory. Files are only read.

The files of GPU, power mode and over-current events are those of a Jetson. What is missing is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ufuser.runtime.telemetry import sensors

_GPU = re.compile(r"gpu|g[abpv]\d+b", re.IGNORECASE)
"""In the name of a clock domain: 17000000.gpu, 17000000.ga10b, gpu-gpc-0."""


def hardware(root: Path = Path("/")) -> dict[str, Any]:
    """The figures, ready for JSON; None and empty where the system does not report them."""
    system = root / "sys"
    power = [rail.watts() for rail in sensors.input_rails(sensors.rails(system))]
    return {
        "gpu_load": _gpu_load(system),
        "clocks_hz": dict(_clocks(system)),
        "cooling": _cooling(system),
        "over_current_events": _over_current(system),
        "power_mode": power_mode(root),
        "input_w": None if not power or None in power else sum(filter(None, power)),
        "memory_bytes": _memory(root),
    }


def power_mode(root: Path = Path("/")) -> str:
    """Name of a Jetson's power mode, such as "MAXN", or its number where the name is unknown; "" elsewhere."""
    chosen = re.search(r"pmode:(\d+)", sensors.text(root / "var/lib/nvpmodel/status"))
    if chosen is None:
        return ""
    number = int(chosen[1])
    modes = sensors.text(root / "etc/nvpmodel.conf")
    name = re.search(rf"<\s*POWER_MODEL\s+ID={number}\s+NAME=(\S+)\s*>", modes)
    return name[1] if name else str(number)


def _gpu_load(system: Path) -> float | None:
    """From 0 to 1."""
    for domain in _gpus(system):
        load = sensors.number(domain / "device/load")
        if load is not None:
            return load / 1000
    return None


def _clocks(system: Path) -> Iterator[tuple[str, float]]:
    """Hertz by clock domain: of the GPU by the kernel's name, of the processor as cpu0, …"""
    for domain in _gpus(system):
        hertz = sensors.number(domain / "cur_freq")
        if hertz is not None:
            yield domain.name, hertz
    for policy in sorted((system / "devices/system/cpu/cpufreq").glob("policy*")):
        kilohertz = sensors.number(policy / "scaling_cur_freq")
        if kilohertz is not None:
            yield policy.name.replace("policy", "cpu"), kilohertz * 1000


def _gpus(system: Path) -> list[Path]:
    return [domain for domain in sorted((system / "class/devfreq").glob("*")) if _GPU.search(domain.name)]


def _cooling(system: Path) -> dict[str, int]:
    """The highest state by kind of cooling device; above 0 it slows something down, or turns a fan."""
    found: dict[str, int] = {}
    for device in (system / "class/thermal").glob("cooling_device*"):
        kind, state = sensors.text(device / "type"), sensors.number(device / "cur_state")
        if kind and state is not None and state >= 0:
            found[kind] = max(int(state), found.get(kind, 0))
    return dict(sorted(found.items()))


def _over_current(system: Path) -> dict[str, int]:
    """Times the power supply was overloaded and the clocks were cut, by alarm."""
    found: dict[str, int] = {}
    for file in sorted((system / "class/hwmon").glob("hwmon*/oc*_event_cnt")):
        count = sensors.number(file)
        if count is not None:
            found[file.name.removesuffix("_event_cnt")] = int(count)
    return found


def _memory(root: Path) -> dict[str, int]:
    """Of the machine; a Jetson's GPU shares it."""
    found = dict(
        re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", sensors.text(root / "proc/meminfo"), re.M)
    )
    names = {"MemTotal": "total", "MemAvailable": "available"}
    return {name: int(found[key]) * 1024 for key, name in names.items() if key in found}
