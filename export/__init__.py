"""Export: exact rewrites of a trained network, and the ONNX file the runtime reads."""
