"""Which machine is a Jetson, from its files and from inside a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from ufuser.runtime.board import Jetson, is_jetson_gpu, offline_cores

RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n# KERNEL_VARIANT: oot\n"
)
MODEL = "NVIDIA Jetson AGX Orin Developer Kit\0"
COMPATIBLE = "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0"


def make(root: Path, **files: str) -> Path:
    names = {
        "release": "etc/nv_tegra_release",
        "model": "proc/device-tree/model",
        "compatible": "proc/device-tree/compatible",
        "family": "sys/devices/soc0/family",
    }
    for name, text in files.items():
        path = root / names[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_a_jetson(tmp_path: Path) -> None:
    found = Jetson.find(make(tmp_path, release=RELEASE, model=MODEL, compatible=COMPATIBLE, family="Tegra\n"))
    assert found == Jetson("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3")


def test_jetpack_7_2(tmp_path: Path) -> None:
    release = "# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64\n"
    thor = "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0"
    found = Jetson.find(make(tmp_path, release=release, model="NVIDIA Jetson AGX Thor\0", compatible=thor))
    assert found == Jetson("NVIDIA Jetson AGX Thor", "39.2.0")


def test_a_container_without_the_release_file(tmp_path: Path) -> None:
    found = Jetson.find(make(tmp_path, model=MODEL, compatible=COMPATIBLE))
    assert found == Jetson("NVIDIA Jetson AGX Orin Developer Kit", "")


def test_a_container_with_an_empty_release_file_and_a_hidden_device_tree(tmp_path: Path) -> None:
    assert Jetson.find(make(tmp_path, release="", family="Tegra\n")) == Jetson("", "")


def test_another_arm_board(tmp_path: Path) -> None:
    other = make(tmp_path, model="Raspberry Pi 5 Model B\0", compatible="raspberrypi,5-model-b\0", family="x")
    assert Jetson.find(other) is None
    assert Jetson.find(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("capability", "expected"), [("8.7", True), ("11.0", True), ("8.9", False), ("9.0", False)]
)
def test_gpus(capability: str, expected: bool) -> None:
    assert is_jetson_gpu(capability) is expected


@pytest.mark.parametrize(
    ("offline", "present", "expected"),
    [("4-5,7\n", "0-7\n", (4, 5, 7)), ("\n", "0-7\n", ()), ("2-31\n", "0-1\n", ()), ("6\n", "0-7\n", (6,))],
)
def test_offline_cores(tmp_path: Path, offline: str, present: str, expected: tuple[int, ...]) -> None:
    (tmp_path / "offline").write_text(offline, encoding="utf-8")
    (tmp_path / "present").write_text(present, encoding="utf-8")
    assert offline_cores(tmp_path) == expected
    assert offline_cores(tmp_path / "none") == ()
