"""From ONNX to an engine: flavours and building. Imports no torch."""
