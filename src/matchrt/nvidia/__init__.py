"""What building and running on NVIDIA GPUs share: CUDA, the GPU at hand, and the TensorRT modules."""
