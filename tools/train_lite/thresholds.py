"""Precision and recall on held-out tiles for several confidence thresholds: how the default is chosen."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tools.train_lite.evaluate import load_network
from tools.train_lite.pairs import Recipe, Shape, make_pairs
from tools.train_lite.tiles import load_pool
from tools.train_lite.validate import score_pairs


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--threshold", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.5])
    arguments = parser.parse_args()
    device = torch.device("cpu")
    pool = load_pool(arguments.pack, "validation", 1024, 12, 2, device)
    net = load_network(arguments.weights)
    generator = torch.Generator(device).manual_seed(424_242)
    totals = {threshold: [0.0] * 5 for threshold in arguments.threshold}
    shape = Shape(4, (480, 640), (480, 640))
    for _ in range(arguments.pairs // shape.batch):
        pairs = make_pairs(pool, generator, shape, Recipe())
        for threshold, total in totals.items():
            sums = score_pairs(net, pairs, threshold, amp=False)
            totals[threshold] = [a + b for a, b in zip(total, sums, strict=True)]
    for threshold, (right3, right1, matches, findable, pairs_seen) in totals.items():
        print(
            f"threshold {threshold}: precision@3 {right3 / max(matches, 1):.4f}, @1 {right1 / max(matches, 1):.4f}, "
            f"recall@3 {right3 / max(findable, 1):.4f}, matches per pair {matches / pairs_seen:.0f}"
        )


if __name__ == "__main__":
    main()
