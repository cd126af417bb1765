"""The machine's figures, from files like those of a Jetson's kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from ufuser.runtime.clock import Clock
from ufuser.runtime.telemetry import Telemetry, hardware

ORIN = {
    "sys/class/devfreq/17000000.gpu/device/load": "735\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "918000000\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1984000\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "729600\n",
    "sys/class/thermal/cooling_device0/type": "cpu-throttle-alert\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert\n",
    "sys/class/thermal/cooling_device1/cur_state": "1\n",
    "sys/class/thermal/cooling_device2/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device2/cur_state": "3\n",
    "sys/class/hwmon/hwmon1/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon1/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon1/oc3_event_cnt": "12\n",
    "sys/class/hwmon/hwmon2/name": "ina3221\n",
    "sys/class/hwmon/hwmon2/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon2/in1_input": "5000\n",
    "sys/class/hwmon/hwmon2/curr1_input": "2000\n",
    "var/lib/nvpmodel/status": "pmode:0002\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_4 0\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "proc/meminfo": "MemTotal:        7802420 kB\nMemFree:   100 kB\nMemAvailable:    5120000 kB\n",
}


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    for name, text in ORIN.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_an_orin(orin: Path) -> None:
    assert hardware.hardware(orin) == {
        "gpu_load": 0.735,
        "clocks_hz": {"17000000.gpu": 918e6, "cpu0": 1984e6, "cpu4": 729.6e6},
        "cooling": {"cpu-throttle-alert": 0, "gpu-throttle-alert": 1, "pwm-fan": 3},
        "over_current_events": {"oc1": 0, "oc3": 12},
        "power_mode": "MAXN_SUPER",
        "input_w": pytest.approx(10),
        "memory_bytes": {"total": 7802420 * 1024, "available": 5120000 * 1024},
    }


def test_a_power_mode_without_a_name(orin: Path) -> None:
    (orin / "etc/nvpmodel.conf").unlink()
    assert hardware.power_mode(orin) == "2"


def test_a_machine_that_reports_nothing(tmp_path: Path) -> None:
    found = hardware.hardware(tmp_path)
    assert not any(found.values())
    assert (found["gpu_load"], found["power_mode"]) == (None, "")


def test_metrics(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prometheus = pytest.importorskip("ufuser.runtime.telemetry.prometheus")
    figures = hardware.hardware(orin)
    monkeypatch.setattr(hardware, "hardware", lambda: figures)
    telemetry = Telemetry({"ir": "a", "vi": "b"}, Clock())
    lines = prometheus.exposition(telemetry).decode().splitlines()
    assert telemetry.report()["hardware"] == figures
    for line in (
        "ufuser_gpu_load_ratio 0.735",
        'ufuser_clock_hertz{domain="17000000.gpu"} 9.18e+08',
        'ufuser_cooling_state{device="gpu-throttle-alert"} 1.0',
        'ufuser_over_current_events_total{alarm="oc3"} 12.0',
        'ufuser_power_mode_info{mode="MAXN_SUPER"} 1.0',
        "ufuser_input_power_watts 10.0",
        'ufuser_memory_bytes{kind="available"} 5.24288e+09',
    ):
        assert line in lines


def test_metrics_of_a_machine_that_reports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prometheus = pytest.importorskip("ufuser.runtime.telemetry.prometheus")
    figures = hardware.hardware(tmp_path)
    monkeypatch.setattr(hardware, "hardware", lambda: figures)
    text = prometheus.exposition(Telemetry({"ir": "a", "vi": "b"}, Clock())).decode()
    assert not [name for name in ("gpu_load", "input_power", "power_mode") if name in text]
