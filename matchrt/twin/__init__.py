"""LoFTR's JAX twin at work: weights from torch's layout and back, proof against torch, a session of flavour `jax`."""
