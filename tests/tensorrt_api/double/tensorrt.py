"""A test double of `tensorrt`: the engine API over ONNX Runtime, the builder API as far as Polygraphy drives it.

An engine is the ONNX file behind a header with profiles and flags. What TensorRT refuses is refused here too:
shapes outside the profile, addresses that are no device memory, a profile that another context uses, execution
before all is set. Only names that the vendor's bindings have are public; a test holds them against those of every
supported version.
"""

from __future__ import annotations

import enum
import json
from typing import Any

import numpy as np
from pycuda.driver import _state as _cuda

__version__ = "10.3.0"

_MAGIC = b"ENGINE DOUBLE\n"


def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
    return True


class _Settings:
    """What a test may set."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.fail: dict[str, int] = {}  # method → how many calls from now succeed before one fails
        self.build_error = ""  # what the builder reports instead of building
        self.layer_type = ""  # what the inspector says instead of the truth
        self.built_with: dict[str, Any] = {}

    def fails(self, method: str) -> bool:
        if method not in self.fail:
            return False
        self.fail[method] -= 1
        if self.fail[method] >= 0:
            return False
        del self.fail[method]
        return True


_settings = _Settings()


class _Enum(enum.Enum):
    def __int__(self) -> int:
        return int(self.value)


class DataType(_Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2


class ErrorCodeTRT(_Enum):
    SUCCESS = 0
    UNSPECIFIED_ERROR = 1


class MemoryPoolType(_Enum):
    WORKSPACE = 0


class ProfilingVerbosity(_Enum):
    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class HardwareCompatibilityLevel(_Enum):
    NONE = 0
    AMPERE_PLUS = 1


class LayerInformationFormat(_Enum):
    ONELINE = 0
    JSON = 1


class DeviceType(_Enum):
    GPU = 0
    DLA = 1


class EngineCapability(_Enum):
    STANDARD = 0


class BuilderFlag(_Enum):
    REFIT = 0
    TF32 = 1
    VERSION_COMPATIBLE = 2


class TacticSource(_Enum):
    EDGE_MASK_CONVOLUTIONS = 0


class PreviewFeature(_Enum):
    PROFILE_SHARING_0806 = 0


class QuantizationFlag(_Enum):
    CALIBRATE_BEFORE_FUSION = 0


class NetworkDefinitionCreationFlag(_Enum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class OnnxParserFlag(_Enum):
    NATIVE_INSTANCENORM = 0


class ILogger:
    class Severity(_Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING
    INFO, VERBOSE = Severity.INFO, Severity.VERBOSE

    def __init__(self) -> None:
        pass

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class Logger(ILogger):
    def log(self, severity: Any, msg: str) -> None:
        print(msg)


class IErrorRecorder:
    def __init__(self) -> None:
        pass


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: Any) -> str:
        header = self._engine._header
        kind = _settings.layer_type or header["layer_type"]
        if self.execution_context is None or set(self.execution_context._shapes) != {"ir", "vi"}:
            kind = "N/A due to dynamic shapes"
        if header["verbosity"] != "DETAILED":
            return json.dumps({"Layers": ["conv"], "Bindings": ["ir", "vi", "fused"]})
        ends = [{"Name": "x", "Format/Datatype": kind}]
        layers = [
            {"Name": "conv_1", "LayerType": "CaskConvolution", "Inputs": ends, "Outputs": ends},
            {
                "Name": "norm",
                "LayerType": "kgen",
                "Inputs": [{"Name": "x", "Format/Datatype": "Float"}],
                "Outputs": [],
            },
        ]
        return json.dumps({"Layers": layers, "Bindings": ["ir", "vi", "fused"]})


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile: int | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._stream = 0
        if 0 not in engine._profiles_in_use:
            self._take(0)

    def _take(self, index: int) -> None:
        if self._profile is not None:
            self._engine._profiles_in_use.discard(self._profile)
        self._engine._profiles_in_use.add(index)
        self._profile = index

    def __del__(self) -> None:
        if self._profile is not None:
            self._engine._profiles_in_use.discard(self._profile)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        _cuda.require_context(f"set_optimization_profile_async {profile_index}")
        taken = profile_index != self._profile and profile_index in self._engine._profiles_in_use
        known = 0 <= profile_index < self._engine.num_optimization_profiles
        if _settings.fails("set_optimization_profile_async") or not known or taken:
            return self._engine._refuse(f"optimization profile {profile_index} is unknown or in use")
        self._take(profile_index)
        self._shapes.clear()  # as TensorRT does
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        _cuda.journal.append(f"set_input_shape {name}")
        if self._profile is None:
            return self._engine._refuse("no optimization profile is set")
        low, _, high = self._engine._header["profiles"][self._profile][name]
        fits = len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        if _settings.fails("set_input_shape") or not fits:
            return self._engine._refuse(f"{name}: {tuple(shape)} is outside of the optimization profile")
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        _cuda.journal.append(f"set_tensor_address {name}")
        if _settings.fails("set_tensor_address") or memory not in _cuda.memory:
            return self._engine._refuse(f"{name}: {memory} is no device memory")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        _cuda.require_context("execute_async_v3")
        if _settings.fails("execute_async_v3"):
            return self._engine._refuse("the enqueue failed")
        if set(self._shapes) != {"ir", "vi"} or set(self._addresses) != {"ir", "vi", "fused"}:
            return self._engine._refuse("not every shape and address is set")
        if self._stream not in (0, stream_handle):
            raise AssertionError("one context on two streams")
        self._stream = stream_handle
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        memory = {name: _cuda.memory[address] for name, address in addresses.items()}

        def job() -> None:
            size = int(np.prod(shapes["ir"]))
            feeds = {name: memory[name][:size].reshape(shapes[name]) for name in shapes}
            (fused,) = self._engine._session.run(["fused"], feeds)
            memory["fused"][:size] = fused.ravel()
            _cuda.clock += 2.0

        _cuda.streams[stream_handle]._work.append(job)
        return True


class ICudaEngine:
    def __init__(self, header: dict[str, Any], model: bytes, logger: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._header, self._logger = header, logger
        self._names = [e.name for e in (*self._session.get_inputs(), *self._session.get_outputs())]
        self._profiles_in_use: set[int] = set()

    def _refuse(self, message: str) -> bool:
        self._logger.log(ILogger.ERROR, message)
        return False

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._header["profiles"])

    @property
    def device_memory_size_v2(self) -> int:
        return 64 << 20

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 1, -1, -1)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._header["profiles"][profile_index][name]]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def create_execution_context(self) -> IExecutionContext | None:
        _cuda.require_context("create_execution_context")
        if _settings.fails("create_execution_context"):
            self._refuse("out of memory")
            return None
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


class Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        _cuda.require_context("deserialize_cuda_engine")
        if not serialized_engine.startswith(_MAGIC) or _settings.fails("deserialize_cuda_engine"):
            self._logger.log(ILogger.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed")
            return None
        line, _, model = serialized_engine[len(_MAGIC) :].partition(b"\n")
        return ICudaEngine(json.loads(line), model, self._logger)


class IHostMemory:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def __bytes__(self) -> bytes:
        return self._content

    def __enter__(self) -> bytes:
        return self._content

    def __exit__(self, *error: object) -> None:
        pass


class ITimingCache:
    def __init__(self, entries: bytes) -> None:
        self._entries = entries

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._entries += input_cache._entries
        return True

    def serialize(self) -> IHostMemory:
        return IHostMemory(b"timings" + self._entries)


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = [tuple(shape) for shape in (min, opt, max)]

    def get_shape(self, input: str) -> list[tuple[int, ...]]:
        return self._shapes.get(input, [])

    def __bool__(self) -> bool:
        return bool(self._shapes)


class IBuilderConfig:
    def __init__(self) -> None:
        self._profiles: list[IOptimizationProfile] = []
        self._flags: set[Any] = set()
        self._limits: dict[Any, int] = {}
        self._cache: ITimingCache | None = None
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.engine_capability = EngineCapability.STANDARD
        self.DLA_core, self.default_device_type = -1, DeviceType.GPU

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._limits.get(pool, 0)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache

    def get_tactic_sources(self) -> int:
        return 1

    def get_preview_feature(self, feature: Any) -> bool:
        return False

    def get_quantization_flag(self, flag: Any) -> bool:
        return False


class ITensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape, self.dtype = name, shape, DataType.FLOAT
        self.is_shape_tensor = False


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._model = b""
        self._inputs: list[ITensor] = []
        self.name = "network"

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    @property
    def num_layers(self) -> int:
        return 0

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Any:
        raise IndexError(index)

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags >> int(flag) & 1)


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        self._network = network
        self.num_errors = 0

    def set_flag(self, flag: Any) -> None:
        pass

    def clear_flag(self, flag: Any) -> None:
        pass

    def parse_from_file(self, model: str) -> bool:
        with open(model, "rb") as file:
            self._network._model = file.read()
        self._network._inputs = [ITensor(name, (-1, 1, -1, -1)) for name in ("ir", "vi")]
        return True


class Builder:
    def __init__(self, logger: Any) -> None:
        _cuda.require_context("Builder")
        self._logger = logger
        self.error_recorder: Any = None

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        if _settings.build_error:
            self.error_recorder.report_error(ErrorCodeTRT.UNSPECIFIED_ERROR, _settings.build_error)
            return None
        half = b"fp16" in network._model
        int8 = b"QuantizeLinear" in network._model
        header = {
            "profiles": [profile._shapes for profile in config._profiles],
            "verbosity": config.profiling_verbosity.name,
            "layer_type": "Int8" if int8 else "Half" if half else "Float",
        }
        _settings.built_with = {
            "strongly_typed": network.get_flag(NetworkDefinitionCreationFlag.STRONGLY_TYPED),
            "flags": {flag.name for flag in config._flags},
            "workspace": config.get_memory_pool_limit(MemoryPoolType.WORKSPACE),
            "optimization_level": config.builder_optimization_level,
            "hardware": config.hardware_compatibility_level.name,
            "cached": config._cache._entries if config._cache else b"",
        }
        return IHostMemory(_MAGIC + json.dumps(header).encode() + b"\n" + network._model)
