"""Parts of RoMa v2 by themselves, on a small network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.romav2 import TINY, tiny_romav2

from matchrt.families.romav2 import ROMAV2
from matchrt.models.roma.feature_map import FeatureMap
from matchrt.models.romav2.config import DINOv3Config, RoMaV2Config
from matchrt.models.romav2.deployed import deployed
from matchrt.models.romav2.directions import both_sides, matched_from, matched_to
from matchrt.models.romav2.dpt_head import Fusion, ResidualUnit
from matchrt.models.romav2.matcher import PatchMatching
from matchrt.models.romav2.multi_view import apart, together
from matchrt.models.romav2.refiner import Estimate, PrecisionFactor
from matchrt.models.romav2.rotary import rotation


def pair(batch: int = 1, size: tuple[int, int] = (64, 96)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(batch, 3, *size, generator=generator), torch.rand(batch, 3, *size, generator=generator)


def test_the_configuration_is_the_published_one() -> None:
    assert [refiner.channels for refiner in ROMAV2.refiners] == [512, 128, 32]
    assert ROMAV2.dinov3.depth == 18 and ROMAV2.dinov3.taps == (11, 17)


def test_configurations_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="last one read"):
        DINOv3Config(depth=24)
    with pytest.raises(ValueError, match="same channels"):
        RoMaV2Config(frequencies=500)
    with pytest.raises(ValueError, match="scales 4, 2, 1"):
        RoMaV2Config(refiners=RoMaV2Config().refiners[1:])


@torch.inference_mode()
def test_the_deployed_form_gives_the_same() -> None:
    network = tiny_romav2(replace(TINY, symmetric=True))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    other = deployed(network)
    expected, actual = network(*pair()), other(*pair())
    for name in ("warp", "logit", "precision"):
        assert torch.allclose(getattr(actual, name), getattr(expected, name), atol=2e-4, rtol=1e-3), name
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert other.f.patch_embed.proj.weight is network.f.patch_embed.proj.weight  # shared, not copied
    with pytest.raises(ValueError, match="evaluation mode"):
        deployed(network.train())


def test_one_direction_is_the_first_of_both() -> None:
    one, both = tiny_romav2(), tiny_romav2(replace(TINY, symmetric=True))
    with torch.inference_mode():
        first, second = one(*pair(2)), both(*pair(2))
    assert first.warp.shape == (2, 2, 64, 96) and second.warp.shape == (4, 2, 64, 96)
    assert torch.allclose(first.warp, second.warp[:2], atol=1e-5)
    assert torch.allclose(first.logit, second.logit[:2], atol=1e-4)


def test_pairs_of_a_batch_do_not_mix() -> None:
    network = tiny_romav2(replace(TINY, symmetric=True))
    images0, images1 = pair(2)
    with torch.inference_mode():
        together = network(images0, images1)
        alone = [network(images0[i : i + 1], images1[i : i + 1]) for i in (0, 1)]
    for index, single in enumerate(alone):
        assert torch.allclose(together.warp[[index, 2 + index]], single.warp, atol=1e-5)


def test_a_second_refinement_begins_without_precision() -> None:
    """Precisions of two passes are in different pixels and must not be added."""
    network = tiny_romav2()
    with torch.inference_mode():
        images = network.normalised(torch.cat(pair()))
        first = network.refine(images, network.coarse_match(images, network.tables((64, 96))))
        expected = network.refine(images, Estimate(first.warp, first.logit))
        actual = network(*pair(), *pair())
    assert actual.precision is not None and expected.precision is not None
    assert torch.equal(actual.precision, expected.precision) and torch.equal(actual.warp, expected.warp)


def test_directions() -> None:
    rows = torch.arange(4.0).reshape(4, 1, 1)
    for symmetric, sources, targets in ((True, [0, 1, 2, 3], [2, 3, 0, 1]), (False, [0, 1], [2, 3])):
        assert matched_from(rows, symmetric).flatten().tolist() == sources
        assert matched_to(rows, symmetric).flatten().tolist() == targets
        first, second = both_sides(FeatureMap.of_rows(rows, (1, 1)), symmetric)
        assert first.rows.flatten().tolist() == sources and second.rows.flatten().tolist() == targets
        assert second.starts().tolist() == targets


@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_of_pairs(batch: int) -> None:
    tokens = torch.arange(2 * batch * 5).reshape(2 * batch, 5, 1)
    joined = together(tokens)
    assert torch.equal(joined[0, :, 0], torch.cat([tokens[0], tokens[batch]])[:, 0])
    assert torch.equal(apart(joined), tokens)


def test_matching_is_a_weighted_mean_of_positions() -> None:
    first, second, positions = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(5, 6)
    cosine = F.cosine_similarity(first[:, :, None], second[:, None], dim=3)
    expected = torch.softmax(cosine / 0.1, dim=2) @ positions
    assert torch.allclose(PatchMatching()(first, second, positions), expected, atol=1e-5)


def test_the_residual_unit_adds_what_its_first_relu_left() -> None:
    unit, x = ResidualUnit(4), torch.randn(1, 4, 5, 6)
    expected = unit.conv2(F.relu(unit.conv1(F.relu(x)))) + F.relu(x)
    assert torch.allclose(unit(x), expected) and not torch.allclose(unit(x), expected - F.relu(x) + x)


def test_the_fusions_last_convolution_may_come_first() -> None:
    fusion, level, coarser = Fusion(4, coarsest=False), torch.randn(1, 4, 5, 6), torch.randn(1, 4, 5, 6)
    assert fusion.resConfUnit1 is not None
    x = fusion.resConfUnit2(coarser + fusion.resConfUnit1(level))
    expected = fusion.out_conv(F.interpolate(x, size=(9, 13), mode="bilinear", align_corners=True))
    assert torch.allclose(fusion(level, coarser, (9, 13)), expected, atol=1e-5)


def test_a_rotation_keeps_lengths_and_turns_by_differences() -> None:
    turn = rotation((3, 4), 16, torch.float32).behind(2)
    x = torch.randn(2, 14, 16)
    turned = turn(x)
    assert torch.equal(turned[:, :2], x[:, :2]) and not torch.allclose(turned[:, 2:], x[:, 2:])
    assert torch.allclose(turned.norm(dim=2), x.norm(dim=2), atol=1e-5)
    # Two patches a step apart have the same product wherever they are: rows 0 and 1, and rows 1 and 2, of column 0.
    same = x[:, :1].expand(-1, 14, -1)
    q, k = turn(same), turn(x[:, 1:2].expand(-1, 14, -1))
    product = (q @ k.transpose(1, 2))[0]
    assert torch.allclose(product[2, 6], product[6, 10], atol=1e-4)


def test_precision_is_the_square_of_a_triangular_factor() -> None:
    raw = torch.randn(1, 3, 2, 2)
    a, c, b = F.softplus(raw[:, 0]) + 1e-6, raw[:, 1], F.softplus(raw[:, 2]) + 1e-6
    factor = torch.stack([torch.stack([a, 0 * a], dim=3), torch.stack([c, b], dim=3)], dim=3)
    square = factor @ factor.transpose(3, 4)
    expected = torch.stack([square[..., 0, 0], square[..., 1, 0], square[..., 1, 1]], dim=1)
    assert torch.allclose(PrecisionFactor()(raw), expected, atol=1e-5)
