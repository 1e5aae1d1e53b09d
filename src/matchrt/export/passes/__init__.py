"""Graph passes on the exported ONNX: small, ordered, each with what it requires and what it ensures."""
