"""Trains module 1, dense registration, on synthetic prints or on your own.

    python -m examples.ifvit.train --config examples/ifvit/configs/small.json --checkpoint_dir run
    python -m examples.ifvit.train --config examples/ifvit/configs/small.json --dataset_root prints --checkpoint_dir run
    python -m examples.ifvit.train --config examples/ifvit/configs/small.json --resume_from run --checkpoint_dir run

Run from the repository's root; needs `pip install '.[flax]' optax`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx

from examples.ifvit.config import Config, read_config, run
from examples.ifvit.dataset import OwnPrints, Source, Synthetic
from examples.ifvit.fingerprints import Pairs
from examples.ifvit.model import DenseRegistration, create_model, dense_loss

# Validation prints come from keys that training never uses.
VALIDATION = 1_000_000_007


@dataclass(frozen=True)
class Point:
    """One evaluation on the validation pairs: loss, mean distance in pixels, and the seconds of training so far."""

    step: int
    loss: float
    pixels: float
    train_loss: float
    seconds: float


def make_optimizer(config: Config) -> Any:
    """AdamW with warm-up and cosine decay."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, max(config.steps, config.warmup_steps + 1), 0.0
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=config.weight_decay))


@nnx.jit(static_argnames=("size",))
def train_step(model: DenseRegistration, optimizer: Any, pairs: Pairs, size: int) -> jax.Array:
    """One step; gives the loss."""

    def loss_of(model: DenseRegistration) -> jax.Array:
        return dense_loss(model(pairs.image0, pairs.image1), pairs.target, pairs.valid, size)[0]

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


@nnx.jit(static_argnames=("size",))
def evaluate_step(model: DenseRegistration, pairs: Pairs, size: int) -> jax.Array:
    """Loss and distance `[2]`; BatchNorm as the model's mode says."""
    return jnp.stack(dense_loss(model(pairs.image0, pairs.image1), pairs.target, pairs.valid, size))


def evaluate(model: DenseRegistration, config: Config, source: Source) -> tuple[float, float]:
    """Loss and distance in pixels on the validation pairs, with BatchNorm's running statistics."""
    judge = nnx.merge(*nnx.split(model))
    judge.eval()
    found = []
    for index in range(config.validation_batches):
        key = jax.random.key(VALIDATION + index)
        pairs = source.registered(key, config.batch_size, validation=True)
        found.append(evaluate_step(judge, pairs, config.image_size))
    loss, pixels = np.mean([np.asarray(value) for value in found], axis=0)
    return float(loss), float(pixels)


def train(
    config: Config,
    checkpoint_dir: Path | None = None,
    resume_from: Path | None = None,
    tell: Callable[[Point], None] = lambda point: None,
    source: Source | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> list[Point]:
    """Trains, and gives the validation curve.

    tell: hears every point of it. source: of the prints; None for synthetic ones. report: hears what was loaded.
    """
    require_free(checkpoint_dir, resume_from)
    source = Synthetic(config.image_size) if source is None else source
    model = create_model(config, report)
    model.train()
    optimizer = nnx.Optimizer(model, make_optimizer(config), wrt=nnx.Param)
    first = 0 if resume_from is None else load_checkpoint(resume_from, model, optimizer)
    curve: list[Point] = []
    begin, recent = time.perf_counter(), []
    for step in range(first, config.steps + 1):
        if step % config.validate_every == 0 or step == config.steps:
            seconds = time.perf_counter() - begin
            loss, pixels = evaluate(model, config, source)
            mean = float(np.mean([float(value) for value in recent])) if recent else loss
            curve.append(Point(step, loss, pixels, mean, round(seconds, 2)))
            tell(curve[-1])
            recent = []
        if step < config.steps:
            # The same pairs at the same step whatever the model starts from.
            key = jax.random.fold_in(jax.random.key(config.seed), step)
            pairs = source.registered(key, config.batch_size)
            recent.append(train_step(model, optimizer, pairs, config.image_size))
    if checkpoint_dir is not None and not (first == config.steps and checkpoint_dir == resume_from):
        save_checkpoint(checkpoint_dir, model, optimizer, config.steps)
        (checkpoint_dir / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
    return curve


def require_free(folder: Path | None, resume_from: Path | None = None) -> None:
    """Raises ValueError, before any work, if checkpoints would go to a folder that holds those of another run."""
    if folder is not None and folder != resume_from and folder.exists() and any(folder.iterdir()):
        raise ValueError(f"'{folder}' is not empty: name another --checkpoint_dir, or go on from it with --resume_from")


def save_checkpoint(folder: Path, model: nnx.Module, optimizer: Any, step: int) -> None:
    """Model, optimiser and step with Orbax, under `folder/STEP`."""
    values = {"model": _pure(model), "optimizer": _pure(optimizer)}
    with ocp.CheckpointManager(folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2)) as manager:
        manager.save(step, args=ocp.args.StandardSave(values), force=True)


def load_checkpoint(folder: Path, model: nnx.Module, optimizer: Any) -> int:
    """Fills model and optimiser from the newest step in `folder`, which it gives."""
    with ocp.CheckpointManager(folder.absolute()) as manager:
        step = manager.latest_step()
        if step is None:
            raise FileNotFoundError(f"'{folder}' holds no checkpoint")
        wanted = {"model": _pure(model), "optimizer": _pure(optimizer)}
        found = manager.restore(step, args=ocp.args.StandardRestore(wanted))
    for module, name in ((model, "model"), (optimizer, "optimizer")):
        state = nnx.state(module)
        nnx.replace_by_pure_dict(state, found[name])
        nnx.update(module, state)
    return int(step)


def _pure(module: Any) -> Any:
    return nnx.to_pure_dict(nnx.state(module))


def main() -> None:
    """Reads the arguments, trains, prints the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--checkpoint_dir", type=Path)
    parser.add_argument("--resume_from", type=Path)
    parser.add_argument("--dataset_root", type=Path, help="folder of your own prints, one folder a finger (README.md)")
    parser.add_argument(
        "--weights", help="instead of the config's loftr_pretrained_ckpt: loftr-lite, or a converted file"
    )
    arguments = parser.parse_args()

    def tell(point: Point) -> None:
        print(f"step {point.step:6d}  loss {point.loss:.4f}  {point.pixels:.2f} px  {point.seconds:.0f} s", flush=True)

    config = read_config(arguments.config)
    if arguments.weights is not None:
        config = replace(config, loftr_pretrained_ckpt=arguments.weights)
    source = None if arguments.dataset_root is None else OwnPrints.read(arguments.dataset_root, config.image_size)
    train(config, arguments.checkpoint_dir, arguments.resume_from, tell, source, print)


if __name__ == "__main__":
    run(main)
