"""The state of a training run: weights, their moving average, the optimiser; how it starts, is saved and goes on."""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tools.train_lite.networks import Network, new_network


@dataclass
class Run:
    """What changes during training."""

    net: Network
    average: Network
    optimiser: torch.optim.Optimizer
    step: int = 0
    pairs: int = 0
    seconds: float = 0.0
    progress: float = 0.0


def new_run(arguments: argparse.Namespace, device: torch.device) -> Run:
    """A run from scratch, from given weights, or from where another stopped."""
    torch.manual_seed(arguments.seed)
    net = new_network(arguments.network).to(device)
    if arguments.start:
        net.load_state_dict(torch.load(arguments.start, map_location=device, weights_only=True)["state"])
    if device.type == "cuda":
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in net.parameters() if p.dim() > 1]
    plain = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": arguments.decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=arguments.lr, fused=device.type == "cuda")
    run = Run(net, copy.deepcopy(net).requires_grad_(False), optimiser)
    if arguments.resume:
        load(run, arguments.resume, device)
    return run


def save(run: Run, out: Path, name: str, seed: int) -> None:
    """Four files of about 9 MiB: weights, their average, and the optimiser's two moments."""
    facts: dict[str, Any] = {"step": run.step, "pairs": run.pairs, "seconds": run.seconds, "seed": seed}
    facts["progress"] = run.progress
    torch.save(facts | {"state": run.net.state_dict()}, out / f"{name}-net.pt")
    torch.save(facts | {"state": run.average.state_dict()}, out / f"{name}-average.pt")
    optimiser = run.optimiser.state_dict()
    groups, state = optimiser["param_groups"], optimiser["state"]
    first = {
        index: {key: value for key, value in entry.items() if key != "exp_avg_sq"} for index, entry in state.items()
    }
    second = {index: entry["exp_avg_sq"] for index, entry in state.items()}
    torch.save({"param_groups": groups, "state": first}, out / f"{name}-moment1.pt")
    torch.save({"exp_avg_sq": second}, out / f"{name}-moment2.pt")


def load(run: Run, prefix: Path, device: torch.device) -> None:
    """Puts a run back to where `save` left it; prefix is FOLDER/NAME."""

    def part(kind: str) -> Any:
        return torch.load(f"{prefix}-{kind}.pt", map_location=device, weights_only=True)

    net, average, optimiser, second = part("net"), part("average"), part("moment1"), part("moment2")["exp_avg_sq"]
    run.net.load_state_dict(net["state"])
    run.average.load_state_dict(average["state"])
    for index, entry in optimiser["state"].items():
        entry["exp_avg_sq"] = second[index]
    run.optimiser.load_state_dict(optimiser)
    run.step, run.pairs, run.seconds, run.progress = net["step"], net["pairs"], net["seconds"], net["progress"]


@torch.no_grad()
def update_average(run: Run, decay: float) -> None:
    """Exponential moving average of weights and batch-norm statistics."""
    rate = min(decay, (1 + run.step) / (10 + run.step))
    source, target = run.net.state_dict(), run.average.state_dict()
    floating = [key for key, value in source.items() if value.is_floating_point()]
    torch._foreach_lerp_([target[key] for key in floating], [source[key] for key in floating], 1 - rate)
    for key in source.keys() - set(floating):
        target[key].copy_(source[key])
