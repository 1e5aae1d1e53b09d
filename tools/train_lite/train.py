"""Trains eloftr-lite or loftr-lite. Every step's pairs depend on the seed and the step alone; a run can be resumed.

The length is a time (`--minutes`) or a number of steps (`--steps`); the schedule follows the share that has passed.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from matchrt.models.loftr.network import LoFTR
from tools.train_lite import eloftr_step, step
from tools.train_lite.graphs import GraphedStep
from tools.train_lite.losses import sample_positives
from tools.train_lite.networks import NAMES, Network
from tools.train_lite.pairs import Pairs, Recipe, Shape, compile_pairs, make_pairs
from tools.train_lite.progress import Clock, Log
from tools.train_lite.run import Run, new_run, save, update_average
from tools.train_lite.schedule import COMPILED, RECIPES, learning_rate, stage_at
from tools.train_lite.tiles import Pool, load_pool
from tools.train_lite.validate import validate

FINE_SAMPLES = 128


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", choices=NAMES, default="eloftr-lite")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="full")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--until", type=float, default=1.0, help="the share of the schedule at which this part ends")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=float, default=0.03)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--drawn", type=int, default=240)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--graphs", action="store_true", help="one CUDA graph a step for the frequent shapes")
    parser.add_argument("--validate-every", type=float, default=120.0, help="seconds")
    parser.add_argument("--validation-batches", type=int, default=6)
    parser.add_argument("--resume", type=Path, help="FOLDER/NAME of an interrupted run: everything goes on")
    parser.add_argument("--start", type=Path, help="NAME-average.pt whose weights start a new run")
    return parser.parse_args()


def losses(
    net: Network, pairs: Pairs, positives: tuple[Tensor, Tensor], generator: torch.Generator, amp: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, coarse and fine loss of the network's own kind; positives from `sample_positives`."""
    if isinstance(net, LoFTR):
        return step.losses(net, pairs, *positives, amp)
    return eloftr_step.losses(net, pairs, positives, generator, amp)


def compile_parts(net: Network) -> None:
    """Compiles what the network's own kind has to compile."""
    if isinstance(net, LoFTR):
        step.compile_parts(net)
    else:
        eloftr_step.compile_parts(net)


def share_gradients(net: Network) -> None:
    """Means of the gradients over all ranks."""
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])


def backward(run: Run, pool: Pool, generator: torch.Generator, job: tuple[Shape, Recipe]) -> Tensor:
    """Makes a batch of pairs and the gradients; returns the coarse and the fine loss."""
    shape, recipe = job
    pairs = make_pairs(pool, generator, shape, recipe)
    positives = sample_positives(pairs.truth, min(FINE_SAMPLES, pairs.truth.positive.shape[1]), generator)
    total, coarse, fine = losses(run.net, pairs, positives, generator, pool.table.is_cuda)
    total.backward()  # type: ignore[no-untyped-call]
    return torch.stack([coarse, fine])


def graphed(run: Run, pool: Pool, generator: torch.Generator, job: tuple[Shape, Recipe]) -> GraphedStep:
    """`backward` of this job as a graph, which is recorded if there is none; that draws from the generator."""
    if job not in run.graphs:
        for old in [key for key in run.graphs if key[0] == job[0]]:
            del run.graphs[old]  # the recipe changed
        run.graphs[job] = GraphedStep(lambda: backward(run, pool, generator, job), run.net, generator)
    return run.graphs[job]


def advance(run: Run, pool: Pool, generator: torch.Generator, progress: float, arguments: argparse.Namespace) -> Tensor:
    """One step; returns the coarse and the fine loss."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    dice = random.Random(arguments.seed * 1_000_003 + run.step)
    stage = stage_at(RECIPES[arguments.recipe], progress)
    shape = dice.choices(stage.shapes, stage.weights)[0]
    frequent = shape in COMPILED
    if dice.random() < 0.5:
        shape = replace(shape, size0=shape.size1, size1=shape.size0)
    seed = (arguments.seed * 10_000_019 + run.step) * 8 + rank
    job = shape, stage.recipe
    run.optimiser.zero_grad(set_to_none=True)
    with torch.compiler.set_stance("default" if frequent else "force_eager"):
        recorded = graphed(run, pool, generator, job) if frequent and arguments.graphs else None
        generator.manual_seed(seed)
        found = recorded() if recorded is not None else backward(run, pool, generator, job)
    share_gradients(run.net)
    norm = torch.nn.utils.clip_grad_norm_(run.net.parameters(), 1.0)
    rate = learning_rate(progress, arguments.lr, arguments.warmup)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    if pool.table.is_cuda:
        # The fused optimiser leaves the weights alone where this is 1: one bad batch must not end the run.
        run.optimiser.grad_scale, run.optimiser.found_inf = None, (~norm.isfinite()).float()  # type: ignore[attr-defined]
    run.optimiser.step()
    update_average(run, arguments.ema)
    run.step += 1
    run.pairs += shape.batch * (dist.get_world_size() if dist.is_initialized() else 1)
    return found


def set_up() -> torch.device:
    """This process's device; joins the other processes, if there are any, and allows the faster matrix units."""
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return device


def train(arguments: argparse.Namespace) -> None:
    """The loop. Under several processes (RANK, WORLD_SIZE set) each makes its own pairs and gradients are averaged."""
    began = time.monotonic()
    device = set_up()
    main = not dist.is_initialized() or dist.get_rank() == 0
    amp = device.type == "cuda"
    arguments.out.mkdir(parents=True, exist_ok=True)
    pool = load_pool(arguments.pack, "train", arguments.tile, arguments.drawn, arguments.workers, device)
    held_out = load_pool(arguments.pack, "validation", arguments.tile, 12, 4, device)
    run = new_run(arguments, device)
    print(f"tiles {pool.count}, held out {held_out.count}, ready {time.monotonic() - began:.1f} s", flush=True)
    if arguments.compile:
        compile_parts(run.net)
        compile_pairs()
    check = Shape(16, (480, 640), (480, 640)) if amp else Shape(2, (96, 128), (96, 128))
    generator = torch.Generator(device)
    log = Log(arguments.out / "log.csv", main)
    clock = Clock(arguments, run.progress, device)
    earlier = run.seconds
    last_check = time.monotonic()
    recent: list[Tensor] = []

    def checked(batches: int) -> dict[str, object]:
        with torch.compiler.set_stance("force_eager"):
            found = validate(run.average, held_out, check, Recipe(), batches, amp)
        return {key: round(value, 4) for key, value in found.row().items()}

    while (progress := clock.progress(run.step)) < arguments.until:
        run.net.train()
        recent.append(advance(run, pool, generator, progress, arguments))
        if clock.first is None:
            recent[-1].tolist()
            clock.start()
        run.seconds, run.progress = earlier + time.monotonic() - began, progress
        due = main and time.monotonic() - last_check > arguments.validate_every
        if run.step % 50 == 0 or due:
            mean = torch.stack(recent).mean(dim=0).tolist()
            recent.clear()
            row: dict[str, object] = {"step": run.step, "seconds": round(run.seconds, 1), "pairs": run.pairs}
            row |= {"progress": round(progress, 4), "lr": f"{run.optimiser.param_groups[0]['lr']:.2e}"}
            row |= {"coarse": round(mean[0], 5), "fine": round(mean[1], 5)}
            if due:
                row |= checked(arguments.validation_batches)
                save(run, arguments.out, "last", arguments.seed)
                last_check = time.monotonic()
            log.row(row)
    if main:
        run.progress = arguments.until
        save(run, arguments.out, "final", arguments.seed)
        row = {"step": run.step, "seconds": round(run.seconds, 1), "progress": arguments.until, "pairs": run.pairs}
        log.row(row | checked(2 * arguments.validation_batches))
        print("done", flush=True)


if __name__ == "__main__":
    train(parse())
