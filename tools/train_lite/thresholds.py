"""Precision and recall on held-out tiles for several confidence thresholds: how the default is chosen."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from matchrt.export.weights.network import load_network
from matchrt.families.registry import get_spec
from tools.train_lite.networks import NAMES
from tools.train_lite.pairs import Recipe, Shape, make_pairs
from tools.train_lite.tiles import load_pool
from tools.train_lite.validate import SLOTS, errors


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--network", choices=NAMES, default="eloftr-lite")
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--threshold", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.5])
    arguments = parser.parse_args()
    device = torch.device("cpu")
    pool = load_pool(arguments.pack, "validation", 1024, 12, 2, device)
    net = load_network(get_spec(arguments.network), arguments.weights).network.eval()
    net.config = replace(net.config, match=replace(net.config.match, threshold=min(arguments.threshold)))
    generator = torch.Generator(device).manual_seed(424_242)
    shape = Shape(4, (480, 640), (480, 640))
    found, findable, related = [], 0.0, 0
    for _ in range(arguments.pairs // shape.batch):
        pairs = make_pairs(pool, generator, shape, Recipe())
        matches = net(pairs.image0, pairs.image1, max_matches=SLOTS)
        true = pairs.scene.positive
        error = errors(pairs, matches.keypoints0, matches.keypoints1)
        found.append((error[true].flatten(), matches.scores[true].flatten()))
        findable += float(pairs.truth.positive.sum())
        related += int(true.sum())
    error, score = (torch.cat(parts) for parts in zip(*found, strict=True))
    for threshold in arguments.threshold:
        kept = error[(score >= threshold) & (score > 0)]
        right3, right1, count = int((kept < 3).sum()), int((kept < 1).sum()), len(kept)
        print(
            f"threshold {threshold}: precision@3 {right3 / max(count, 1):.4f}, @1 {right1 / max(count, 1):.4f}, "
            f"recall@3 {right3 / max(findable, 1):.4f}, matches per pair {count / max(related, 1):.0f}"
        )


if __name__ == "__main__":
    main()
