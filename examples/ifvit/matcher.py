"""Module 2: whether two prints are of one finger. It inherits module 1 and adds a layer that makes a print a vector."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from examples.ifvit.config import Config, read_config
from examples.ifvit.model import DenseRegistration, unit
from matchrt.flax.weights import MergeReport, merged, shapes_of


class Verifier(nnx.Module):
    """Two prints to the log-odds that they are of one finger, and to the similarity of their cells.

    The verdict weighs two things: the cosine of the prints' vectors, and how certain the cells' matches are on average.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.registration = DenseRegistration(config, rngs=rngs)
        self.embedding = nnx.Linear(config.hidden_dim, config.embedding_dim, rngs=rngs)
        self.weights = nnx.Param(jnp.array([2.0, 10.0, -3.0]))  # of the cosine, of the certainty, and the bias

    def __call__(self, image0: jax.Array, image1: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images `[B,S,S,1]` in 0..1 -> log-odds `[B]`, similarity over temperature `[B,L,L]`."""
        tokens0, tokens1 = self.registration.tokens(image0, image1)
        vector0, vector1 = (unit(self.embedding(tokens.mean(axis=1))) for tokens in (tokens0, tokens1))
        scores = self.registration.similarity(tokens0, tokens1)
        cosine, certain = (vector0 * vector1).sum(axis=1), confidence(scores).max(axis=2).mean(axis=1)
        weights = self.weights[...]
        return weights[0] * cosine + weights[1] * certain + weights[2], scores


def confidence(scores: jax.Array) -> jax.Array:
    """Similarity `[B,L,L]` -> the root of its dual softmax, 0..1."""
    return jnp.exp((nnx.log_softmax(scores, axis=2) + nnx.log_softmax(scores, axis=1)) / 2)


def inherit(folder: Path) -> tuple[Verifier, Config, MergeReport]:
    """A verifier on the network that module 1 left in `folder`: all of its arrays; what is new stays fresh.

    Raises FileNotFoundError if there is no checkpoint, ValueError if it is of another network.
    """
    config = read_config(folder / "config.json")
    verifier = Verifier(config, rngs=nnx.Rngs(config.seed))
    restore(folder, verifier.registration)
    loaded = {f"registration.{name}" for name in shapes_of(verifier.registration)}
    return verifier, config, merged(verifier, loaded, str(folder))


def restore(folder: Path, model: nnx.Module) -> None:
    """Fills a model from the newest step in `folder`; every array must fit. Errors as of `inherit`."""
    with ocp.CheckpointManager(folder.absolute(), item_handlers=ocp.StandardCheckpointHandler()) as manager:
        step = manager.latest_step()
        if step is None:
            raise FileNotFoundError(f"'{folder}' holds no checkpoint")
        found = manager.restore(step)["model"]
    state = nnx.state(model)
    have, want = (_shapes(tree) for tree in (found, nnx.to_pure_dict(state)))
    if have != want:
        odd = sorted(name for name in have.keys() | want.keys() if have.get(name) != want.get(name))
        raise ValueError(f"'{folder}' holds another network: {len(odd)} arrays differ, such as {odd[0]}")
    nnx.replace_by_pure_dict(state, found)
    nnx.update(model, state)


def _shapes(tree: object) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(str(getattr(part, "key", part)) for part in path): np.shape(leaf) for path, leaf in leaves}
