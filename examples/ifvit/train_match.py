"""Trains module 2, verification, on the network that module 1 trained.

    python -m examples.ifvit.train_match --module1 run --checkpoint_dir run2
    python -m examples.ifvit.train_match --module1 run --dataset_root prints --steps 500 --checkpoint_dir run2

Run from the repository's root; needs `pip install '.[flax]' optax`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from examples.ifvit.config import Config, run
from examples.ifvit.dataset import OwnPrints, Source, Synthetic
from examples.ifvit.evaluate import Verification, verify
from examples.ifvit.fingerprints import Pairs
from examples.ifvit.matcher import Verifier, inherit
from examples.ifvit.model import dense_loss
from examples.ifvit.train import make_optimizer, require_free, save_checkpoint


@nnx.jit(static_argnames=("size", "lambda_d"))
def train_step(verifier: Verifier, optimizer: Any, pairs: Pairs, size: int, lambda_d: float) -> jax.Array:
    """One step on genuine pairs and on as many impostors: each print 0 with the next pair's print 1. Gives the loss."""
    other = jnp.roll(pairs.finger, 1)
    labels = jnp.concatenate([jnp.ones(len(other)), (pairs.finger == other).astype(jnp.float32)])
    image0 = jnp.concatenate([pairs.image0, pairs.image0])
    image1 = jnp.concatenate([pairs.image1, jnp.roll(pairs.image1, 1, axis=0)])

    def loss_of(verifier: Verifier) -> jax.Array:
        odds, scores = verifier(image0, image1)
        dense, _ = dense_loss(scores[: len(other)], pairs.target, pairs.valid, size)
        return optax.sigmoid_binary_cross_entropy(odds, labels).mean() + lambda_d * dense

    loss, gradients = nnx.value_and_grad(loss_of)(verifier)
    optimizer.update(verifier, gradients)
    return loss


def train(
    verifier: Verifier,
    config: Config,
    source: Source,
    checkpoint_dir: Path | None = None,
    tell: Callable[[int, Verification], None] = lambda step, found: None,
) -> list[Verification]:
    """Trains, and gives the evaluations on fingers that are never trained on; `tell` hears each with its step."""
    require_free(checkpoint_dir)
    verifier.train()
    optimizer = nnx.Optimizer(verifier, make_optimizer(config), wrt=nnx.Param)
    found = []
    for step in range(config.steps + 1):
        if step % config.validate_every == 0 or step == config.steps:
            found.append(verify(verifier, config, source))
            tell(step, found[-1])
        if step < config.steps:
            pairs = source.genuine(jax.random.fold_in(jax.random.key(config.seed + 1), step), config.batch_size)
            train_step(verifier, optimizer, pairs, config.image_size, config.lambda_d)
    if checkpoint_dir is not None:
        save_checkpoint(checkpoint_dir, verifier, optimizer, config.steps)
        (checkpoint_dir / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
    return found


def main() -> None:
    """Reads the arguments, trains, prints the evaluations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module1", type=Path, required=True, help="checkpoint_dir of examples.ifvit.train")
    parser.add_argument("--checkpoint_dir", type=Path)
    parser.add_argument("--dataset_root", type=Path, help="folder of your own prints, one folder a finger (README.md)")
    parser.add_argument("--steps", type=int, help="instead of module 1's")
    arguments = parser.parse_args()
    verifier, config, report = inherit(arguments.module1)
    print(report.summary())
    if arguments.steps is not None:
        config = replace(config, steps=arguments.steps)
    root = arguments.dataset_root
    source: Source = Synthetic(config.image_size) if root is None else OwnPrints.read(root, config.image_size)

    def tell(step: int, found: Verification) -> None:
        print(f"step {step:6d}  {found.summary()}", flush=True)

    train(verifier, config, source, arguments.checkpoint_dir, tell)


if __name__ == "__main__":
    run(main)
