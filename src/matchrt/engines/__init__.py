"""The backends and their builders, which make engines from ONNX graphs. Imports no torch."""
