"""Raw thermal frames to steady 8-bit pictures."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from ufuser.runtime.errors import InputError
from ufuser.runtime.frame import Frame
from ufuser.runtime.thermal import ThermalConfig, ThermalPipeline
from ufuser.simulation import Scene, SimCamera, SimConfig

TONES = ("linear", "plateau", "clahe", "fixed:500:6000")


def frame(image: np.ndarray, number: int = 0, fps: float = 25.0) -> Frame:
    return Frame(image, number / fps, number, "test")


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    """Six seconds of the simulated street: 14 bits, 320x256, 25 fps, a flat-field correction at 3 s."""
    camera = SimCamera(SimConfig("thermal", 320, 256, bits=14, ffc=3.0))
    return np.stack([camera.frame(k)[0] for k in range(150)])


def noisy(
    level: float = 3000, spread: float = 400, size: tuple[int, int] = (96, 128), seed: int = 0
) -> np.ndarray:
    """A smooth scene with a sensor's noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    scene = level + spread * (np.sin(x / 17) + np.cos(y / 13)) / 2
    return np.rint(scene + rng.normal(0, 4, size)).astype(np.uint16)


# Flicker


@pytest.mark.parametrize("text", ["auto", "linear", "plateau", "clahe", "fixed:900:4500"])
def test_mean_level_flickers_at_most_a_quarter_of_per_frame_stretching(street: np.ndarray, text: str) -> None:
    pipeline = ThermalPipeline(ThermalConfig.from_text(text))
    steady = [pipeline(frame(image, k)).image.mean() for k, image in enumerate(street)]
    each = []
    for image in street:
        low, high = float(image.min()), float(image.max())
        each.append(((image - low) * (255 / (high - low))).mean())
    flicker, reference = (float(np.abs(np.diff(levels)).mean()) for levels in (steady, each))
    assert flicker <= reference / 4
    assert 40 < np.mean(steady) < 215


def test_pixels_are_not_smoothed(street: np.ndarray) -> None:
    """Equal counts give equal levels: the picture depends on its own raw frame only."""
    pipeline = ThermalPipeline(ThermalConfig.from_text("linear"))
    for k, image in enumerate(street[:20]):
        toned = pipeline(frame(image, k)).image
    order = np.argsort(image, axis=None, kind="stable")
    assert (np.diff(toned.reshape(-1)[order].astype(int)) >= 0).all()


# Tone


@cache
def small_street() -> Scene:
    """Takes half a second."""
    return Scene(0, 160, 120)


@cache
def first_picture(bits: int) -> np.ndarray:
    """Of a simulated camera."""
    return SimCamera(SimConfig("thermal", 160, 120, bits=bits), small_street()).frame(0)[0]


@pytest.mark.parametrize("bits", [8, 14, 16])
@pytest.mark.parametrize("text", ["linear", "plateau", "clahe"])
def test_every_depth_fills_the_range(bits: int, text: str) -> None:
    toned = ThermalPipeline(ThermalConfig.from_text(text))(frame(first_picture(bits))).image
    assert toned.dtype == np.uint8
    assert toned.min() <= 25
    assert toned.max() >= 225
    assert len(np.unique(toned)) > 60


@pytest.mark.parametrize("text", ["linear", "plateau"])
def test_percentiles_become_black_and_white(text: str) -> None:
    image = np.arange(20000, dtype=np.uint16).reshape(100, 200) // 2 + 500
    toned = ThermalPipeline(ThermalConfig.from_text(text))(frame(image)).image
    assert (toned == 0).mean() == pytest.approx(0.01, abs=0.006)
    assert (toned == 255).mean() == pytest.approx(0.01, abs=0.01)
    # A flat histogram is its own equalisation.
    assert int(toned[50, 0]) == pytest.approx(127, abs=3)


def test_plateau_gives_levels_to_where_the_pixels_are() -> None:
    rng = np.random.default_rng(0)
    image = np.where(
        rng.random((200, 200)) < 0.9,
        rng.integers(1000, 1100, (200, 200)),
        rng.integers(1000, 5000, (200, 200)),
    )
    image = image.astype(np.uint16)
    spans = []
    for text in ("linear", "plateau"):
        toned = ThermalPipeline(ThermalConfig.from_text(text))(frame(image)).image
        spans.append(int(toned[image < 1100].max()) - int(toned[image < 1100].min()))
    assert spans[1] > 2 * spans[0]


def test_fixed_limits_never_move() -> None:
    pipeline = ThermalPipeline(ThermalConfig(mode="fixed", fixed=(1000.0, 2000.0)))
    ramp = np.linspace(0, 3000, 301, dtype=np.uint16).reshape(1, -1).repeat(20, 0)
    for k, image in enumerate((ramp, ramp + 1, np.full_like(ramp, 60000))):
        toned = pipeline(frame(image.astype(np.uint16), k)).image
        np.testing.assert_allclose(toned, np.clip((image - 1000.0) * 0.255, 0, 255), atol=0.5 + 1e-6)


def test_auto_leaves_8_bits_and_equalises_raw_counts(street: np.ndarray) -> None:
    level = (noisy() // 16).astype(np.uint8)
    np.testing.assert_array_equal(ThermalPipeline()(frame(level)).image, level)
    plain, auto, plateau = (
        ThermalPipeline(ThermalConfig.from_text(text))(frame(street[0])).image
        for text in ("linear", "auto", "plateau")
    )
    np.testing.assert_array_equal(auto, plateau)
    assert np.ptp(auto) == 255
    # A cold sky leaves the street few levels of a linear stretch.
    houses = np.s_[80:120, 20:80]
    assert auto[houses].std() > 2 * plain[houses].std()


@pytest.mark.parametrize("text", TONES)
def test_black_hot_is_the_negative(text: str) -> None:
    white, black = (
        ThermalPipeline(ThermalConfig.from_text(text + polarity))(frame(noisy())).image
        for polarity in ("", ",black-hot")
    )
    np.testing.assert_array_equal(black, 255 - white)


@pytest.mark.parametrize("text", ["auto", "linear", "plateau"])
def test_a_blank_wall_is_not_stretched_into_noise(text: str) -> None:
    rng = np.random.default_rng(0)
    wall = np.rint(3000 + rng.normal(0, 2, (96, 128))).astype(np.uint16)
    toned = ThermalPipeline(ThermalConfig.from_text(text))(frame(wall)).image
    assert toned.std() < 20
    assert toned.mean() == pytest.approx(127, abs=12)


def test_limits_follow_at_the_same_pace_at_any_rate() -> None:
    """A hot object comes in: after one time constant the limits are 63 % of the way, at 9 and at 60 fps."""
    for fps in (9.0, 25.0, 60.0):
        pipeline = ThermalPipeline(ThermalConfig(mode="linear", smoothing_s=1.0, heal=False))
        cold, warm = noisy(seed=1), noisy(seed=2)
        warm[:20, :20] += 2000
        pipeline(frame(cold, 0, fps))
        first = pipeline._tone._limits
        for k in range(1, round(fps) + 1):
            pipeline(frame(warm + np.uint16(k % 2), k, fps))
        last = pipeline._tone._limits
        assert first is not None
        assert last is not None
        wanted = np.percentile(warm, 99)
        assert (last[1] - first[1]) / (wanted - first[1]) == pytest.approx(0.63, abs=0.05)


def test_a_scene_cut_snaps() -> None:
    pipeline = ThermalPipeline(ThermalConfig.from_text("linear"))
    for k in range(20):
        assert "scene-cut" not in pipeline(frame(noisy(seed=k), k)).flags
    other = pipeline(frame(noisy(level=9000, seed=50), 20))
    assert "scene-cut" in other.flags
    fresh = ThermalPipeline(ThermalConfig.from_text("linear"))(frame(noisy(level=9000, seed=50))).image
    np.testing.assert_array_equal(other.image, fresh)
    assert "scene-cut" not in pipeline(frame(noisy(level=9000, seed=51), 21)).flags


def test_someone_walking_in_is_no_scene_cut(street: np.ndarray) -> None:
    pipeline = ThermalPipeline(ThermalConfig.from_text("linear"))
    assert not any("scene-cut" in pipeline(frame(image, k)).flags for k, image in enumerate(street))


# Freezes


def test_a_correction_is_flagged_and_bridged(street: np.ndarray) -> None:
    """0.6 s at 25 fps from frame 75 on: exactly these are flagged, and their picture does not change."""
    pipeline = ThermalPipeline(ThermalConfig.from_text("plateau"))
    out = [pipeline(frame(image, k)) for k, image in enumerate(street)]
    assert [k for k, f in enumerate(out) if "frozen" in f.flags] == list(range(75, 90))
    for f in out[75:90]:
        np.testing.assert_array_equal(f.image, out[74].image)
    # No jump afterwards, beyond the motion of the scene.
    assert abs(out[90].image.mean() - out[89].image.mean()) < 2


@pytest.mark.parametrize("times", [2, 3])
def test_a_camera_that_sends_each_picture_several_times_is_not_frozen(times: int) -> None:
    pipeline = ThermalPipeline()
    flags = []
    for k in range(60):
        flags.append("frozen" in pipeline(frame(noisy(seed=k // times).copy(), k)).flags)
    assert not any(flags[20:])
    held = [pipeline(frame(noisy(seed=59 // times).copy(), 60 + k)).flags for k in range(8)]
    assert all("frozen" in f for f in held[3:])


def test_identical_frames_behind_a_lossy_codec_are_no_freeze() -> None:
    pipeline = ThermalPipeline(repeats=False)
    assert all(not pipeline(frame(noisy(seed=1), k)).flags for k in range(20))


def test_flags_of_the_source_stay() -> None:
    marked = Frame(noisy(), 0.0, 0, "test", frozenset({"frozen", "x"}))
    assert ThermalPipeline()(marked).flags == {"frozen", "x"}


# Dead pixels


def test_dead_pixels_are_found_and_healed(street: np.ndarray) -> None:
    """Hot, cold, and stuck at a likely value; single, in pairs, in corners: all found, nothing else."""
    rng = np.random.default_rng(3)
    dead = [(int(rng.integers(320)), int(rng.integers(256))) for _ in range(20)]
    dead += [(100, 50), (101, 50), (0, 0), (319, 255), (0, 130)]
    values = [int(rng.choice([0, 16383, 2700])) for _ in dead]
    pipeline = ThermalPipeline(ThermalConfig.from_text("linear"))
    clean = ThermalPipeline(ThermalConfig(mode="linear", heal=False))
    moving = [k for k in range(150) if not 75 <= k < 90]
    for k in moving:
        image = street[k].copy()
        for (x, y), value in zip(dead, values, strict=True):
            image[y, x] = value
        healed = pipeline(frame(image, k)).image
        reference = clean(frame(street[k], k)).image
    assert set(pipeline.dead_pixels) == set(dead)
    for x, y in dead:
        assert abs(int(healed[y, x]) - int(reference[y, x])) < 25
    assert np.abs(healed.astype(int) - reference).max() < 25


def test_nothing_is_healed_in_a_sound_picture(street: np.ndarray) -> None:
    pipeline = ThermalPipeline(ThermalConfig.from_text("linear"))
    for k, image in enumerate(street):
        pipeline(frame(image, k))
    assert pipeline.dead_pixels == []


def test_a_pixel_that_recovers_is_left_alone_again() -> None:
    pipeline = ThermalPipeline(ThermalConfig.from_text("linear"))
    for k in range(300):
        image = noisy(seed=k)
        if k < 100:
            image[40, 60] = 16383
        pipeline(frame(image, k))
        if k == 99:
            assert pipeline.dead_pixels == [(60, 40)]
    assert pipeline.dead_pixels == []


# Streams


def test_a_change_of_size_starts_anew() -> None:
    pipeline = ThermalPipeline(ThermalConfig.from_text("plateau"))
    for k in range(30):
        pipeline(frame(noisy(seed=k), k))
    small = noisy(level=8000, size=(48, 64))
    fresh = ThermalPipeline(ThermalConfig.from_text("plateau"))
    np.testing.assert_array_equal(pipeline(frame(small, 30)).image, fresh(frame(small)).image)
    assert pipeline(frame((small // 64).astype(np.uint8), 31)).image.dtype == np.uint8


def test_colour_frames_give_their_luma() -> None:
    grey = (noisy() // 16).astype(np.uint8)
    colour = np.stack([grey] * 3, axis=-1)
    np.testing.assert_array_equal(ThermalPipeline()(frame(colour)).image, grey)


@settings(max_examples=60, deadline=None)
@given(
    nps.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(16, 40), st.integers(16, 40)),
        elements=st.integers(0, 255) | st.integers(0, 255),
    ),
    st.sampled_from(["auto", *TONES]),
    st.floats(-1e6, 1e6),
)
def test_any_picture_at_any_time(image: np.ndarray, text: str, step: float) -> None:
    """Constant, extreme, torn; clocks that stand still or run back: always a picture, never NaN."""
    pipeline = ThermalPipeline(ThermalConfig.from_text(text))
    for k, picture in enumerate(
        (image, np.full_like(image, np.iinfo(image.dtype).max), np.zeros_like(image), image)
    ):
        toned = pipeline(Frame(picture, k * step, k, "test")).image
        assert toned.dtype == np.uint8
        assert toned.shape == image.shape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plateau", ThermalConfig(mode="plateau")),
        ("plateau:5", ThermalConfig(mode="plateau", plateau=5.0)),
        ("linear:0.5:99.5", ThermalConfig(mode="linear", low_percent=0.5, high_percent=99.5)),
        ("clahe:3,black-hot", ThermalConfig(mode="clahe", clahe_clip=3.0, black_hot=True)),
        ("fixed:7000:9500,white-hot", ThermalConfig(mode="fixed", fixed=(7000.0, 9500.0))),
        ("auto", ThermalConfig()),
    ],
)
def test_spelling(text: str, expected: ThermalConfig) -> None:
    assert ThermalConfig.from_text(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "agc", "linear:1", "linear:5:5", "linear:a:b", "linear:-1:99", "fixed:9:3", "fixed:nan:3", "plateau:0.5",
     "clahe:0", "auto:3", "linear,hot", "linear,black-hot,black-hot", "fixed:0:70000"],
)  # fmt: skip
def test_misspelling(text: str) -> None:
    with pytest.raises(InputError, match="expected") as caught:
        ThermalConfig.from_text(text)
    assert "\n" not in str(caught.value)


def test_frames_it_cannot_take() -> None:
    for image, message in (
        (np.zeros((4, 4), np.float32), "thermal frame of float32, expected uint8 or uint16"),
        (np.zeros((4, 4, 4), np.uint8), "expected H×W or H×W×3"),
    ):
        with pytest.raises(InputError, match=message):
            ThermalPipeline()(frame(image))
    with pytest.raises(InputError, match="agc='fixed': test gives raw counts, expected limits"):
        ThermalPipeline(ThermalConfig.from_text("fixed"))(frame(noisy()))
