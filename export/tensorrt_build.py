"""TensorRT engines with their manifests, built by Polygraphy on the GPU that will run them."""

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
from ufuser.runtime.errors import InputError, first_line
from ufuser.runtime.files import make_folder, require_writable, write_bytes
from ufuser.runtime.remedies import how_to_install

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
"""Names of a type in "Format/Datatype" of the engine inspector, by release."""
_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|workspace|CUDA_ERROR_OUT_OF_MEMORY", re.IGNORECASE)


def find_device() -> tuple[Device, DeviceFacts]:
    """This machine's GPU. Raises InputError where TensorRT, PyCUDA or a GPU is missing."""
    require_tensorrt()
    import tensorrt as trt

    device = Device()
    return device, device.facts(trt.__version__)


def up_to_date(plan: Plan, here: DeviceFacts) -> bool:
    """Whether the engine at the plan's path is undamaged and has the plan's key."""
    try:
        manifest = Manifest.read(plan.out)
        return manifest.key == plan.key(here) and (
            hashlib.sha256(plan.out.read_bytes()).hexdigest() == manifest.engine_sha256
        )
    except (InputError, OSError):
        return False


def build(plan: Plan, device: Device, here: DeviceFacts, report: Callable[[str], None]) -> Manifest:
    """Build, check and publish an engine.

    Args:
        plan: the engine to build.
        device: GPU to build on and for.
        here: its facts.
        report: receives a line about each step.

    Returns:
        The manifest that was written beside the engine.

    Raises:
        InputError: Polygraphy is not installed, hardware compatibility on a Jetson, TensorRT does not accept the
            graph, no memory, an engine of another precision than the graph's. Only the timing cache is written then.
    """
    if plan.flags.hardware_compatible and here.jetson:
        raise InputError(
            f"hardware_compatible: TensorRT has no hardware-compatible engines on a Jetson, which this is "
            f"({here.gpu}, compute capability {here.compute_capability}): leave it out",
            argument="hardware_compatible",
        )
    make_folder(plan.out.parent)
    require_writable(plan.out)
    require_writable(manifest_path(plan.out))
    with device.current():
        content = _serialized(plan, report)
        report("reading the engine's types back …")
        types = _read_types(plan, content)
    check_types(plan, types)
    return _publish(plan, content, here, types)


def adopt(plan: Plan, device: Device, here: DeviceFacts) -> Manifest:
    """Check an engine that trtexec built from the plan, and write its manifest.

    Raises InputError for an engine that TensorRT cannot load here, that has other profiles than the plan, or another
    precision than the graph.
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
    """Raise InputError, with the command that installs it, if `polygraphy.backend.trt` cannot be imported."""
    try:
        # It would install missing packages by itself, and complain about versions in several lines.
        os.environ.setdefault("POLYGRAPHY_AUTOINSTALL_DEPS", "0")
        import_module("polygraphy.backend.trt")
    except ImportError as e:
        raise InputError(
            f"Polygraphy cannot be imported ({first_line(e)}): {how_to_install('polygraphy')}"
        ) from None


def _serialized(plan: Plan, report: Callable[[str], None]) -> bytes:
    """The engine's bytes."""
    require_polygraphy()
    from polygraphy.backend import trt as polygraphy
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    recorder = error_recorder()
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):  # the InputError says it in one line
            report("parsing the ONNX file …")
            made = polygraphy.NetworkFromOnnxPath(str(plan.onnx), strongly_typed=True)()
            builder: trt.Builder = made[0]
            builder.error_recorder = recorder
            report("building (minutes; the timing cache makes the next build shorter) …")
            engine_loader = polygraphy.EngineBytesFromNetwork(
                made, config=_config(plan), save_timing_cache=str(plan.timing_cache)
            )
            memory: trt.IHostMemory = engine_loader()
            return bytes(memory)
    except (PolygraphyException, RuntimeError, TypeError) as e:
        # "nullptr" is pybind11's word for an object that TensorRT did not make; other TypeErrors are ours.
        if isinstance(e, TypeError) and "nullptr" not in str(e):
            raise
        raise InputError(_failure(plan, [*recorder.messages, str(e)])) from None


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


def _failure(plan: Plan, messages: list[str]) -> str:
    """One line about a failed build, with a remedy where one is known."""
    reason = next((m for m in messages if _MEMORY.search(m)), messages[0])
    reason = " ".join(reason.split())[:300]
    if _MEMORY.search(reason):
        return (
            f"TensorRT ran out of memory building {plan.out.name} ({reason}): lower --workspace "
            f"({plan.flags.workspace_mib} MiB now) or --max, or free the GPU"
        )
    return f"TensorRT could not build {plan.out.name} from {plan.onnx}: {reason}"


def error_recorder() -> Any:
    """A recorder of the errors that TensorRT reports while building, in `messages`."""
    import tensorrt as trt

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]  # Any where TensorRT is not installed
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.messages: list[str] = []

        def clear(self) -> None:
            self.messages.clear()

        def report_error(self, val: Any, desc: str) -> bool:
            self.messages.append(desc)
            return False  # not fatal: the build ends by itself

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
    """Element types of all layers, and of convolutions alone, from the engine inspector."""
    import tensorrt as trt

    log = collecting_logger()
    runtime = trt.Runtime(log)
    if plan.flags.version_compatible:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise InputError(f"{plan.out} cannot be loaded by TensorRT here ({log.last()}): build it again")
    found = engine_profiles(plan.out, engine)
    if found != plan.profiles:
        raise InputError(
            f"{plan.out} was built with the profiles {listed(found)}; the command names {listed(plan.profiles)}: "
            f"give its own with --min, --opt and --max, or build it again"
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
    """Element types by the number of layers with such inputs or outputs, from the engine inspector's JSON.

    Returns:
        {"layers": {type: count}, "convolutions": {type: count}}; a layer of several types counts for each.
    """
    found: dict[str, Counter[str]] = {"layers": Counter(), "convolutions": Counter()}
    layers = json.loads(information).get("Layers", [])
    for layer in layers:
        if not isinstance(layer, Mapping):  # only a name: the engine was built without detail
            continue
        ends = [*layer.get("Inputs", []), *layer.get("Outputs", [])]
        types = {t for t in (_type_of(str(end.get("Format/Datatype", ""))) for end in ends) if t}
        found["layers"].update(types)
        if "conv" in f"{layer.get('LayerType', '')} {layer.get('Name', '')}".lower():
            found["convolutions"].update(types)
    return {kind: dict(sorted(counter.items())) for kind, counter in found.items()}


def _type_of(text: str) -> str:
    return next((kind for words, kind in _TYPE_WORDS if words.search(text)), "")


def check_types(plan: Plan, types: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse an engine whose convolutions run in another precision than the graph's.

    Raises InputError; also if the inspector names no types.
    """
    wanted = _EXPECTED[plan.precision]
    counted = types["convolutions"] or types["layers"]
    if not counted:
        raise InputError(
            f"{plan.out}: TensorRT names no layer's type, so that its precision is unknown; build it with "
            f"detailed profiling verbosity (`ufuser build` and its --script do)"
        )
    described = ", ".join(f"{count} in {kind}" for kind, count in counted.items())
    most = max(counted, key=lambda kind: counted[kind])
    # In int8 many convolutions may stay in float for quality; in fp16 none does.
    fits = counted.get(wanted, 0) > 0 if plan.precision == "int8" else most == wanted
    if not fits:
        raise InputError(
            f"{plan.out}: convolutions are {described}, expected {wanted} for a graph in {plan.precision}; does "
            f"{plan.onnx} have the precision in its metadata?"
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
    """Write both files; the manifest holds the engine's hash, so that files of two builds are not mixed up."""
    manifest = _manifest(plan, content, here, types)
    write_bytes(plan.out, content)
    try:
        write_bytes(manifest_path(plan.out), manifest.as_json().encode())
    except BaseException:
        with suppress(OSError):
            Path(plan.out).unlink()
        raise
    return manifest
