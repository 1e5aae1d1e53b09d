"""A picture of training pairs with some of their true correspondences: whether the truth is true is best seen."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from tools.train_lite.pairs import STRIDE, Pairs, Recipe, Shape, make_pairs
from tools.train_lite.tiles import load_pool

COLOURS = ((60, 60, 255), (60, 255, 60), (255, 120, 60), (60, 230, 255), (255, 60, 255), (255, 255, 60))
LINES = len(COLOURS)


def picture(pairs: Pairs, index: int) -> NDArray[np.uint8]:
    """One pair side by side, uint8 `[H,W,3]`, BGR; rings of one colour mark one point in both views."""
    grey0, grey1 = ((image[index, 0].cpu().numpy() * 255).astype(np.uint8) for image in (pairs.image0, pairs.image1))
    height = max(len(grey0), len(grey1))
    views = [cv2.copyMakeBorder(g, 0, height - len(g), 0, 4, cv2.BORDER_CONSTANT, value=0) for g in (grey0, grey1)]
    canvas = cv2.cvtColor(np.concatenate(views, axis=1), cv2.COLOR_GRAY2BGR)
    truth = pairs.truth
    cells = truth.positive[index].nonzero()[:, 0].cpu()
    chosen = cells[torch.linspace(0, max(len(cells) - 1, 0), LINES).long()] if len(cells) else cells
    columns0, columns1 = grey0.shape[1] // STRIDE, grey1.shape[1] // STRIDE
    for cell, colour in zip(chosen.tolist(), COLOURS, strict=False):
        there = int(truth.nearest0[index, cell])
        dx, dy = truth.offset[index, cell].tolist()
        first = (STRIDE * (cell % columns0), STRIDE * (cell // columns0))
        second = (
            round(STRIDE * (there % columns1) + dx) + views[0].shape[1],
            round(STRIDE * (there // columns1) + dy),
        )
        cv2.circle(canvas, first, 7, colour, 2, cv2.LINE_AA)
        cv2.circle(canvas, second, 7, colour, 2, cv2.LINE_AA)
    label = f"{len(cells)} true matches"
    cv2.putText(canvas, label, (4, height - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(canvas, dtype=np.uint8)


def sheet(pairs: Pairs, columns: int) -> NDArray[np.uint8]:
    """All pairs of a batch, `columns` in a row."""
    pictures = [picture(pairs, index) for index in range(len(pairs.image0))]
    pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[start : start + columns], axis=1) for start in range(0, len(pictures), columns)]
    return np.concatenate(rows, axis=0)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tile", type=int, default=512)
    arguments = parser.parse_args()
    pool = load_pool(arguments.pack, "validation", arguments.tile, 16, 2, torch.device("cpu"))
    generator = torch.Generator().manual_seed(arguments.seed)
    size = (arguments.side, arguments.side)
    pairs = make_pairs(pool, generator, Shape(arguments.pairs, size, size), Recipe())
    cv2.imwrite(str(arguments.out), sheet(pairs, 3))


if __name__ == "__main__":
    main()
