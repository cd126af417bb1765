"""The measured roofs, and where a run stands under them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ufuser.benchmarks.__main__ import main
from ufuser.benchmarks.peak import convolution_peaks, convolution_stack, copy_peak, reached
from ufuser.benchmarks.results import ConvolutionPeak, CopyPeak, Cost, Latency, Results, write

SIZE = (48, 64)


def test_the_stack_is_what_its_macs_say() -> None:
    session = onnxruntime.InferenceSession(convolution_stack(8, 16, 24), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).random((1, 8, 16, 24), np.float32)
    (y,) = session.run(None, {"x0": x})
    assert y.shape == x.shape
    assert 0.05 < y.std() / x.std() < 20  # neither overflows nor vanishes, which would be faster or slower


def test_every_engine_has_a_plausible_peak() -> None:
    peaks = convolution_peaks(1, 0.02, [(16, 24, 32), (32, 24, 32)])
    assert {p.engine for p in peaks} >= {"onnxruntime"}
    assert len({(p.engine, p.precision) for p in peaks}) == len(peaks)
    # No processor does 1e14 operations a second on one thread, nor fewer than 1e8.
    assert all(0.01 < p.gmacs_per_s < 5e4 and p.threads == 1 for p in peaks)
    assert 0.01 < copy_peak(1, seconds=0.05).gbytes_per_s < 2000


def cost(macs: int, bytes_moved: int) -> Cost:
    return Cost("m", SIZE, 1, macs, bytes_moved, 1, ())


def test_share_and_bound() -> None:
    run = Latency.of("onnxruntime", "m", SIZE, 2, [0.1])
    roofs = [ConvolutionPeak("openvino", "fp32", 2, 100.0, ""), ConvolutionPeak("x", "bf16", 2, 300.0, "")]
    copies = [CopyPeak(1, 10.0), CopyPeak(2, 20.0)]
    found = reached(run, [cost(5_000_000_000, 400_000_000)], roofs, copies)
    assert found is not None
    assert found.gmacs_per_s == pytest.approx(50)
    assert found.convolution_ms == pytest.approx(50)
    assert found.share == pytest.approx(0.5)
    assert found.copy_ms == pytest.approx(20)
    assert found.bound == "convolution"
    memory = reached(run, [cost(500_000_000, 1_200_000_000)], roofs, copies)
    assert memory is not None
    assert memory.bound == "memory"


def test_a_half_precision_run_stands_under_its_own_roof_and_moves_half() -> None:
    run = Latency.of("openvino", "m", SIZE, 2, [0.1], precision="bf16")
    roofs = [ConvolutionPeak("o", "fp32", 2, 100.0, ""), ConvolutionPeak("o", "bf16", 2, 300.0, "")]
    found = reached(run, [cost(6_000_000_000, 400_000_000)], roofs, [CopyPeak(2, 20.0)])
    assert found is not None
    assert found.convolution_ms == pytest.approx(20)
    assert found.copy_ms == pytest.approx(10)


def test_no_roof_of_other_threads_or_without_a_cost() -> None:
    run = Latency.of("onnxruntime", "m", SIZE, 4, [0.1])
    roofs, copies = [ConvolutionPeak("o", "fp32", 2, 100.0, "")], [CopyPeak(2, 20.0)]
    assert reached(run, [cost(1, 1)], roofs, copies) is None
    assert reached(Latency.of("o", "n", SIZE, 2, [0.1]), [cost(1, 1)], roofs, copies) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--threads", "0"], "--threads 0"), (["--results", "gone.json"], "cannot read gone.json")],
)
def test_bad_input(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["peak", *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_command_says_the_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ufuser.benchmarks.peak.LAYERS", ((16, 24, 32),))
    monkeypatch.setattr("ufuser.benchmarks.peak._COPIED", 1 << 20)
    earlier, out = tmp_path / "latency.json", tmp_path / "peak.json"
    run = Latency.of("onnxruntime", "m", SIZE, 1, [0.1])
    write(earlier, Results.here(latency=(run,), cost=(cost(10_000_000, 1_000_000),)))
    assert (
        main(["peak", "--threads", "1", "--seconds", "0.01", "--results", str(earlier), "--json", str(out)])
        == 0
    )
    said = capsys.readouterr().out
    assert "1 threads, copy:" in said
    assert "m in onnxruntime fp32, 1 threads at 48x64: 100.0 ms, 0.1 GMAC/s" in said
