"""The training step of eloftr-lite: its truth, its losses, and the fusion of the trained branches."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import pytest
import torch

from matchrt.models.eloftr.half_resolution import BEFORE, CELL, SIDE, STRIDE
from matchrt.models.eloftr.network import ELoFTR
from tools.train_lite import eloftr_step
from tools.train_lite.losses import sample_positives
from tools.train_lite.mipmaps import build_mipmaps
from tools.train_lite.networks import fuse, new_network
from tools.train_lite.pairs import Pairs, Recipe, Shape, make_pairs
from tools.train_lite.procedural import procedural_tile
from tools.train_lite.progress import Clock
from tools.train_lite.similar import similar_tiles
from tools.train_lite.tiles import Pool
from tools.train_lite.validate import errors


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    mipmaps = build_mipmaps([procedural_tile(seed, 128) for seed in range(6)], torch.device("cpu"))
    groups = torch.arange(6)
    pool = Pool(mipmaps, groups, 6, groups, similar_tiles(mipmaps, groups))
    generator = torch.Generator().manual_seed(11)
    return make_pairs(pool, generator, Shape(6, (128, 160), (160, 128)), Recipe())


def _positives(pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    return sample_positives(pairs.truth, 24, torch.Generator().manual_seed(12))


def test_fine_truth_agrees_with_the_coarse_offset(pairs: Pairs) -> None:
    index0, valid = _positives(pairs)
    index1 = pairs.truth.nearest0.gather(1, index0)
    truth = eloftr_step.fine_truth(pairs, index0, index1, valid)
    own = BEFORE * CELL + BEFORE  # the pixel at the cell's own point
    offset = pairs.truth.offset.gather(1, index0[:, :, None].expand(-1, -1, 2))
    expected = offset.flip(2) / STRIDE + BEFORE + 1
    assert valid.sum() > 20
    assert torch.allclose(truth.place[:, :, own][valid], expected[valid], atol=2e-3)
    assert truth.seen[:, :, own][valid].float().mean() > 0.9
    assert not truth.seen[~valid].any()


def test_perfect_predictions_cost_nothing(pairs: Pairs) -> None:
    index0, valid = _positives(pairs)
    truth = eloftr_step.fine_truth(pairs, index0, pairs.truth.nearest0.gather(1, index0), valid)
    place = truth.place.round().long().clamp(0, SIDE - 1)
    right = torch.nn.functional.one_hot(place[..., 0] * SIDE + place[..., 1], SIDE * SIDE)
    assert eloftr_step.pixel_loss((right - 1.0) * 50, truth) == 0.0
    assert eloftr_step.pixel_loss(-right * 50.0, truth) >= 20.0


def test_points_of_the_truth_have_no_error(pairs: Pairs) -> None:
    width0, width1 = pairs.image0.shape[3] // 8, pairs.image1.shape[3] // 8
    cells = torch.arange(pairs.truth.positive.shape[1])
    points0 = 8.0 * torch.stack([cells % width0, cells // width0], dim=1).expand(6, -1, -1)
    nearest = pairs.truth.nearest0
    points1 = 8.0 * torch.stack([nearest % width1, nearest // width1], dim=2) + pairs.truth.offset
    error = errors(pairs, points0, points1)
    assert error[pairs.truth.positive].max() < 1e-2
    assert error[~pairs.scene.positive].isinf().all()


def test_a_few_steps_lower_the_loss(pairs: Pairs) -> None:
    torch.manual_seed(0)
    net = new_network("eloftr-lite")
    assert isinstance(net, ELoFTR)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    seen = []
    for _ in range(8):
        total, _, _ = eloftr_step.losses(net, pairs, _positives(pairs), torch.Generator().manual_seed(1), False)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        seen.append(float(total.detach()))
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert seen[-1] < 0.8 * seen[0]


def test_fused_branches_compute_the_same(pairs: Pairs) -> None:
    torch.manual_seed(0)
    net = new_network("eloftr-lite").train()
    assert isinstance(net, ELoFTR)
    image = pairs.image0[:2, :, :128, :128]
    net.backbone(image)  # statistics other than those of fresh norms
    fused = copy.deepcopy(net.eval())
    fuse(fused)
    assert len(list(fused.backbone.parameters())) < len(list(net.backbone.parameters()))
    for ours, theirs in zip(fused.backbone(image), net.backbone(image), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.detach().abs().max()))


def test_a_resumed_part_leads_from_its_start_to_its_end(tmp_path: Path) -> None:
    arguments = argparse.Namespace(steps=None, minutes=1000.0, until=0.5, out=tmp_path)
    clock = Clock(arguments, 0.25, torch.device("cpu"))
    assert clock.progress(0) == 0.25
    clock.start()
    assert 0.25 <= clock.progress(10) < 0.2501
    (arguments.out / "minutes").write_text("1e-9")
    assert clock.progress(20) > 0.5
