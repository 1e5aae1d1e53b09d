"""Makes the weights that score eloftr-lite's matches anew, and puts them into the shipped file.

    python -m tools.train_lite.rescoring src/matchrt/assets/eloftr-lite.safetensors --pack PACK

The network stays as it is. It matches pairs that are made as for its training, of which fewer look like other sensors'
pictures; `matchrt.models.eloftr.rescoring` then learns which matches are within 3 pixels. That depends on their new
places, which depend on the scores; so it learns three times: from the places as they were, and twice from those that
the scores before gave. Pairs weigh by the square root of their matches, so that hard ones are heard. At the end,
precision and recall on held-out tiles are printed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from matchrt.models.eloftr.affine_fits import Field
from matchrt.models.eloftr.config import ELOFTR_LITE
from matchrt.models.eloftr.network import ELoFTR
from matchrt.models.eloftr.rescoring import Rescoring, evidence, in_slots, placed, presence
from matchrt.models.parts.coarse_matching import Grid
from tools.train_lite.export import PREFIX
from tools.train_lite.pairs import STRIDE, Recipe, Shape, make_pairs
from tools.train_lite.photometric import Strength
from tools.train_lite.tiles import Pool, load_pool
from tools.train_lite.validate import SLOTS, true_points

RIGHT_PX = 3.0
SHAPE = Shape(2, (480, 640), (480, 640))
GRID = Grid(SHAPE.size0[0] // STRIDE, SHAPE.size0[1] // STRIDE)
RECIPE = replace(Recipe(), strength=replace(Strength(), modality=0.08), cross_spectral=0.08)
PRECISIONS = (0.99, 0.97, 0.95, 0.9)
ROUNDS = 3
_MODULE = f"{PREFIX}rescoring."


class Recorder(nn.Module):
    """In the place of the rescoring: keeps the last matches, and leaves places and scores."""

    def forward(
        self, keypoints0: Tensor, keypoints1: Tensor, confidence: Tensor, cells0: Tensor, grid0: Grid
    ) -> tuple[Tensor, Tensor]:
        """See `Rescoring`."""
        self.slots = (keypoints0, keypoints1, confidence, cells0)
        return keypoints1, confidence


@dataclass(frozen=True)
class Candidates:
    """The candidates of one pair.

    field: the candidates on the grid.
    keypoints1: pixels `[1,N,2]`.
    confidence: `[1,N]`.
    cells0: int64 `[1,N]`.
    evidence: `[1,N,10]`.
    truth: where the scene puts the points of image 0, pixels `[1,N,2]`; infinite where that is hidden, or the pair is
        none.
    """

    field: Field
    keypoints1: Tensor
    confidence: Tensor
    cells0: Tensor
    evidence: Tensor
    truth: Tensor

    @classmethod
    def of(
        cls, keypoints0: Tensor, keypoints1: Tensor, confidence: Tensor, cells0: Tensor, truth: Tensor
    ) -> Candidates:
        """From slots, all of them taken."""
        field = Field.of(keypoints0, keypoints1, confidence * presence(confidence), cells0, GRID)
        return cls(field, keypoints1, confidence, cells0, in_slots(evidence(field), cells0), truth)

    def scores(self, net: Rescoring) -> Tensor:
        """What `net` makes of them, `[1,N]`."""
        return net.scored(self.evidence, presence(self.confidence))

    def right(self, net: Rescoring | None) -> Tensor:
        """Whether each is within 3 pixels, bool `[N]`, where the scores of `net` put it; None: where it is."""
        points = self.keypoints1
        if net is not None:
            points = placed(self.field, points, self.scores(net), self.cells0)
        return (points - self.truth)[0].norm(dim=1) < RIGHT_PX


@torch.no_grad()
def candidates(network: ELoFTR, pool: Pool, count: int, seed: int) -> list[Candidates]:
    """The candidates of `count` pairs. Those of unrelated pairs are wrong, wherever they lie."""
    recorder = Recorder()
    network.rescoring = recorder  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(seed)
    found: list[Candidates] = []
    for number in range(count // SHAPE.batch):
        pairs = make_pairs(pool, generator, SHAPE, RECIPE)
        network(pairs.image0, pairs.image1, max_matches=SLOTS)
        truth = true_points(pairs, recorder.slots[0])
        truth = torch.where(pairs.scene.positive[:, None, None], truth, torch.full_like(truth, torch.inf))
        for row in range(SHAPE.batch):
            real = recorder.slots[2][row] > 0
            slots = [values[row : row + 1, real].clone() for values in recorder.slots]
            if real.any():
                found.append(Candidates.of(*slots, truth[row : row + 1, real].clone()))
        if number % 10 == 9:
            print(f"{(number + 1) * SHAPE.batch} of {count} pairs", flush=True)
    return found


def learned(found: Sequence[Candidates], right: Tensor, epochs: int) -> Rescoring:
    """Weights that were learned from candidates, of which `right`, bool `[N]`, are.

    The normalisation of the evidence is in the first layer.
    """
    values = torch.cat([each.evidence[0] for each in found])
    weight = torch.cat([torch.full_like(each.confidence[0], each.confidence.shape[1] ** -0.5) for each in found])
    mean, deviation = values.mean(0), values.std(0).clamp(min=1e-3)
    normal, target = (values - mean) / deviation, right.float()
    net = Rescoring()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - epoch / epochs) + 1e-4
        for chosen in torch.randperm(len(target)).split(4096):
            odds = net.layers(normal[chosen])[:, 0]
            loss = F.binary_cross_entropy_with_logits(odds, target[chosen], reduction="none")
            optimizer.zero_grad()
            ((loss * weight[chosen]).sum() / weight[chosen].sum()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    first = cast(nn.Linear, net.layers[0])
    with torch.no_grad():
        first.weight /= deviation
        first.bias -= first.weight @ mean
    return net.eval()


@torch.no_grad()
def labels(found: Sequence[Candidates], net: Rescoring | None) -> Tensor:
    """Which of all candidates are right, bool `[N]`; see `Candidates.right`."""
    return torch.cat([each.right(net) for each in found])


def recalls(score: Tensor, right: Tensor) -> Iterator[str]:
    """For each precision, the share of the right matches that are kept where the matches kept are right so often."""
    order = score.argsort(descending=True)
    hits = right[order].float().cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)
    for wanted in PRECISIONS:
        places = (precision >= wanted).nonzero()[:, 0]
        yield f"{wanted:.0%}: {float(hits[places[-1]] / hits[-1]) if len(places) else 0.0:.3f}"


@torch.no_grad()
def report(net: Rescoring, held: Sequence[Candidates]) -> None:
    """Prints what scores and places are worth on pairs that they were not made from."""
    confidence = torch.cat([each.confidence[0] for each in held])
    score = torch.cat([each.scores(net)[0] for each in held])
    before, after = labels(held, None), labels(held, net)
    print("right matches kept at a precision of ... by confidence: " + ", ".join(recalls(confidence, before)))
    print("by score: " + ", ".join(recalls(score, after)))
    for least in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        kept = score >= least
        shares = ", ".join(f"{float(right[kept].float().mean()):.4f}" for right in (before, after))
        print(f"score {least}: {int(kept.sum())} matches; right where they were, and where they are: {shares}")


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
        found.append(candidates(network, pool, count, seed=len(found) + 1))
    net: Rescoring | None = None
    for _ in range(ROUNDS):
        net = learned(found[0], labels(found[0], net), arguments.epochs)
    assert net is not None
    report(net, found[1])
    put(net, arguments.weights)


if __name__ == "__main__":
    main()
