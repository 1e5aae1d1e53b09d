"""From ONNX to an engine: backends and building. Imports no torch."""
