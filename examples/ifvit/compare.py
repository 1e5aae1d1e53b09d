"""LoFTR-initialised against random at equal steps: trains both on the same pairs, and plots the validation loss.

    python -m examples.ifvit.compare --config examples/ifvit/configs/small.json --output results

    python -m examples.ifvit.compare --plot results/curves.json

Writes `curves.json`, and `curves.png` where matplotlib is installed; `--plot` draws it from the JSON elsewhere. Run
from the repository's root; needs `pip install '.[flax,plots]' optax`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from examples.ifvit.config import Config, read_config, run
from examples.ifvit.train import Point, train

LOFTR, RANDOM = "LoFTR", "random"


def compare(config: Config, seeds: Sequence[int], weights: str, output: Path) -> dict[str, Any]:
    """Trains each seed from `weights` and from random values, and writes the curves into `output`."""
    output.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[list[Point]]] = {LOFTR: [], RANDOM: []}
    for seed in seeds:
        for name, source in ((RANDOM, None), (LOFTR, weights)):
            chosen = replace(config, seed=seed, loftr_pretrained_ckpt=source)
            print(f"{name}, seed {seed}", flush=True)
            curves[name].append(train(chosen, tell=_tell, report=print))
            _write(config, seeds, weights, curves, output)  # what is done stays, if the rest is cut off
    document = _write(config, seeds, weights, curves, output)
    if importlib.util.find_spec("matplotlib") is None:
        print("matplotlib is not installed: no curves.png; draw it elsewhere with --plot curves.json", flush=True)
    else:
        plot(document, output / "curves.png")
    return document


def _tell(point: Point) -> None:
    print(f"  step {point.step:6d}  loss {point.loss:.4f}  {point.pixels:.2f} px  {point.seconds:.0f} s", flush=True)


def steps_to_reach(curve: Sequence[Point], loss: float) -> int | None:
    """The first evaluated step whose loss is as low; None: none is."""
    return next((point.step for point in curve if point.loss <= loss), None)


def _write(
    config: Config, seeds: Sequence[int], weights: str, curves: dict[str, list[list[Point]]], output: Path
) -> dict[str, Any]:
    runs = []
    for seed, loftr, random in zip(seeds, curves[LOFTR], curves[RANDOM], strict=False):
        reached = steps_to_reach(loftr, random[-1].loss)
        runs.append(
            {
                "seed": seed,
                "final_loss": {LOFTR: loftr[-1].loss, RANDOM: random[-1].loss},
                "final_pixels": {LOFTR: loftr[-1].pixels, RANDOM: random[-1].pixels},
                "loftr_reaches_random_final_at": reached,
                "share_of_steps": None if reached is None else reached / config.steps,
            }
        )
    document = {
        "config": asdict(config),
        "weights": weights,
        "device": str(jax.devices()[0].device_kind),
        "jax": jax.__version__,
        "runs": runs,
        "curves": {name: [[asdict(point) for point in run] for run in every] for name, every in curves.items()},
    }
    (output / "curves.json").write_text(json.dumps(document, indent=1) + "\n")
    return document


def plot(document: dict[str, Any], path: Path) -> None:
    """Validation loss and distance over steps; one thin line a seed, the mean thick."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for axis, field, label in ((axes[0], "loss", "validation loss"), (axes[1], "pixels", "mean distance, px")):
        for (name, every), colour in zip(document["curves"].items(), ("tab:blue", "tab:orange"), strict=True):
            steps = [point["step"] for point in every[0]]
            values = np.array([[point[field] for point in run] for run in every])
            for row in values:
                axis.plot(steps, row, color=colour, linewidth=0.7, alpha=0.6)
            axis.plot(steps, values.mean(axis=0), color=colour, linewidth=2, label=f"{name} ({len(every)} runs)")
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main() -> None:
    """Reads the arguments, trains, prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path)
    what.add_argument("--plot", type=Path, metavar="JSON", help="draw the curves of an earlier run beside its JSON")
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--weights", default="loftr-lite", help="bundled model, or a file of `matchrt convert-flax`")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, help="instead of the config's")
    arguments = parser.parse_args()
    if arguments.plot is not None:
        plot(json.loads(arguments.plot.read_text(encoding="utf-8")), arguments.plot.with_suffix(".png"))
        return
    config = read_config(arguments.config)
    if arguments.steps is not None:
        config = replace(config, steps=arguments.steps)
    document = compare(config, range(arguments.seeds), arguments.weights, arguments.output)
    print(json.dumps(document["runs"], indent=1))


if __name__ == "__main__":
    run(main)
