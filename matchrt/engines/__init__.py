"""From ONNX to an engine: flavours, building, the store, inspection. Imports no torch."""
