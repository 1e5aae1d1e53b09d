"""Makes the weights that score eloftr-lite's matches anew, and puts them into the shipped file.

    python -m tools.train_lite.rescoring src/matchrt/assets/eloftr-lite.safetensors --pack PACK

The network stays as it is. It matches pairs that are made as for its training, of which fewer look like other sensors'
pictures; `matchrt.models.eloftr.rescoring` then learns which matches are within 3 pixels. Pairs weigh by the square
root of their matches, so that hard ones are heard. At the end, precision and recall on held-out tiles are printed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from matchrt.models.eloftr.config import ELOFTR_LITE
from matchrt.models.eloftr.network import ELoFTR
from matchrt.models.eloftr.rescoring import Rescoring, slot_evidence
from matchrt.models.parts.coarse_matching import Grid
from tools.train_lite.export import PREFIX
from tools.train_lite.pairs import Recipe, Shape, make_pairs
from tools.train_lite.photometric import Strength
from tools.train_lite.tiles import Pool, load_pool
from tools.train_lite.validate import SLOTS, errors

RIGHT_PX = 3.0
SHAPE = Shape(2, (480, 640), (480, 640))
RECIPE = replace(Recipe(), strength=replace(Strength(), modality=0.08), cross_spectral=0.08)
PRECISIONS = (0.99, 0.97, 0.95, 0.9)
_MODULE = f"{PREFIX}rescoring."


class Recorder(nn.Module):
    """In the place of the rescoring: keeps the evidence `[B,K,10]` of the last matches, and leaves the scores."""

    def forward(
        self, keypoints0: Tensor, keypoints1: Tensor, confidence: Tensor, cells0: Tensor, grid0: Grid
    ) -> Tensor:
        """See `Rescoring`."""
        self.evidence = slot_evidence(keypoints0, keypoints1, confidence, cells0, grid0)
        self.confidence, self.keypoints = confidence, (keypoints0, keypoints1)
        return confidence


@dataclass(frozen=True)
class Examples:
    """Matches of many pairs: evidence `[N,10]`, the confidence `[N]`, whether each is right `[N]`, its weight `[N]`."""

    evidence: Tensor
    confidence: Tensor
    right: Tensor
    weight: Tensor


@torch.no_grad()
def examples(network: ELoFTR, pool: Pool, count: int, seed: int) -> Examples:
    """The candidates of `count` pairs. Matches of unrelated pairs are wrong, wherever they lie."""
    recorder = Recorder()
    network.rescoring = recorder  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(seed)
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for number in range(count // SHAPE.batch):
        pairs = make_pairs(pool, generator, SHAPE, RECIPE)
        network(pairs.image0, pairs.image1, max_matches=SLOTS)
        right = (errors(pairs, *recorder.keypoints) < RIGHT_PX) & pairs.scene.positive[:, None]
        for row in range(SHAPE.batch):
            real = recorder.confidence[row] > 0
            weight = torch.full((int(real.sum()),), max(1, int(real.sum())) ** -0.5)
            rows.append((recorder.evidence[row][real], recorder.confidence[row][real], right[row][real], weight))
        if number % 10 == 9:
            print(f"{(number + 1) * SHAPE.batch} of {count} pairs", flush=True)
    return Examples(*(torch.cat(part) for part in zip(*rows, strict=True)))


def learned(found: Examples, epochs: int) -> Rescoring:
    """Weights that were learned from the examples; the normalisation of the evidence is in the first layer."""
    mean, deviation = found.evidence.mean(0), found.evidence.std(0).clamp(min=1e-3)
    normal, right = (found.evidence - mean) / deviation, found.right.float()
    net = Rescoring()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - epoch / epochs) + 1e-4
        for chosen in torch.randperm(len(right)).split(4096):
            odds = net.layers(normal[chosen])[:, 0]
            loss = F.binary_cross_entropy_with_logits(odds, right[chosen], reduction="none")
            optimizer.zero_grad()
            ((loss * found.weight[chosen]).sum() / found.weight[chosen].sum()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    first = cast(nn.Linear, net.layers[0])
    with torch.no_grad():
        first.weight /= deviation
        first.bias -= first.weight @ mean
    return net.eval()


def recalls(score: Tensor, right: Tensor) -> Iterator[str]:
    """For each precision, the share of the right matches that are kept where the matches kept are right so often."""
    order = score.argsort(descending=True)
    hits = right[order].float().cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)
    for wanted in PRECISIONS:
        places = (precision >= wanted).nonzero()[:, 0]
        yield f"{wanted:.0%}: {float(hits[places[-1]] / hits[-1]) if len(places) else 0.0:.3f}"


def report(net: Rescoring, held: Examples) -> None:
    """Prints what the scores are worth on pairs that they were not made from."""
    with torch.no_grad():
        score = torch.sigmoid(net.layers(held.evidence)[:, 0])
    print("right matches kept at a precision of ... by confidence: " + ", ".join(recalls(held.confidence, held.right)))
    print("by score: " + ", ".join(recalls(score, held.right)))
    for least in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        kept = held.right[score >= least]
        print(f"score {least}: {len(kept)} matches, {float(kept.float().mean()):.4f} right")


def put(net: Rescoring, target: Path) -> None:
    """Writes the weights into the shipped file, in half precision, beside the network's."""
    with safe_open(target, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys() if not key.startswith(_MODULE)}  # noqa: SIM118
    tensors |= {_MODULE + key: value.half().contiguous() for key, value in net.state_dict().items()}
    part = target.with_suffix(".part")
    save_file(tensors, part, metadata)
    os.replace(part, target)


def load(weights: Path) -> ELoFTR:
    """The network of a shipped file, which may have no weights of the rescoring yet."""
    network = ELoFTR(replace(ELOFTR_LITE, rescored=False))
    with safe_open(weights, "pt") as file:
        kept = [key for key in file.keys() if not key.startswith(_MODULE)]  # noqa: SIM118
        network.load_state_dict({key.removeprefix(PREFIX): file.get_tensor(key).float() for key in kept})
    return network.eval()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="the shipped file, which is changed")
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--held-out", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--drawn", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    network, found = load(arguments.weights), []
    for split, count, drawn in (("train", arguments.pairs, arguments.drawn), ("validation", arguments.held_out, 12)):
        pool = load_pool(arguments.pack, split, arguments.tile, drawn, arguments.workers, torch.device("cpu"))
        found.append(examples(network, pool, count, seed=len(found) + 1))
    net = learned(found[0], arguments.epochs)
    report(net, found[1])
    put(net, arguments.weights)


if __name__ == "__main__":
    main()
