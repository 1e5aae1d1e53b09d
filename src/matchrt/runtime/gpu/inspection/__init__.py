"""Looking into TensorRT engines: layers, precisions, profiles, memory."""
