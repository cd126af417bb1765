"""The simulated cameras: pictures, registration, timing and faults."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufuser.runtime.errors import InputError
from ufuser.simulation import Scene, SimCamera, SimConfig
from ufuser.simulation import people as bodies
from ufuser.simulation.cameras import ThermalCamera, VisibleCamera, counts
from ufuser.simulation.illumination import beams_at, lamps_at

WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(0, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def visible(scene: Scene) -> SimCamera:
    return SimCamera(SimConfig("visible", WIDTH, HEIGHT), scene)


@pytest.fixture(scope="module")
def thermal(scene: Scene) -> SimCamera:
    return SimCamera(SimConfig("thermal", WIDTH, HEIGHT), scene)


def _silhouette(scene: Scene, name: str, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a person, and a ring of street around them."""
    person = next(p for p in scene.people(t) if p.name == name)
    patch = bodies.thermal(person, scene.pinhole)
    assert patch is not None
    inside = np.zeros((HEIGHT, WIDTH), np.uint8)
    h, w = patch.alpha.shape
    inside[patch.y : patch.y + h, patch.x : patch.x + w] = patch.alpha > 0.9
    near, wide = (cv2.dilate(inside, np.ones((k, k), np.uint8)) for k in (5, 11))
    return inside > 0, (wide > 0) & (near == 0)


# Pictures


def test_shapes_and_types(scene: Scene, visible: SimCamera, thermal: SimCamera) -> None:
    color, _ = visible.frame(3)
    temperature, _ = thermal.frame(3)
    assert color.shape == (HEIGHT, WIDTH, 3)
    assert color.dtype == np.uint8
    assert temperature.shape == (HEIGHT, WIDTH)
    assert temperature.dtype == np.uint8


@pytest.mark.parametrize("bits", [14, 16])
def test_raw_counts_fill_their_range_without_clipping(scene: Scene, bits: int) -> None:
    raw, _ = SimCamera(SimConfig("thermal", WIDTH, HEIGHT, bits=bits), scene).frame(0)
    assert raw.dtype == np.uint16
    assert 0 < raw.min() < raw.max() < 2**bits - 1
    # A street must be far finer than eight bits, or raw counts would be pointless.
    assert len(np.unique(raw)) > 500


def test_counts_rise_with_temperature() -> None:
    celsius = np.linspace(-40, 120, 500, dtype=np.float32)
    assert (np.diff(counts(celsius, 14).astype(int)) > 0).all()


def test_raw_and_8_bit_agree_on_what_is_warmer(scene: Scene, thermal: SimCamera) -> None:
    raw, _ = SimCamera(SimConfig("thermal", WIDTH, HEIGHT, bits=14), scene).frame(0)
    toned, _ = thermal.frame(0)
    order = np.argsort(raw, axis=None, kind="stable")
    assert (np.diff(toned.reshape(-1)[order].astype(int)) >= -1).all()


def test_frames_do_not_depend_on_their_order(scene: Scene, visible: SimCamera, thermal: SimCamera) -> None:
    for camera in (visible, thermal):
        forward = [camera.frame(i)[0] for i in (0, 40, 80)]
        backward = [camera.frame(i)[0] for i in (80, 40, 0)][::-1]
        for a, b in zip(forward, backward, strict=True):
            np.testing.assert_array_equal(a, b)


def test_same_seed_same_street_other_seed_other_street() -> None:
    small = {"width": 96, "height": 72}
    one, _ = SimCamera(SimConfig("visible", seed=4, **small)).frame(10)
    again, _ = SimCamera(SimConfig("visible", seed=4, **small)).frame(10)
    other, _ = SimCamera(SimConfig("visible", seed=5, **small)).frame(10)
    np.testing.assert_array_equal(one, again)
    assert (one != other).mean() > 0.5


@pytest.mark.parametrize(("width", "height"), [(64, 64), (65, 101), (200, 64), (90, 160)])
def test_any_size(width: int, height: int) -> None:
    scene = Scene(1, width, height)
    for kind, shape in (("visible", (height, width, 3)), ("thermal", (height, width))):
        camera = SimCamera(SimConfig(kind, width, height, seed=1), scene)
        for index in (0, 200, 500):
            assert camera.frame(index)[0].shape == shape


def test_every_moment_of_a_cycle_can_be_rendered(scene: Scene) -> None:
    eye, ear = VisibleCamera(scene, 0), ThermalCamera(scene, 0, 8)
    for t in np.arange(0.0, 48.0, 0.9):
        eye.render(float(t), 0)
        ear.render(float(t), 0)
        assert np.isfinite(ear.temperature(float(t))).all()


def test_night_is_dark_but_not_black_and_lamps_saturate(visible: SimCamera) -> None:
    picture, _ = visible.frame(0)
    grey = picture.max(axis=2)
    assert 10 < np.median(grey) < 70
    assert (grey == 0).mean() < 0.05
    assert 0.0002 < (picture.min(axis=2) > 245).mean() < 0.03


@pytest.mark.parametrize("t", [1.0, 2.0, 3.0, 22.0])
def test_a_person_in_the_dark_is_visible_in_thermal_only(
    scene: Scene, visible: SimCamera, thermal: SimCamera, t: float
) -> None:
    inside, around = _silhouette(scene, "dark", t)
    assert inside.sum() > 300
    color, temperature = visible.frame(int(t * 25))[0].mean(axis=2), thermal.frame(int(t * 25))[0]
    assert temperature[inside].mean() - temperature[around].mean() > 80
    assert color[inside].mean() < 35
    assert abs(color[inside].mean() - color[around].mean()) < 25


def test_all_people_are_warmer_than_the_road(scene: Scene, thermal: SimCamera) -> None:
    temperature = ThermalCamera(scene, 0, 8).temperature(2.0)
    road = np.median(temperature[-HEIGHT // 5 :])
    checked = 0
    for box in scene.boxes(2.0):
        x, y = (box.x0 + box.x1) / 2, box.y0 + 0.35 * (box.y1 - box.y0)
        tall = box.y1 - box.y0
        if box.kind == "person" and tall > 30 and 4 < x < WIDTH - 4:
            chest = temperature[int(y - 3) : int(y + 3), int(x - 2) : int(x + 2)]
            assert chest.max() > road + 8
            checked += 1
    assert checked >= 3


def test_paint_signs_and_windows_are_not_in_thermal(scene: Scene) -> None:
    # The zebra crossing, 30 m ahead: strong contrast in light, next to none in temperature.
    row = int(scene.pinhole.cy + 2.6 / 30.0 * scene.pinhole.focal)
    left = int(scene.pinhole.cx - 6.5 / 30.0 * scene.pinhole.focal)
    right = int(scene.pinhole.cx - 1.0 / 30.0 * scene.pinhole.focal)
    light = scene.radiance[row, left:right].mean(axis=1)
    temperature = scene.temperature[row, left:right, 0]
    assert light.max() > 3 * light.min()
    assert np.ptp(temperature) < 2.0
    bright = (scene.radiance[..., 1] > 0.25) & (np.arange(HEIGHT)[:, None] < scene.pinhole.cy)
    assert bright.sum() > 50
    lit = scene.temperature[..., 0][bright]
    # Of all that shines up there only the lamps' housings are warm.
    assert np.median(lit) < 13.0


def test_both_cameras_are_registered(scene: Scene) -> None:
    """The outline of a car is at the same pixels in both pictures."""
    t, earlier = 7.5, 0.0
    masks = []
    for picture, threshold in (
        (VisibleCamera(scene, 0).radiance, 0.02),
        (ThermalCamera(scene, 0, 8).temperature, 3.0),
    ):
        change = np.abs(picture(t) - picture(earlier))
        masks.append((change.max(axis=2) if change.ndim == 3 else change) > threshold)
    box = next(b for b in scene.boxes(t) if b.name == "car0")
    rows, columns = slice(int(box.y0) - 4, int(box.y1) + 5), slice(int(box.x0) - 4, int(box.x1) + 5)
    temperature = masks[1][rows, columns]
    xs = np.nonzero(temperature)[1]
    assert temperature.sum() > 200
    assert abs(xs.min() - 4) <= 4
    assert abs(xs.max() - (temperature.shape[1] - 5)) <= 5
    # The brightest points in light are the headlights, and they lie on the warm front.
    lamps = VisibleCamera(scene, 0).radiance(t)[rows, columns].min(axis=2) > 2.0
    assert lamps.sum() >= 2
    assert (temperature & lamps).sum() == lamps.sum()


def test_same_person_same_outline_in_both(scene: Scene) -> None:
    person = next(p for p in scene.people(2.0) if p.name == "dark")
    place = (person.x, 1.0, person.z)
    visible = bodies.visible(person, scene.pinhole, lamps_at(scene.layout.lamps, place), beams_at((), place))
    thermal = bodies.thermal(person, scene.pinhole)
    assert visible is not None
    assert thermal is not None
    assert (visible.x, visible.y) == (thermal.x, thermal.y)
    np.testing.assert_allclose(visible.alpha, thermal.alpha)


def test_no_flicker(visible: SimCamera, thermal: SimCamera) -> None:
    for camera in (visible, thermal):
        levels = [float(camera.frame(i)[0].mean()) for i in range(0, 12)]
        assert np.abs(np.diff(levels)).max() < 0.8


def test_noise_moves_and_the_street_stays(thermal: SimCamera, visible: SimCamera) -> None:
    for camera in (thermal, visible):
        a, b = camera.frame(0)[0].astype(int), camera.frame(1)[0].astype(int)
        assert (a != b).mean() > 0.02
        assert np.median(np.abs(a - b)) <= 6


def test_movement_is_smooth(scene: Scene) -> None:
    """Nobody jumps between frames, except out of sight, where cars and people start again."""
    before = {b.name: b for b in scene.boxes(0.0)}
    for k in range(1, 60):
        now = {b.name: b for b in scene.boxes(k / 25)}
        for name in before.keys() & now.keys():
            if now[name].depth > 7.0 and before[name].depth > 7.0 and now[name].depth < 85.0:
                assert abs(now[name].depth - before[name].depth) < 0.5
        before = now


def test_nobody_is_run_over(scene: Scene) -> None:
    for t in np.arange(0.0, 48.0, 0.1):
        walkers = [p for p in scene.people(float(t)) if p.name in ("dark", "pair0", "pair1")]
        for car in scene.vehicles(float(t)):
            for person in walkers:
                if abs(person.x - car.x) < 1.4:
                    assert abs(person.z - car.z) > car.mesh.half_length + 2.0


# Streams


def test_stamps_and_endless_iteration() -> None:
    config = SimConfig("thermal", 64, 64, fps=9.0, offset_ms=12.0)
    camera = SimCamera(config)
    for index, (image, stamp) in enumerate(itertools.islice(camera, 5)):
        assert stamp == pytest.approx(index / 9.0 + 0.012)
        np.testing.assert_array_equal(image, camera.frame(index)[0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), fps=st.floats(1.0, 120.0), share=st.floats(0.0, 1.0))
def test_jittered_stamps_stay_near_and_in_order(seed: int, fps: float, share: float) -> None:
    line = SimConfig("visible", seed=seed, fps=fps, jitter_ms=share * 500.0 / fps).timing()
    stamps = np.asarray([line.stamp(i) for i in range(40)])
    assert (np.diff(stamps) > 0).all()
    assert np.abs(stamps - np.arange(40) / fps).max() <= share * 0.5 / fps + 1e-9
    assert [line.stamp(i) for i in (7, 3)] == [stamps[7], stamps[3]]


def test_drops_follow_their_probability_and_skip_frames() -> None:
    line = SimConfig("thermal", drop=0.2, seed=5).timing()
    kept = [line.delivered(i) for i in range(3000)]
    assert 0.77 < np.mean(kept) < 0.83
    camera = SimCamera(SimConfig("thermal", 64, 64, drop=0.5, seed=5))
    arrived = list(itertools.islice(camera.indices(), 10))
    assert arrived == [i for i in range(arrived[-1] + 1) if camera.timing.delivered(i)]
    assert arrived != list(range(10))
    assert [s for _, s in itertools.islice(camera, 10)] == [i / 25 for i in arrived]


def test_the_two_cameras_lose_different_frames() -> None:
    lost = [
        {i for i in range(500) if not SimConfig(kind, drop=0.3).timing().delivered(i)}
        for kind in ("visible", "thermal")
    ]
    assert lost[0] != lost[1]


def test_stall_silences_the_stream_once_a_minute() -> None:
    line = SimConfig("visible", fps=10.0, stall=5.0).timing()
    silent = [i / 10 for i in range(1000) if not line.delivered(i)]
    assert silent == [i / 10 for i in (*range(100, 150), *range(700, 750))]


def test_ffc_freezes_bit_identical_frames() -> None:
    camera = SimCamera(SimConfig("thermal", 64, 64, fps=10.0, ffc=3.0, bits=14))
    assert [i for i in range(70) if camera.timing.frozen(i)] == [*range(30, 36), *range(60, 66)]
    held = camera.frame(29)[0]
    for index in range(30, 36):
        image, stamp = camera.frame(index)
        np.testing.assert_array_equal(image, held)
        assert stamp == pytest.approx(index / 10)
    assert (camera.frame(36)[0] != held).any()
    assert (camera.frame(28)[0] != held).any()


def test_a_scene_can_be_shared_but_not_mixed_up(scene: Scene) -> None:
    with pytest.raises(InputError, match="seed 0 at 320x240: the camera expects seed 1 at 320x240"):
        SimCamera(SimConfig("visible", WIDTH, HEIGHT, seed=1), scene)
    with pytest.raises(InputError, match="counted from 0"):
        SimCamera(SimConfig("visible", WIDTH, HEIGHT), scene).frame(-1)


# URIs


def test_uri_has_every_option() -> None:
    uri = "sim://thermal?fps=9&bits=14&size=640x480&seed=3&ffc=60&drop=0.02&jitter=8ms&stall=5&offset=12ms"
    assert SimConfig.from_uri(uri) == SimConfig(
        "thermal", 640, 480, 9.0, 14, 3, drop=0.02, jitter_ms=8.0, stall=5.0, ffc=60.0, offset_ms=12.0
    )
    assert SimConfig.from_uri("sim://visible") == SimConfig()
    assert SimConfig.from_uri("sim://visible/?") == SimConfig()


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("jitter=0.008s", "jitter_ms", 8.0),
        ("jitter=8", "jitter_ms", 8.0),
        ("offset=-40ms", "offset_ms", -40.0),
        ("stall=1500ms", "stall", 1.5),
        ("ffc=90s", "ffc", 90.0),
    ],
)
def test_uri_units(text: str, field: str, value: float) -> None:
    assert getattr(SimConfig.from_uri(f"sim://thermal?{text}"), field) == pytest.approx(value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "sim://thermic",
            "sim://thermic: expected sim://visible or sim://thermal",
        ),
        ("sim://", "expected sim://visible or sim://thermal"),
        ("usb://thermal", "expected sim://visible or sim://thermal"),
        ("sim://thermal?bit=14", r"unknown option 'bit', .*did you mean bits\?"),
        ("sim://thermal?bits=12", "bits=12: expected 8 or 14 or 16 for a thermal camera"),
        ("sim://visible?bits=14", "bits=14: expected 8 for a visible camera"),
        ("sim://visible?bits=many", "bits=many: expected a whole number"),
        ("sim://visible?fps=fast", "fps=fast: expected a number"),
        ("sim://visible?fps=0", "fps=0: expected a number from 0.1"),
        ("sim://visible?fps=nan", "fps=nan: expected a number"),
        ("sim://visible?size=640", "size=640: expected WIDTHxHEIGHT"),
        ("sim://visible?size=32x480", "width=32: expected a whole number >= 64"),
        ("sim://visible?seed=-1", "seed=-1: expected a whole number >= 0"),
        ("sim://visible?drop=1.5", "drop=1.5: expected a number from 0 to 0.99"),
        ("sim://visible?jitter=8min", "jitter=8min: expected a time"),
        ("sim://visible?jitter=30ms", "jitter=30ms: expected at most half a frame, 20ms at 25 fps"),
        ("sim://visible?stall=90", "stall=90: expected a number from 0 to 59"),
        ("sim://visible?ffc=60", "ffc=60: only a thermal camera"),
        ("sim://thermal?ffc=0.5", "ffc=0.5: expected a period longer than"),
        ("sim://visible?fps=9&fps=25", "'fps' is given twice"),
        ("sim://visible?fps=", "fps=: expected a number"),
    ],
)
def test_uri_errors_name_value_and_expectation(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SimConfig.from_uri(uri)
    assert "\n" not in str(caught.value)
