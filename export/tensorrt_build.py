"""A plan → a TensorRT engine with its manifest, through Polygraphy, on the GPU that will run it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsInt

from ufuser.export.tensorrt_plan import Plan
from ufuser.runtime.engines import INPUTS
from ufuser.runtime.engines.cuda import Device, require_tensorrt
from ufuser.runtime.engines.manifest import DeviceFacts, Manifest, manifest_path
from ufuser.runtime.engines.profiles import listed
from ufuser.runtime.engines.tensorrt import collecting_logger, engine_profiles
from ufuser.runtime.errors import InputError
from ufuser.runtime.files import make_folder, require_writable, write_bytes

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 1 << 20
_EXPECTED = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
_TYPE_WORDS = (
    (re.compile(r"\b(half|fp16)\b", re.IGNORECASE), "float16"),
    (re.compile(r"\bint8\b", re.IGNORECASE), "int8"),
    (re.compile(r"\b(bf16|bfloat16)\b", re.IGNORECASE), "bfloat16"),
    (re.compile(r"\b(float|fp32)\b", re.IGNORECASE), "float32"),
)
"""How the engine inspector of different releases calls a type, in its "Format/Datatype"."""
_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|workspace|CUDA_ERROR_OUT_OF_MEMORY", re.IGNORECASE)


def find_device() -> tuple[Device, DeviceFacts]:
    """This machine's GPU. Raises InputError where TensorRT, PyCUDA or a GPU is missing."""
    require_tensorrt()
    import tensorrt as trt

    device = Device()
    return device, device.facts(trt.__version__)


def up_to_date(plan: Plan, here: DeviceFacts) -> bool:
    """Whether the engine at the plan's place has the plan's key and is whole."""
    try:
        manifest = Manifest.read(plan.out)
        return manifest.key == plan.key(here) and (
            hashlib.sha256(plan.out.read_bytes()).hexdigest() == manifest.engine_sha256
        )
    except (InputError, OSError):
        return False


def build(plan: Plan, device: Device, here: DeviceFacts, say: Callable[[str], None]) -> Manifest:
    """Build, check and publish an engine.

    Args:
        plan: what to build.
        device: GPU to build on and for.
        here: its facts.
        say: takes a line about each step.

    Returns:
        The manifest that was written beside the engine.

    Raises:
        InputError: Polygraphy not installed, a graph TensorRT does not take, no memory, an engine of another
            precision than the graph's. Nothing is written then but the timing cache.
    """
    make_folder(plan.out.parent)
    require_writable(plan.out)
    require_writable(manifest_path(plan.out))
    with device.current():
        content = _serialized(plan, say)
        say("reading the engine's types back …")
        types = _read_types(plan, content)
    check_types(plan, types)
    return _publish(plan, content, here, types)


def adopt(plan: Plan, device: Device, here: DeviceFacts) -> Manifest:
    """Check an engine that trtexec built from the plan, and write its manifest.

    Raises InputError for an engine that TensorRT can't load here, of other profiles than the plan's, or of another
    precision than the graph's.
    """
    try:
        content = plan.out.read_bytes()
    except OSError as e:
        raise InputError(f"cannot read {plan.out}: {e.strerror}; expected the engine to adopt") from None
    with device.current():
        types = _read_types(plan, content)
    check_types(plan, types)
    manifest = _manifest(plan, content, here, types)
    write_bytes(manifest_path(plan.out), manifest.as_json().encode())
    return manifest


def require_polygraphy() -> None:
    """Raise InputError, naming the extra, if `polygraphy.backend.trt` cannot be imported."""
    try:
        # It would install missing packages by itself, and complain about versions in several lines.
        os.environ.setdefault("POLYGRAPHY_AUTOINSTALL_DEPS", "0")
        import_module("polygraphy.backend.trt")
    except ImportError as e:
        raise InputError(
            f'Polygraphy cannot be imported ({str(e).splitlines()[0]}): pip install "ufuser[tensorrt]"'
        ) from None


def _serialized(plan: Plan, say: Callable[[str], None]) -> bytes:
    """The engine's bytes."""
    require_polygraphy()
    from polygraphy.backend import trt as polygraphy
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    recorder = error_recorder()
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):  # one line of ours says what went wrong
            say("parsing the ONNX file …")
            made = polygraphy.NetworkFromOnnxPath(str(plan.onnx), strongly_typed=True)()
            builder: trt.Builder = made[0]
            builder.error_recorder = recorder
            say("building (minutes; the timing cache makes the next build shorter) …")
            engine_loader = polygraphy.EngineBytesFromNetwork(
                made, config=_config(plan), save_timing_cache=str(plan.timing_cache)
            )
            memory: trt.IHostMemory = engine_loader()
            return bytes(memory)
    except (PolygraphyException, RuntimeError, TypeError) as e:
        # "nullptr" is pybind11's word for an object that TensorRT did not make; other TypeErrors are ours.
        if isinstance(e, TypeError) and "nullptr" not in str(e):
            raise
        raise InputError(_why(plan, [*recorder.messages, str(e)])) from None


def _config(plan: Plan) -> Any:
    import tensorrt as trt
    from polygraphy.backend import trt as polygraphy

    profiles = []
    for planned in plan.profiles:
        profile = polygraphy.Profile()
        for name in INPUTS:
            profile.add(name, min=planned.low.shape, opt=planned.best.shape, max=planned.high.shape)
        profiles.append(profile)
    flags = plan.flags
    hardware = trt.HardwareCompatibilityLevel
    cache = str(plan.timing_cache) if plan.timing_cache.is_file() else None
    return polygraphy.CreateConfig(
        profiles=profiles,
        tf32=flags.tf32,
        load_timing_cache=cache,
        memory_pool_limits={trt.MemoryPoolType.WORKSPACE: flags.workspace_mib * _MIB},
        builder_optimization_level=flags.optimization_level,
        version_compatible=flags.version_compatible,
        hardware_compatibility_level=hardware.AMPERE_PLUS if flags.hardware_compatible else hardware.NONE,
        refittable=flags.refit,
        profiling_verbosity=trt.ProfilingVerbosity.DETAILED,  # else no types can be read back
    )


def _why(plan: Plan, messages: list[str]) -> str:
    """One line about a failed build, with what to do where that is known."""
    said = next((m for m in messages if _MEMORY.search(m)), messages[0])
    said = " ".join(said.split())[:300]
    if _MEMORY.search(said):
        return (
            f"TensorRT ran out of memory building {plan.out.name} ({said}): lower --workspace "
            f"({plan.flags.workspace_mib} MiB now) or --max, or free the GPU"
        )
    return f"TensorRT could not build {plan.out.name} from {plan.onnx}: {said}"


def error_recorder() -> Any:
    """Collects what TensorRT reports while building; `messages` holds it."""
    import tensorrt as trt

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]  # Any where TensorRT is not installed
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.messages: list[str] = []

        def clear(self) -> None:
            self.messages.clear()

        def report_error(self, val: Any, desc: str) -> bool:
            self.messages.append(desc)
            return False  # not fatal: let the build say itself how it ended

        def num_errors(self) -> int:
            return len(self.messages)

        def get_error_code(self, arg0: SupportsInt) -> Any:
            return trt.ErrorCodeTRT.UNSPECIFIED_ERROR

        def get_error_desc(self, arg0: SupportsInt) -> str:
            return self.messages[int(arg0)]

        def has_overflowed(self) -> bool:
            return False

    return Recorder()


def _read_types(plan: Plan, content: bytes) -> dict[str, dict[str, int]]:
    """What the inspector says of the engine: element types of all layers, and of convolutions alone."""
    import tensorrt as trt

    log = collecting_logger()
    runtime = trt.Runtime(log)
    if plan.flags.version_compatible:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise InputError(f"{plan.out} cannot be loaded by TensorRT here ({log.last()}): build it anew")
    found = engine_profiles(plan.out, engine)
    if found != plan.profiles:
        raise InputError(
            f"{plan.out} was built with the profiles {listed(found)}; the command names {listed(plan.profiles)}: "
            f"give its own with --min, --opt and --max, or build it anew"
        )
    inspector = engine.create_engine_inspector()
    # Without shapes the inspector answers "N/A due to dynamic shapes".
    context = engine.create_execution_context()
    if context is not None:
        for name in INPUTS:
            context.set_input_shape(name, plan.profiles[0].best.shape)
        inspector.execution_context = context
    return layer_types(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def layer_types(information: str) -> dict[str, dict[str, int]]:
    """Element types by how many layers take or give them, from the engine inspector's JSON.

    Returns:
        {"layers": {type: count}, "convolutions": {type: count}}; a layer of several types counts for each.
    """
    found: dict[str, Counter[str]] = {"layers": Counter(), "convolutions": Counter()}
    layers = json.loads(information).get("Layers", [])
    for layer in layers:
        if not isinstance(layer, Mapping):  # a name alone: the engine was built without detail
            continue
        ends = [*layer.get("Inputs", []), *layer.get("Outputs", [])]
        types = {t for t in (_type_of(str(end.get("Format/Datatype", ""))) for end in ends) if t}
        found["layers"].update(types)
        if "conv" in f"{layer.get('LayerType', '')} {layer.get('Name', '')}".lower():
            found["convolutions"].update(types)
    return {kind: dict(sorted(counter.items())) for kind, counter in found.items()}


def _type_of(said: str) -> str:
    return next((kind for words, kind in _TYPE_WORDS if words.search(said)), "")


def check_types(plan: Plan, types: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse an engine whose convolutions run in another precision than the graph's.

    Raises InputError; also where the inspector names no types, because then nothing is known.
    """
    wanted = _EXPECTED[plan.precision]
    counted = types["convolutions"] or types["layers"]
    if not counted:
        raise InputError(
            f"{plan.out}: TensorRT names no layer's type, so that its precision is unknown; build it with "
            f"detailed profiling verbosity (`ufuser-build` and its --script do)"
        )
    said = ", ".join(f"{count} in {kind}" for kind, count in counted.items())
    most = max(counted, key=lambda kind: counted[kind])
    # In int8 every other convolution may have been left in float for quality's sake; in fp16 none was.
    fits = counted.get(wanted, 0) > 0 if plan.precision == "int8" else most == wanted
    if not fits:
        raise InputError(
            f"{plan.out} was to be {plan.precision}, but its convolutions are {said}: expected {wanted}; "
            f"is {plan.onnx} what its metadata says?"
        )


def _manifest(
    plan: Plan, content: bytes, here: DeviceFacts, types: Mapping[str, Mapping[str, int]]
) -> Manifest:
    try:
        toolkit = version("ufuser")
    except PackageNotFoundError:
        toolkit = "not installed"
    return Manifest(
        key=plan.key(here),
        onnx=plan.onnx.name,
        onnx_sha256=plan.onnx_sha256,
        engine_sha256=hashlib.sha256(content).hexdigest(),
        engine_bytes=len(content),
        device=here,
        profiles=plan.profiles,
        flags=asdict(plan.flags),
        metadata=dict(plan.metadata),
        layer_types=dict(types["layers"]),
        rebuild=plan.command(),
        toolkit=toolkit,
    )


def _publish(
    plan: Plan, content: bytes, here: DeviceFacts, types: Mapping[str, Mapping[str, int]]
) -> Manifest:
    """Write both files; the manifest holds the engine's hash, so that a pair of two builds is found out."""
    manifest = _manifest(plan, content, here, types)
    write_bytes(plan.out, content)
    try:
        write_bytes(manifest_path(plan.out), manifest.as_json().encode())
    except BaseException:
        with suppress(OSError):
            Path(plan.out).unlink()
        raise
    return manifest
