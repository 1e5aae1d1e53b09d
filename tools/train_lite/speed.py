"""Times pair generation and training steps per shape, eager and compiled; run on the machine that will train."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from tools.train_lite.losses import sample_positives
from tools.train_lite.networks import NAMES, new_network
from tools.train_lite.pairs import Recipe, Shape, compile_pairs, make_pairs
from tools.train_lite.tiles import load_pool
from tools.train_lite.train import compile_parts, losses


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--network", choices=NAMES, default="eloftr-lite")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--shape", action="append", default=[], help="BATCHxHEIGHTxWIDTH")
    arguments = parser.parse_args()
    device = torch.device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    begin = time.monotonic()
    pool = load_pool(arguments.pack, "validation", 1024, 12, 14, device)
    print(f"pool {pool.count} in {time.monotonic() - begin:.1f} s", flush=True)
    net = new_network(arguments.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    if arguments.compile:
        compile_parts(net)
        compile_pairs()
    generator = torch.Generator(device)
    for text in arguments.shape:
        batch, height, width = (int(part) for part in text.split("x"))
        shape = Shape(batch, (height, width), (height, width))
        torch.cuda.reset_peak_memory_stats()
        made = spent = 0.0
        for repeat in range(8):
            torch.cuda.synchronize()
            start = time.monotonic()
            pairs = make_pairs(pool, generator, shape, Recipe())
            positives = sample_positives(pairs.truth, 128, generator)
            torch.cuda.synchronize()
            middle = time.monotonic()
            total, _, _ = losses(net, pairs, positives, generator, True)
            optimiser.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            torch.cuda.synchronize()
            end = time.monotonic()
            if repeat == 0:
                print(f"{text}: first {end - start:.1f} s", flush=True)
            if repeat >= 3:
                made, spent = made + middle - start, spent + end - middle
        memory = torch.cuda.max_memory_allocated() / 2**30
        print(
            f"{text} compile={arguments.compile}: pairs {made / 5 * 1e3:.0f} ms, step {spent / 5 * 1e3:.0f} ms, "
            f"{5 * batch / (made + spent):.0f} pairs/s, {memory:.0f} GiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
