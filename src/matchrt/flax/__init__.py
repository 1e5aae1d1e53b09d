"""LoFTR in Flax: weights from torch's layout and back, proof against torch, a session for backend `jax`."""
