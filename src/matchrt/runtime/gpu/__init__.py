"""Sessions on NVIDIA GPUs: memory, streams, graphs, and the TensorRT session on top of them."""
