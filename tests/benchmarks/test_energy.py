"""Energy: a Jetson's meter from files like its kernel's, NVIDIA's library by a stand-in with its names."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ufuser.benchmarks import energy
from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.energy import JetsonMeter, Load, NoMeterError, Nvml, find_meter, mean_power, measure

LOAD = Load("tensorrt", "ufuser", (480, 640), 2)


def chip(system: Path, number: int, name: str, rails: dict[int, tuple[str, int, int]]) -> Path:
    """A chip's folder: channel → label, millivolts, milliamperes."""
    folder = system / "class/hwmon" / f"hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    for channel, (label, millivolts, milliamperes) in rails.items():
        (folder / f"in{channel}_label").write_text(f"{label}\n")
        (folder / f"in{channel}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{channel}_input").write_text(f"{milliamperes}\n")
    return folder


def test_the_input_rail_is_the_whole_module(tmp_path: Path) -> None:
    chip(tmp_path, 0, "tmp451", {1: ("VDD_IN", 9999, 9999)})
    orin = {1: ("VDD_IN", 5000, 1500), 2: ("VDD_CPU_GPU_CV", 5000, 600), 3: ("VDD_SOC", 5000, 300)}
    folder = chip(tmp_path, 1, "ina3221", orin)
    (folder / "in7_label").write_text("sum of shunt voltages\n")
    (folder / "in7_input").write_text("123\n")
    meter = JetsonMeter.find(tmp_path)
    assert meter.name == "INA3221, VDD_IN"
    assert meter.watts() == pytest.approx(7.5)
    (folder / "curr1_input").write_text("3000\n")
    assert meter.watts() == pytest.approx(15.0)


def test_without_an_input_rail_the_rails_of_all_chips_add_up(tmp_path: Path) -> None:
    chip(tmp_path, 2, "ina3221", {1: ("VDD_GPU_SOC", 20000, 500), 2: ("VDD_CPU_CV", 20000, 250)})
    chip(tmp_path, 3, "ina3221", {2: ("VIN_SYS_5V0", 5000, 1000)})
    meter = JetsonMeter.find(tmp_path)
    assert meter.name == "INA3221, VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert meter.watts() == pytest.approx(10 + 5 + 5)


def test_a_rail_that_another_one_feeds_is_not_added_twice(tmp_path: Path) -> None:
    """AGX Orin: the second chip watches what VIN_SYS_5V0 feeds; its other channels are not connected."""
    agx = {1: ("VDD_GPU_SOC", 20000, 500), 2: ("VDD_CPU_CV", 20000, 250), 3: ("VIN_SYS_5V0", 5000, 1000)}
    chip(tmp_path, 2, "ina3221", agx)
    chip(tmp_path, 3, "ina3221", {1: ("NC", 0, 0), 2: ("VDDQ_VDD2_1V8AO", 5000, 400), 3: ("NC", 0, 0)})
    meter = JetsonMeter.find(tmp_path)
    assert meter.name == "INA3221, VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert meter.watts() == pytest.approx(20)


@pytest.mark.parametrize("labelled", [True, False])
def test_thors_input_is_an_ina238(tmp_path: Path, labelled: bool) -> None:
    thor = {1: ("VDD_GPU", 12000, 1000), 2: ("VDD_CPU_SOC_MSS", 12000, 500), 3: ("VIN_SYS_5V0", 5000, 1000)}
    chip(tmp_path, 4, "ina3221", thor)
    folder = chip(tmp_path, 5, "ina238", {1: ("VIN", 20000, 2000)})
    if not labelled:
        (folder / "in1_label").unlink()
    meter = JetsonMeter.find(tmp_path)
    assert (meter.name, meter.watts()) == ("INA238, VIN", pytest.approx(40))


def test_absent_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoMeterError, match="no INA3221 or INA238 under"):
        JetsonMeter.find(tmp_path)


class FakeMeter:
    """Draws more while told to be busy."""

    name, sees_cpu = "fake", True

    def __init__(self, counts: bool) -> None:
        self.busy, self.counts = False, counts
        self.energy, self.since = 0.0, time.perf_counter()

    def watts(self) -> float:
        return 12.0 if self.busy else 4.0

    def switch(self, busy: bool) -> None:
        self.joules()
        self.busy = busy

    def joules(self) -> float | None:
        now = time.perf_counter()
        self.energy += self.watts() * (now - self.since)
        self.since = now
        return self.energy if self.counts else None


@pytest.mark.parametrize("counts", [True, False], ids=["counter", "readings"])
def test_millijoules_a_frame_with_idle_subtracted(counts: bool) -> None:
    meter = FakeMeter(counts)

    def fuse() -> None:
        meter.switch(True)
        time.sleep(0.02)

    # Busy from the first warm-up on, unless it idles: sleeping long enough is idling.
    slept = time.sleep

    def sleep(seconds: float) -> None:
        if seconds >= 0.1:
            meter.switch(False)
        slept(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energy.time, "sleep", sleep)
        found = measure(meter, fuse, LOAD, idle_s=0.2, busy_s=0.5)
    assert found.idle_w == pytest.approx(4, abs=0.3)
    assert found.busy_w == pytest.approx(12, abs=0.6)
    assert found.frames == pytest.approx(25, abs=8)
    assert found.millijoules == pytest.approx(8 * found.seconds / found.frames * 1000, rel=0.1)


def test_readings_are_weighted_by_time() -> None:
    class Steps(FakeMeter):
        def watts(self) -> float:
            return 10.0 if time.perf_counter() - start < 0.15 else 2.0

    start = time.perf_counter()
    mean, seconds = mean_power(Steps(counts=False), lambda: time.sleep(0.3))
    assert seconds == pytest.approx(0.3, abs=0.1)
    assert mean == pytest.approx(6, abs=1.5)


class FakeNvml:
    """pynvml's functions that are used, of a GPU with or without an energy counter."""

    class NVMLError(Exception):
        pass

    def __init__(self, counts: bool) -> None:
        self.counts = counts

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"gpu{index}"

    def nvmlDeviceGetName(self, handle: str) -> bytes:  # noqa: N802
        return b"NVIDIA Test"

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return 61_500

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if not self.counts:
            raise self.NVMLError("Not Supported")
        return 2_500


def test_nvml_units() -> None:
    meter = Nvml(FakeNvml(counts=True))
    assert meter.name == "NVML, board power of NVIDIA Test"
    assert meter.watts() == 61.5
    assert meter.joules() == 2.5
    assert Nvml(FakeNvml(counts=False)).joules() is None
    assert not meter.sees_cpu


def test_command_with_a_jetsons_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chip(tmp_path / "hwmon", 1, "ina3221", {1: ("VDD_IN", 5000, 1000)})
    monkeypatch.setattr(energy, "find_meter", lambda: find_meter(tmp_path / "hwmon"))
    out = tmp_path / "energy.json"
    options = ["--size", "64x96", "--threads", "1", "--idle", "0.1", "--busy", "0.2", "--json", str(out)]
    assert main(["energy", *options]) == 0
    assert "INA3221, VDD_IN" in capsys.readouterr().out
    (found,) = json.loads(out.read_text())["energy"]
    assert found["idle_w"] == found["busy_w"] == pytest.approx(5.0)
    assert found["frames"] > 0


def test_command_without_a_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(hwmon: Path = tmp_path) -> JetsonMeter:
        raise NoMeterError("no INA3221 under here; no NVML")

    monkeypatch.setattr(energy, "find_meter", nothing)
    out = tmp_path / "energy.json"
    assert main(["energy", "--json", str(out)]) == 0
    assert capsys.readouterr().out == "energy not measured: no INA3221 under here; no NVML\n"
    assert json.loads(out.read_text())["energy_absent"] == "no INA3221 under here; no NVML"


def test_a_gpus_meter_is_not_used_for_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(energy, "find_meter", lambda: Nvml(FakeNvml(counts=True)))
    assert main(["energy", "--size", "64x96"]) == 0
    assert "does not measure the processor" in capsys.readouterr().out
