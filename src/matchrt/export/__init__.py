"""From a checkpoint to ONNX: reading, key maps, accounting, torch to ONNX, graph passes. Needs the extra `export`."""
