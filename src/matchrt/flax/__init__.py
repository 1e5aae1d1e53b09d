"""LoFTR in Flax: weights to Flax's layout and back, a proof against torch, and a session for backend `jax`."""
