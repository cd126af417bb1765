"""The quality metrics: agreement with the oracle and with other computations, properties, bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufuser.benchmarks.quality import ssim
from ufuser.benchmarks.quality.baselines import BASELINES, laplacian_pyramid
from ufuser.benchmarks.quality.contrast import average_gradient, spatial_frequency, standard_deviation
from ufuser.benchmarks.quality.folder import read_grey
from ufuser.benchmarks.quality.images import as_grey, stretch
from ufuser.benchmarks.quality.information import cross_entropy, entropy, mutual_information
from ufuser.benchmarks.quality.qcb import contrast_preservation
from ufuser.benchmarks.quality.registry import METRICS, RANKED, evaluate, mean_rank, ranks
from ufuser.benchmarks.quality.vif import SMALLEST_SIDE, visual_information_fidelity

Grey = npt.NDArray[np.uint8]
Triple = tuple[Grey, Grey, Grey]

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "metrics"

RANGES = {
    "EN": (0, 8),
    "SD": (0, 127.5),
    "SF": (0, 255 * math.sqrt(2)),
    "AG": (0, 255),
    "MI": (0, 2 * math.log(256)),
    "CE": (-1e-4, math.log(1e7) + 1e-4),
    "SCD": (-2, 2),
    "CC": (-1, 1),
    "PSNR": (-math.inf, math.inf),
    "MSE": (0, 255**2),
    "VIF": (0, math.inf),
    "Qabf": (0, 0.976),
    "Qcb": (0, 1),
    "SSIM": (-2, 2),
}


def picture(kind: str, height: int, width: int, seed: int) -> Grey:
    """A picture of a kind that metrics meet: noise, smooth, blocks, dark, flat."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width)).astype(np.uint8)
    if kind == "flat":
        return np.full((height, width), seed % 256, dtype=np.uint8)
    if kind == "smooth":
        return stretch(np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), dtype=np.uint8))
    if kind == "blocks":
        return np.asarray(
            cv2.resize(noise[:4, :4], (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.uint8
        )
    if kind == "dark":
        return noise // 64
    return noise


@st.composite
def triples(
    draw: st.DrawFn, kinds: tuple[str, ...] = ("noise", "smooth", "blocks", "dark", "flat")
) -> Triple:
    """Infrared, visible and fused picture of one size, related or not."""
    height, width = draw(st.integers(SMALLEST_SIDE, 60)), draw(st.integers(SMALLEST_SIDE, 60))
    ir, vi, other = (
        picture(draw(st.sampled_from(kinds)), height, width, draw(st.integers(0, 2**32 - 1)))
        for _ in range(3)
    )
    made = draw(st.sampled_from([*BASELINES, "unrelated"]))
    return ir, vi, other if made == "unrelated" else BASELINES[made](ir, vi)


few = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("name", ["FLIR_00122", "FLIR_04598", "FLIR_06874", "FLIR_09573"])
def test_agrees_with_the_oracle(name: str) -> None:
    if not REFERENCE.is_dir():
        pytest.skip("the oracle's pictures (shared/reference/metrics) are not beside this checkout")
    expected = json.loads((REFERENCE / "expected.json").read_text())[name]
    ir, vi, fused = (read_grey(REFERENCE / f"{name}_{role}.png") for role in ("ir", "vi", "fused"))
    measured = evaluate(ir, vi, fused)
    for metric, value in expected.items():
        assert measured[metric] == pytest.approx(value, rel=0, abs=1e-3), metric


@few
@given(triples())
def test_values_are_in_range(triple: Triple) -> None:
    measured = evaluate(*triple)
    assert list(measured) == list(METRICS)
    for metric, value in measured.items():
        lowest, highest = RANGES[metric]
        assert lowest - 1e-9 <= value <= highest + 1e-9, metric


@few
@given(triples())
def test_sources_are_interchangeable(triple: Triple) -> None:
    ir, vi, fused = triple
    swapped = evaluate(vi, ir, fused)
    for metric, value in evaluate(ir, vi, fused).items():
        assert swapped[metric] == pytest.approx(value, rel=1e-9, abs=1e-9), metric


@few
@given(triples())
def test_mirroring_changes_nothing(triple: Triple) -> None:
    # Not VIF, whose subsampling starts top left, nor Qabf, whose orientations break at vertical edges,
    # nor Qcb, whose ratio of filtered pictures amplifies rounding.
    mirrored = evaluate(*(np.ascontiguousarray(image[::-1, ::-1]) for image in triple))
    transposed = evaluate(*(np.ascontiguousarray(image.T) for image in triple))
    for metric, value in evaluate(*triple).items():
        if metric not in ("VIF", "Qabf", "Qcb"):
            assert mirrored[metric] == pytest.approx(value, rel=1e-9, abs=1e-9), metric
            assert transposed[metric] == pytest.approx(value, rel=1e-9, abs=1e-9), metric


@few
@given(triples(), st.randoms(use_true_random=False))
def test_information_ignores_what_a_level_is_called(triple: Triple, random: Any) -> None:
    ir, vi, fused = triple
    relabelled = np.array(random.sample(range(256), 256), dtype=np.uint8)[fused]
    assert entropy(relabelled) == pytest.approx(entropy(fused), abs=1e-9)
    assert mutual_information(ir, vi, relabelled) == pytest.approx(
        mutual_information(ir, vi, fused), abs=1e-9
    )


@few
@given(triples(), st.integers(0, 100))
def test_contrast_ignores_brightness(triple: Triple, shift: int) -> None:
    image = triple[2] // 2
    brighter = (image + shift).astype(np.uint8)
    for metric in (standard_deviation, spatial_frequency, average_gradient):
        assert metric(brighter) == pytest.approx(metric(image), rel=1e-9, abs=1e-9)


@few
@given(triples(kinds=("noise", "smooth", "blocks")))
def test_identical_pictures_are_perfect(triple: Triple) -> None:
    image = triple[0]
    measured = evaluate(image, image, image)
    assert measured["MI"] == pytest.approx(2 * math.log(2) * measured["EN"], abs=1e-9)
    assert measured["CE"] == pytest.approx(0, abs=1e-12)
    assert measured["SCD"] == 0
    assert measured["CC"] == pytest.approx(1)
    assert measured["PSNR"] == math.inf
    assert measured["MSE"] == 0
    assert measured["VIF"] == pytest.approx(2, abs=1e-6)
    assert measured["Qabf"] == pytest.approx(0.9748, abs=1e-3)
    assert measured["Qcb"] == pytest.approx(1)
    assert measured["SSIM"] == pytest.approx(2)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_constant_pictures_have_the_documented_values(level: int) -> None:
    flat = np.full((48, 52), level, dtype=np.uint8)
    measured = evaluate(flat, flat, flat)
    zero = ("EN", "SD", "SF", "AG", "MI", "CE", "SCD", "CC", "MSE")
    assert {metric: measured[metric] for metric in zero} == dict.fromkeys(zero, 0.0)
    assert (measured["VIF"], measured["Qcb"], measured["PSNR"]) == (2, 1, math.inf)
    assert measured["SSIM"] == pytest.approx(2)
    # The frame of a picture that is not black is an edge, kept in full.
    assert measured["Qabf"] == pytest.approx(0.9748 if level else 0, abs=1e-3)


def test_a_black_fused_picture_has_no_signal() -> None:
    bright = np.full((48, 52), 100, dtype=np.uint8)
    measured = evaluate(bright, bright, np.zeros_like(bright))
    assert measured["PSNR"] == -math.inf
    assert all(math.isfinite(value) for metric, value in measured.items() if metric != "PSNR")


def test_floats_are_rounded() -> None:
    ir, vi, fused = (picture("smooth", 48, 52, seed) for seed in range(3))
    noise = np.random.default_rng(0).uniform(-0.49, 0.49, ir.shape)
    assert evaluate(ir + 0.0, vi + np.float32(0), fused + noise) == evaluate(ir, vi, fused)


@pytest.mark.parametrize("metric", [*(function for function, _ in METRICS.values()), evaluate])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda image: np.where(image == image.max(), np.nan, image), "NaN"),
        (lambda image: np.where(image == image.max(), np.inf, image), "infinite"),
        (lambda image: image / 255, "multiply it by 255"),
        (lambda image: image * 2.0, "0..255"),
        (lambda image: image - 128.0, "0..255"),
        (lambda image: np.dstack([image] * 3), "H×W"),
        (lambda image: image[:0], "H×W"),
        (lambda image: image > 100, "bool"),
    ],
)
def test_unusable_pictures_are_refused(
    metric: Callable[..., Any], spoil: Callable[[Grey], npt.NDArray[Any]], words: str
) -> None:
    ir, vi, fused = (picture("noise", 48, 52, seed) for seed in range(3))
    with pytest.raises(ValueError, match=words):
        metric(ir, vi, spoil(fused))


@pytest.mark.parametrize("metric", ["MI", "CE", "SCD", "CC", "PSNR", "MSE", "VIF", "Qabf", "Qcb", "SSIM"])
def test_sizes_must_agree_and_suffice(metric: str) -> None:
    image = picture("noise", 48, 52, 0)
    with pytest.raises(ValueError, match="one size"):
        METRICS[metric][0](image, image[:-1], image)
    if metric == "VIF":
        small = image[: SMALLEST_SIDE - 1]
        with pytest.raises(ValueError, match="at least 41"):
            METRICS[metric][0](small, small, small)


def test_grey_levels_of_other_types_are_taken() -> None:
    levels = np.array([[0, 1], [254, 255]])
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        assert as_grey(levels.astype(dtype), "image").tolist() == levels.tolist()


def test_cross_entropy_by_hand() -> None:
    source = np.array([[0, 0], [0, 255]], dtype=np.uint8)
    fused = np.array([[0, 0], [255, 255]], dtype=np.uint8)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert cross_entropy(source, source, fused) == pytest.approx(divergence, abs=1e-6)


@pytest.mark.parametrize("name", ssim.CONVENTIONS)
def test_ssim_agrees_with_scikit_image(name: str) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    convention = ssim.CONVENTIONS[name]
    ir, vi = (picture("smooth", 50, 61, seed) for seed in range(2))
    fused = laplacian_pyramid(ir, vi)
    window = (
        {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        if convention.window == "gaussian"
        else {"win_size": 7}
    )
    expected = sum(
        metrics.structural_similarity(
            a.astype(float), fused.astype(float), data_range=convention.data_range, **window
        )
        for a in (ir, vi)
    )
    assert ssim.structural_similarity(ir, vi, fused, convention) == pytest.approx(expected, abs=1e-9)


def test_vif_agrees_with_full_convolutions() -> None:
    signal = pytest.importorskip("scipy.signal")

    def direct(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
        kept = held = 0.0
        for scale, window in enumerate((17, 9, 5, 3)):
            x = np.arange(window) - window // 2
            kernel = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * (window / 5) ** 2))
            kernel /= kernel.sum()

            def blur(image: npt.NDArray[np.float64], kernel: npt.NDArray[np.float64] = kernel) -> Any:
                return signal.convolve2d(image, kernel, mode="valid")

            if scale:
                a, b = blur(a)[::2, ::2], blur(b)[::2, ::2]
            variance_a, variance_b = blur(a * a) - blur(a) ** 2, blur(b * b) - blur(b) ** 2
            covariance = blur(a * b) - blur(a) * blur(b)
            gain = np.maximum(covariance / variance_a, 0)
            noise = np.maximum(np.where(gain > 0, variance_b - gain * covariance, variance_b), 1e-10)
            kept += np.log10(1 + gain**2 * variance_a / (noise + 2)).sum()
            held += np.log10(1 + variance_a / 2).sum()
        return float(kept / held)

    ir, vi = (picture("noise", 70, 81, seed) for seed in range(2))
    fused = laplacian_pyramid(ir, vi)
    expected = sum(direct(a.astype(float), fused.astype(float)) for a in (ir, vi))
    assert visual_information_fidelity(ir, vi, fused) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("height", "width"), [(48, 60), (49, 61)])
def test_qcb_agrees_with_full_convolutions(height: int, width: int) -> None:
    signal = pytest.importorskip("scipy.signal")

    def axis(count: int) -> npt.NDArray[np.float64]:
        # MATLAB's freqspace: -1 at the first sample for even counts, symmetric for odd ones.
        return np.asarray((np.arange(count) - count // 2) * (2 / count) * (count / 30), dtype=np.float64)

    radius = np.hypot(axis(height)[:, None], axis(width)[None, :])
    sensitivity = np.exp(-((radius / 15.387) ** 2)) - 0.7622 * np.exp(-((radius / 1.3456) ** 2))
    x = np.arange(-15, 16)
    squared = x[:, None] ** 2 + x[None, :] ** 2
    gaussians = [np.exp(-squared / (2 * sigma**2)) / (2 * np.pi * sigma**2) for sigma in (2, 4)]

    def contrast(image: Grey) -> npt.NDArray[np.float64]:
        # MATLAB rounds halves up.
        levels = np.floor((image - float(image.min())) / (float(image.max()) - image.min()) * 255 + 0.5)
        spectrum = np.fft.fftshift(np.fft.fft2(levels)) * sensitivity
        perceived = np.fft.ifft2(np.fft.ifftshift(spectrum)).real
        centre, surround = (signal.convolve2d(perceived, kernel, mode="same") for kernel in gaussians)
        c = np.abs(centre / surround - 1)
        return np.asarray(c**3 / (c**2 + 1e-4))

    ir, vi = (picture("smooth", height, width, seed) for seed in range(2))
    fused = laplacian_pyramid(ir, vi)
    a, b, f = contrast(ir), contrast(vi), contrast(fused)
    kept_a, kept_b = np.minimum(a, f) / np.maximum(a, f), np.minimum(b, f) / np.maximum(b, f)
    expected = np.mean((a**2 * kept_a + b**2 * kept_b) / (a**2 + b**2))
    assert contrast_preservation(ir, vi, fused) == pytest.approx(expected, abs=1e-9)


def test_ranks_share_places() -> None:
    assert ranks([3.0, 1.0, 3.0, 2.0], higher_is_better=True) == [1.5, 4, 1.5, 3]
    assert ranks([3.0, 1.0, math.inf], higher_is_better=False) == [2, 1, 3]
    with pytest.raises(ValueError, match="NaN"):
        ranks([math.nan, 1.0], higher_is_better=True)


def test_mean_rank_over_the_nine_metrics() -> None:
    better = dict.fromkeys(METRICS, 2.0)
    worse = dict.fromkeys(METRICS, 1.0)
    assert len(RANKED) == 9
    assert mean_rank({"a": worse, "b": better}) == {"a": 2, "b": 1}
    assert mean_rank({"a": better | {"EN": 0.0}, "b": worse}, ("EN", "SD", "MSE", "CE")) == {
        "a": 1.75,
        "b": 1.25,
    }


@few
@given(triples())
def test_baselines_stay_between_and_keep_identical_pictures(triple: Triple) -> None:
    ir, vi, _ = triple
    lower, upper = np.minimum(ir, vi), np.maximum(ir, vi)
    for name, fuse in BASELINES.items():
        fused = fuse(ir, vi)
        assert fused.dtype == np.uint8
        assert fused.shape == ir.shape
        if name != "laplacian":
            assert bool(((fused >= lower) & (fused <= upper)).all()), name
        assert np.abs(fuse(ir, ir).astype(int) - ir).max() <= (1 if name == "laplacian" else 0), name


def test_stretch_reaches_black_and_white() -> None:
    assert stretch(np.array([[10, 20, 30]], dtype=np.uint8)).tolist() == [[0, 128, 255]]
    assert stretch(np.array([[7, 7]], dtype=np.uint8)).tolist() == [[7, 7]]
