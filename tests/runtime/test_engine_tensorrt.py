"""The logic of the TensorRT engine, over the test doubles of TensorRT and PyCUDA."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from ufuser import Fuser, InputError
from ufuser.runtime.engines import GPU_ENGINES, EngineFailureError, open_engine
from ufuser.runtime.engines.manifest import DeviceFacts, Manifest, engine_key, find_engine, manifest_path
from ufuser.runtime.engines.profiles import Extent, Profile, check_profiles, choose_profile, nearest_size
from ufuser.runtime.engines.tensorrt import TensorRtEngine

SMALL = Profile(Extent(1, 16, 16), Extent(1, 64, 64), Extent(1, 128, 128))
LARGE = Profile(Extent(1, 64, 64), Extent(1, 480, 640), Extent(1, 512, 768))
HERE = DeviceFacts("10.3.0", "Double GPU", "8.9", "12.6.0", "12.6", "")

MakeEngine = Callable[..., Path]


@pytest.fixture
def make_engine(max_model: Path, tmp_path: Path) -> MakeEngine:
    """An engine of the double with its manifest: fused = max(ir, vi)."""

    def make(
        name: str = "x",
        profiles: tuple[Profile, ...] = (SMALL, LARGE),
        device: DeviceFacts = HERE,
        flags: dict[str, Any] | None = None,
        folder: Path = tmp_path,
    ) -> Path:
        shapes = [{n: [p.low.shape, p.best.shape, p.high.shape] for n in ("ir", "vi")} for p in profiles]
        header = {"profiles": shapes, "verbosity": "DETAILED", "layer_type": "Float"}
        content = b"ENGINE DOUBLE\n" + json.dumps(header).encode() + b"\n" + max_model.read_bytes()
        path = folder / f"{name}.engine"
        path.write_bytes(content)
        digest = hashlib.sha256(max_model.read_bytes()).hexdigest()
        manifest = Manifest(
            key=engine_key(digest, device.key, profiles, flags or {}),
            onnx=max_model.name,
            onnx_sha256=digest,
            engine_sha256=hashlib.sha256(content).hexdigest(),
            engine_bytes=len(content),
            device=device,
            profiles=profiles,
            flags=flags or {},
            metadata={"model": "max", "shape_multiple": "8"},
            layer_types={"float32": 1},
            rebuild=f"ufuser build --onnx max.onnx --out {name}.engine",
            toolkit="0",
        )
        manifest_path(path).write_text(manifest.as_json(), encoding="utf-8")
        return path

    return make


def pictures(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ir, vi = (rng.random((height, width), np.float32) for _ in range(2))
    return ir, vi


def fuse(engine: TensorRtEngine, height: int, width: int, seed: int = 0) -> np.ndarray:
    ir, vi = pictures(height, width, seed)
    into_ir, into_vi, fused = engine.bind(height, width)
    into_ir[:], into_vi[:] = ir, vi
    engine.run()
    np.testing.assert_array_equal(fused, np.maximum(ir, vi))
    return fused


@pytest.mark.parametrize("integrated", [False, True])
def test_batches_that_a_profile_has(
    double: SimpleNamespace, make_engine: MakeEngine, integrated: bool
) -> None:
    double.cuda.integrated = integrated
    three = Profile(Extent(1, 16, 16), Extent(2, 64, 64), Extent(3, 128, 128))
    engine = TensorRtEngine(make_engine(profiles=(three,)), None)
    rng = np.random.default_rng(0)
    ir, vi = (rng.random((3, 24, 32), np.float32) for _ in range(2))
    into_ir, into_vi, fused = engine.bind(24, 32, batch=3)
    into_ir[:], into_vi[:] = ir, vi
    engine.run()
    np.testing.assert_array_equal(fused, np.maximum(ir, vi))
    fuse(engine, 24, 32)
    with pytest.raises(InputError, match="4x24x32"):
        engine.bind(24, 32, batch=4)


@pytest.mark.parametrize("integrated", [False, True])
def test_fuses_by_name(double: SimpleNamespace, make_engine: MakeEngine, integrated: bool) -> None:
    double.cuda.integrated = integrated
    fuser = Fuser.open(make_engine(), "tensorrt")
    for seed, (height, width) in enumerate([(64, 64), (90, 101), (300, 500), (64, 64)]):
        ir, vi = pictures(height, width, seed)
        np.testing.assert_array_equal(fuser.fuse(ir, vi), np.maximum(ir, vi))
    assert fuser.engine.name == "TensorRT 10.3.0, Double GPU"
    assert fuser.engine.metadata["model"] == "max"


def test_calls_in_order_on_one_stream(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    engine = TensorRtEngine(make_engine(), None)
    engine.bind(64, 64)
    double.cuda.journal.clear()
    engine.run()
    assert double.cuda.journal == [
        "record",
        "memcpy_htod_async",
        "memcpy_htod_async",
        "execute_async_v3",
        "memcpy_dtoh_async",
        "record",
        "synchronize",
        "time_since",
    ]
    assert engine.gpu_ms == pytest.approx(
        2.75
    )  # the double's clock: two copies in, the network, one copy out


def test_memory_of_an_integrated_gpu_is_mapped_not_copied(
    double: SimpleNamespace, make_engine: MakeEngine
) -> None:
    double.cuda.integrated = True
    engine = TensorRtEngine(make_engine(), None)
    fuse(engine, 64, 64)
    assert not [call for call in double.cuda.journal if call.startswith("memcpy") or call == "mem_alloc"]
    assert double.cuda.used == 0


def test_profiles_are_chosen_and_kept(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    engine = TensorRtEngine(make_engine(), None)
    for height, width in [(64, 64), (80, 80), (480, 640), (128, 136), (128, 128)]:
        fuse(engine, height, width)
    changes = [call for call in double.cuda.journal if call.startswith("set_optimization_profile")]
    # 80x80 lies in both, nearer to the small one's best; 128x136 only in the large one.
    assert changes == [f"set_optimization_profile_async {i}" for i in (0, 1, 0)]


def test_buffers_grow_once_and_are_reused(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    engine = TensorRtEngine(make_engine(), None)
    fuse(engine, 480, 640)
    allocated = double.cuda.journal.count("mem_alloc"), double.cuda.used
    assert allocated == (3, 3 * 480 * 640 * 4)
    for seed, shape in enumerate([(64, 64), (240, 320), (480, 640), (128, 128)]):
        fuse(engine, *shape, seed)
    assert (double.cuda.journal.count("mem_alloc"), double.cuda.used) == allocated
    fuse(engine, 512, 768)
    assert (double.cuda.journal.count("mem_alloc"), double.cuda.used) == (6, 3 * 512 * 768 * 4)
    before = engine.bind(512, 768)
    assert all(a is b for a, b in zip(before, engine.bind(512, 768), strict=True))


def test_warms_up_at_every_new_shape_only(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    engine = TensorRtEngine(make_engine(), None)
    engine.bind(64, 64)
    warm = double.cuda.journal.count("execute_async_v3")
    assert warm >= 1
    engine.bind(64, 64)
    assert double.cuda.journal.count("execute_async_v3") == warm
    engine.bind(128, 128)
    assert double.cuda.journal.count("execute_async_v3") == 2 * warm


def test_each_engine_has_a_context_and_a_stream_of_its_own(
    double: SimpleNamespace, make_engine: MakeEngine
) -> None:
    path = make_engine()
    engines = [TensorRtEngine(path, None) for _ in range(2)]
    assert double.cuda.journal.count("create_execution_context") == 2
    assert len(double.cuda.streams) == 2
    for seed in range(3):
        for engine in engines:
            fuse(engine, 64, 64, seed)


def test_runs_from_another_thread(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    engine = TensorRtEngine(make_engine(), None)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            fuse(engine, 64, 64)
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("how", ["close", "drop"])
def test_memory_is_freed_at_once_from_any_thread(
    double: SimpleNamespace, make_engine: MakeEngine, no_collector: None, how: str, integrated: bool
) -> None:
    double.cuda.integrated = integrated
    fuser = Fuser.open(make_engine(), "tensorrt")
    fuser.fuse(*pictures(64, 64))
    held, engine = [fuser], weakref.ref(fuser.engine)
    del fuser
    assert double.cuda.used == (0 if integrated else 3 * 64 * 64 * 4)
    in_thread(held[0].close if how == "close" else held.clear)
    assert double.cuda.used == 0
    assert len(double.cuda.streams) == 0
    assert double.cuda.leaked == []
    held.clear()
    assert engine() is None


def test_memory_is_freed_if_a_fuser_is_closed_while_it_fuses(
    double: SimpleNamespace, make_engine: MakeEngine, no_collector: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuser, fused = Fuser.open(make_engine(), "tensorrt"), []
    run = fuser.engine.run

    def closed_meanwhile() -> None:
        fuser.close()
        run()

    monkeypatch.setattr(fuser.engine, "run", closed_meanwhile)
    in_thread(lambda: fused.append(fuser.fuse(*pictures(64, 64))))
    assert len(fused) == 1
    assert double.cuda.used == 0
    assert double.cuda.leaked == []


def test_a_closed_engine_is_an_error(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    engine = TensorRtEngine(make_engine(), None)
    fuse(engine, 64, 64)
    engine.close()
    engine.close()
    for call in (lambda: engine.bind(64, 64), engine.run):
        with pytest.raises(EngineFailureError, match="engine is closed"):
            call()


@pytest.mark.parametrize("call", ["Stream", "mem_alloc", "memcpy_htod_async", "synchronize", "time_since"])
def test_an_error_of_pycuda_is_one_line(double: SimpleNamespace, make_engine: MakeEngine, call: str) -> None:
    double.cuda.fail = call
    with pytest.raises(
        InputError, match=f"CUDA failed on Double GPU: {call} failed: unspecified launch"
    ) as caught:
        fuse(TensorRtEngine(make_engine(), None), 64, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1024, 1280), (16, 520)])
def test_a_shape_outside_every_profile_names_them(
    double: SimpleNamespace, make_engine: MakeEngine, shape: tuple[int, int]
) -> None:
    engine = TensorRtEngine(make_engine(), None)
    with pytest.raises(InputError, match=r"takes no 1x\d+x\d+.*1x16x16 to 1x128x128.*1x64x64 to 1x512x768"):
        engine.bind(*shape)
    fuse(engine, 64, 64)


@pytest.mark.parametrize(
    "method", ["set_optimization_profile_async", "set_input_shape", "set_tensor_address"]
)
def test_the_engine_works_again_after_a_failure_to_bind(
    double: SimpleNamespace, make_engine: MakeEngine, method: str
) -> None:
    engine = TensorRtEngine(make_engine(), None)
    fuse(engine, 64, 64)
    double.tensorrt.fail[method] = 0
    with pytest.raises(EngineFailureError, match="TensorRT refused"):
        engine.bind(480, 640)
    fuse(engine, 480, 640)
    fuse(engine, 64, 64)


def test_a_failure_in_the_middle_leaves_nothing_running(
    double: SimpleNamespace, make_engine: MakeEngine
) -> None:
    engine = TensorRtEngine(make_engine(), None)
    fuse(engine, 64, 64)
    double.tensorrt.fail["execute_async_v3"] = 0
    with pytest.raises(EngineFailureError, match="the enqueue failed"):
        engine.run()
    assert double.cuda.journal[-1] == "synchronize"
    fuse(engine, 64, 64, seed=3)


def test_no_memory_left_on_the_gpu(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    engine = TensorRtEngine(make_engine(), None)
    fuse(engine, 64, 64)
    double.cuda.room = 1 << 20
    with pytest.raises(InputError, match=r"no memory left for pictures of 1x480x640.*3 MiB"):
        engine.bind(480, 640)
    fuse(engine, 64, 64)


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (replace(HERE, gpu="Orin"), "another GPU"),
        (replace(HERE, compute_capability="8.7"), "another GPU"),
        (replace(HERE, tensorrt="10.13.2"), "another TensorRT version"),
    ],
)
def test_a_foreign_engine_is_refused_with_both_named(
    double: SimpleNamespace, make_engine: MakeEngine, device: DeviceFacts, reason: str
) -> None:
    with pytest.raises(InputError) as caught:
        Fuser.open(make_engine(device=device), "tensorrt")
    said = str(caught.value)
    assert reason in said
    assert str(device) in said
    assert str(HERE) in said
    assert "ufuser build --onnx max.onnx" in said
    assert "deserialize_cuda_engine" not in double.cuda.journal


def test_a_jetsons_own_engine_loads_in_a_container(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    """The container hides the release of Jetson Linux; GPU and compute capability identify the board."""
    double.cuda.gpu, double.cuda.capability, double.cuda.integrated = "Orin", (8, 7), True
    built = replace(HERE, gpu="Orin", compute_capability="8.7", l4t="36.4.3")
    engine = TensorRtEngine(make_engine(device=built), None)
    fuse(engine, 64, 64)


@pytest.mark.parametrize(("gpu", "capability"), [("Orin", (8, 7)), ("NVIDIA Thor", (11, 0))])
def test_no_hardware_compatible_engine_loads_on_a_jetson(
    double: SimpleNamespace, make_engine: MakeEngine, gpu: str, capability: tuple[int, int]
) -> None:
    double.cuda.gpu, double.cuda.capability = gpu, capability
    path = make_engine(device=replace(HERE, gpu="A100"), flags={"hardware_compatible": True})
    with pytest.raises(InputError, match="no hardware-compatible engines on a Jetson"):
        TensorRtEngine(path, None)


@pytest.mark.parametrize(
    ("device", "flags", "loads"),
    [
        (replace(HERE, gpu="A100", compute_capability="8.0"), {"hardware_compatible": True}, True),
        (replace(HERE, tensorrt="10.2.0"), {"version_compatible": True}, True),
        (replace(HERE, tensorrt="10.4.0"), {"version_compatible": True}, False),  # later than what runs here
        (replace(HERE, tensorrt="9.3.0"), {"version_compatible": True}, False),
    ],
)
def test_compatible_engines(
    double: SimpleNamespace, make_engine: MakeEngine, device: DeviceFacts, flags: dict[str, Any], loads: bool
) -> None:
    path = make_engine(device=device, flags=flags)
    if loads:
        fuse(TensorRtEngine(path, None), 64, 64)
    else:
        with pytest.raises(InputError, match="another TensorRT version"):
            TensorRtEngine(path, None)


def test_a_manifest_with_surplus_numbers_is_refused(make_engine: MakeEngine) -> None:
    path = make_engine()
    text = manifest_path(path).read_text(encoding="utf-8")
    manifest_path(path).write_text(re.sub(r"(\"min\": \[[^]]*)", r"\1, 7", text), encoding="utf-8")
    with pytest.raises(InputError, match=r"profiles\[0\].min"):
        Manifest.read(path)


def test_damage_is_found_before_tensorrt_sees_it(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    path = make_engine()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"truncated.*rebuild it: ufuser build"):
        TensorRtEngine(path, None)
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(InputError, match="damaged"):
        TensorRtEngine(path, None)
    manifest_path(path).unlink()
    with pytest.raises(InputError, match=r"no manifest x\.engine\.json.*--adopt"):
        TensorRtEngine(path, None)
    manifest_path(path).write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"the key 'key' is missing.*expected the manifest of an engine"):
        TensorRtEngine(path, None)
    assert "deserialize_cuda_engine" not in double.cuda.journal


def test_profiles_other_than_the_manifests(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    path = make_engine()
    manifest = replace(Manifest.read(path), profiles=(SMALL,))
    manifest_path(path).write_text(manifest.as_json(), encoding="utf-8")
    with pytest.raises(InputError, match=r"1x64x64 to 1x512x768.*its manifest names 1x16x16 to 1x128x128"):
        TensorRtEngine(path, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "ufuser-engine-9"}, "format"),
        ({"engine_bytes": "many"}, "engine_bytes"),
        ({"other": 1}, "unknown key 'other'"),
        ({"profiles": [{"min": [1, 16, 16], "opt": [1, 60, 64], "max": [1, 64, 64]}]}, "profiles"),
    ],
)
def test_a_manifest_that_does_not_fit(
    double: SimpleNamespace, make_engine: MakeEngine, change: dict[str, Any], message: str
) -> None:
    path = make_engine()
    data = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    manifest_path(path).write_text(json.dumps(data | change), encoding="utf-8")
    with pytest.raises(InputError, match=rf"x\.engine\.json.*{message}.*expected the manifest"):
        TensorRtEngine(path, None)


def test_an_engine_that_tensorrt_cannot_load(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    path = make_engine()
    double.tensorrt.fail["deserialize_cuda_engine"] = 0
    with pytest.raises(InputError, match=r"cannot be loaded by TensorRT \(Serialization assertion"):
        TensorRtEngine(path, None)
    double.tensorrt.fail["create_execution_context"] = 0
    with pytest.raises(InputError, match=r"does not have the 64 MiB.*out of memory"):
        TensorRtEngine(path, None)


def test_the_kept_engine_of_an_onnx_file(
    double: SimpleNamespace,
    make_engine: MakeEngine,
    max_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"no engine was built from .*max\.onnx.*ufuser build --onnx"):
        Fuser.open(max_model, "tensorrt")
    folder = tmp_path / "ufuser" / "engines"
    folder.mkdir(parents=True)
    make_engine("foreign", device=replace(HERE, gpu="Orin"), folder=folder)
    with pytest.raises(InputError, match="no engine was built"):
        Fuser.open(max_model, "tensorrt")
    mine = make_engine("mine", folder=folder)
    assert find_engine(max_model, HERE) == mine
    ir, vi = pictures(64, 64)
    np.testing.assert_array_equal(Fuser.open(max_model, "tensorrt").fuse(ir, vi), np.maximum(ir, vi))


def test_no_gpu(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    double.cuda.no_device = True
    with pytest.raises(InputError, match=r"no CUDA device can be used \(cuInit failed.*ufuser doctor"):
        TensorRtEngine(make_engine(), None)


def test_not_installed_names_the_extra(
    double: SimpleNamespace, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_engine()
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    with pytest.raises(InputError, match=r"PyCUDA cannot be imported.*ufuser\[tensorrt\]"):
        TensorRtEngine(path, None)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(InputError, match=r"TensorRT cannot be imported.*ufuser\[tensorrt\]"):
        TensorRtEngine(path, None)


def test_threads_are_refused(double: SimpleNamespace, make_engine: MakeEngine) -> None:
    with pytest.raises(InputError, match="threads 2: TensorRT runs on the GPU"):
        Fuser.open(make_engine(), "tensorrt", threads=2)


def test_an_engine_file_runs_in_tensorrt_only(make_engine: MakeEngine) -> None:
    with pytest.raises(InputError, match="is a TensorRT engine, expected tensorrt"):
        Fuser.open(make_engine())


@pytest.mark.parametrize("engine", [name for name in GPU_ENGINES if name.startswith("onnxruntime")])
def test_a_missing_provider_is_an_error(max_model: Path, engine: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if len(onnxruntime.get_available_providers()) > 2:
        pytest.skip("this ONNX Runtime has GPU providers")
    with pytest.raises(InputError, match=r"has no (CUDA|Tensorrt)ExecutionProvider.*ufuser\[gpu\]"):
        open_engine(engine, max_model, None)


def test_a_provider_that_does_not_start_is_an_error(max_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime itself would fall back to the CPU with a warning."""
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(InputError, match=r"could not start CUDAExecutionProvider.*run on CPU"):
        open_engine("onnxruntime-cuda", max_model, None)


def test_nearest_best_shape_wins() -> None:
    profiles = (LARGE, SMALL)
    assert choose_profile(profiles, Extent(1, 64, 64)) == 1
    assert choose_profile(profiles, Extent(1, 128, 128)) == 1
    assert choose_profile(profiles, Extent(1, 512, 768)) == 0
    assert "overlap" in check_profiles(profiles)[0]
    apart = Profile(Extent(1, 600, 800), Extent(1, 600, 800), Extent(1, 608, 808))
    assert check_profiles((SMALL, apart)) == []


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), (64, 64)),
        ((1920, 1080), (768, 432)),  # as wide as the widest profile
        ((700, 500), (700, 500)),  # padded to 704x504
        ((300, 700), (219, 512)),
    ],
)
def test_nearest_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert nearest_size((SMALL, LARGE), *size) == expected
    assert nearest_size((), *size) == size


def test_a_small_picture_is_scaled_up() -> None:
    assert nearest_size((LARGE,), 40, 32) == (80, 64)


def test_no_size_of_this_shape() -> None:
    with pytest.raises(InputError, match="aspect ratio of 3000x100"):
        nearest_size((LARGE,), 3000, 100)
