"""How to install what is missing, by the machine.

On a Jetson, OpenCV and TensorRT are JetPack's, compiled for NumPy 1: an extra with a wheel of OpenCV, or NumPy 2,
would break what works.
"""

from __future__ import annotations

from ufuser.runtime.board import Jetson

_EXTRAS = {
    "numpy": "cpu",
    "cv2": "cpu",
    "onnxruntime": "cpu",
    "onnxruntime-gpu": "gpu",
    "openvino": "openvino",
    "prometheus_client": "metrics",
    "av": "cpu",
    "scipy": "calibrate",
    "tensorrt": "tensorrt",
    "pycuda": "tensorrt",
    "polygraphy": "tensorrt",
    "torch": "train",
    "onnx": "export",
    "onnxscript": "export",
    "matplotlib": "train",
}
"""The extra that brings a package."""
NUMPY_1 = 'pip install "numpy<2"'
_ON_A_JETSON = {
    "numpy": "sudo apt install python3-numpy",
    "cv2": "sudo apt install python3-opencv, in a virtual environment made with --system-site-packages",
    "onnxruntime": 'pip install onnxruntime "numpy<2"',
    "onnxruntime-gpu": "use the engine tensorrt, or install onnxruntime-gpu from NVIDIA's index for this JetPack",
    "openvino": 'pip install openvino "numpy<2"',
    "prometheus_client": "pip install prometheus_client",
    "av": "pip install av",
    "scipy": "sudo apt install python3-scipy",
    "tensorrt": "sudo apt install python3-libnvinfer",
    "pycuda": "sudo apt install build-essential python3-dev nvidia-jetpack && CUDA_ROOT=/usr/local/cuda "
    'PATH=$PATH:/usr/local/cuda/bin pip install pycuda "numpy<2"',
    "polygraphy": 'pip install "polygraphy>=0.53.4" onnx "numpy<2"',
    "torch": "train and export on another machine: a Jetson needs the .onnx file only",
    "onnx": 'pip install onnx "numpy<2"',
    "onnxscript": "export on another machine: a Jetson needs the .onnx file only",
    "matplotlib": "sudo apt install python3-matplotlib",
}
_ELSEWHERE = {
    "cv2": 'pip install "ufuser[cpu]" (on a server without a desktop: sudo apt install libgl1 libglib2.0-0)',
    "onnxruntime-gpu": 'where CUDA is: pip uninstall onnxruntime && pip install "ufuser[gpu]"',
    "pycuda": 'CUDA_ROOT=/usr/local/cuda PATH=$PATH:/usr/local/cuda/bin pip install "ufuser[tensorrt]"',
}


def how_to_install(package: str, jetson: bool | None = None) -> str:
    """The command that installs a package that the toolkit uses.

    Args:
        package: name of its module; `onnxruntime-gpu` for ONNX Runtime with CUDA.
        jetson: the machine is a Jetson; None finds out.
    """
    if Jetson.find() is not None if jetson is None else jetson:
        return _ON_A_JETSON[package]
    return _ELSEWHERE.get(package) or f'pip install "ufuser[{_EXTRAS[package]}]"'


def how_to_install_extra(extra: str, jetson: bool | None = None) -> str:
    """The command that installs an extra; "" on a Jetson, where doctor names the packages one by one."""
    if Jetson.find() is not None if jetson is None else jetson:
        return ""
    return f'pip install "ufuser[{extra}]"'
