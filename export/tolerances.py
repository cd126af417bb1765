"""Precisions of an exported graph and the limits that exports are checked against."""

from __future__ import annotations

PRECISIONS = ("fp32", "fp16", "int8")
LARGEST_ERROR = 1e-4
"""Absolute difference from PyTorch that a float32 graph may have; levels are in [0, 1]."""
PSNR_FLOOR = {"fp16": 60.0, "int8": 38.0}
"""Decibels against float32, peak 1, that a file of this precision must reach before it is written."""
OPSETS = (18, 20)
"""First and last ONNX opset: PyTorch's exporter starts at 18; TensorRT 10.3 and static quantization end at 20."""
INT8_TARGETS = ("cpu", "tensorrt")
LEAST_CROPS, CROPS = 32, 48
"""Crops of real pictures to calibrate int8 with: at least, and by default."""
PARITY_SHAPES = ((1, 64, 64), (2, 72, 104), (1, 240, 320))
"""Batch, height and width of the synthetic pictures that every export is checked with."""
