"""RoMa's parts against torch's own operators and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.roma import TINY, tiny_roma

from matchrt.models.roma.config import RoMaConfig
from matchrt.models.roma.deployed import deployed
from matchrt.models.roma.dinov2 import resample_position
from matchrt.models.roma.feature_map import FeatureMap
from matchrt.models.roma.gaussian_process import cosine_kernel
from matchrt.models.roma.grid import pixel_grid
from matchrt.models.roma.local_correlation import LocalCorrelation
from matchrt.models.roma.match_decoder import anchors_to_flow
from matchrt.models.roma.network import DenseMatches
from matchrt.models.roma.sampling import BilinearSample
from matchrt.models.roma.selection import cell_side, select_dense
from matchrt.models.roma.spd_solve import block_sizes, solve_spd


def _flow(batch: int, height: int, width: int, reach: float = 1.3) -> torch.Tensor:
    """Positions all over the other image and beyond it."""
    generator = torch.Generator().manual_seed(3)
    return (2 * torch.rand(batch, 2, height, width, generator=generator) - 1) * reach


@pytest.mark.parametrize("reach", [0.9, 1.3, 1e6])
def test_sampling_is_grid_sample(reach: float) -> None:
    features, flow = torch.randn(2, 7, 9, 13), _flow(2, 5, 6, reach)
    expected = F.grid_sample(features, flow.permute(0, 2, 3, 1), align_corners=False)
    sampled = BilinearSample()(FeatureMap.of(features), flow)
    assert torch.allclose(FeatureMap.of_rows(sampled, (5, 6)).planes(), expected, atol=1e-5)


@pytest.mark.parametrize("volume_pixels", [0, 10**6])
@pytest.mark.parametrize("radius", [1, 3])
def test_local_correlation_is_its_definition(radius: int, volume_pixels: int) -> None:
    """Every displacement sampled by itself, as the official code does."""
    features0, features1, flow = torch.randn(2, 6, 8, 10), torch.randn(2, 6, 8, 10), _flow(2, 8, 10)
    expected = []
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            moved = flow + torch.tensor([2 * dx / 10, 2 * dy / 8]).reshape(1, 2, 1, 1)
            sampled = F.grid_sample(features1, moved.permute(0, 2, 3, 1), align_corners=False)
            expected.append((features0 * sampled).sum(dim=1) / 6**0.5)
    window = LocalCorrelation(radius, volume_pixels)(FeatureMap.of(features0), FeatureMap.of(features1), flow)
    actual = FeatureMap.of_rows(window, (8, 10)).planes()
    assert torch.allclose(actual, torch.stack(expected, dim=1), atol=1e-4)


def _kernel(kind: str, count: int) -> torch.Tensor:
    """Kernel matrices from the easiest to the hardest that features can give."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, count, 64, generator=generator)
    if kind == "alike":
        features = 1 + 1e-3 * features
    elif kind == "identical":
        features = torch.ones_like(features)
    elif kind == "clusters":
        features = features[:, :20].repeat_interleave(-(-count // 20), dim=1)[:, :count]
    return cosine_kernel(features, features, 0.2)


@pytest.mark.parametrize("count", [64, 401])
@pytest.mark.parametrize("kind", ["random", "clusters", "alike", "identical"])
def test_solve_is_as_good_as_cholesky(kind: str, count: int) -> None:
    kernel, right = _kernel(kind, count), torch.randn(1, count, 12)
    matrix = kernel + 0.1 * torch.eye(count)
    exact = torch.cholesky_solve(right.double(), torch.linalg.cholesky(matrix.double()))
    cholesky = torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
    allowed = 10 * float((cholesky - exact).norm()) + 1e-6 * float(exact.norm())
    assert float((solve_spd(kernel, right, 0.1, 160) - exact).norm()) <= allowed


def test_blocks_cover_the_matrix_and_stay_small() -> None:
    for total in (1, 159, 160, 161, 1600, 1601):
        sizes = block_sizes(total, 160)
        assert sum(sizes) == total and max(sizes) <= 160 and max(sizes) - min(sizes) <= 1


def test_anchors_to_flow_is_the_mean_of_five() -> None:
    """Written out with the softmax over all anchors, at the edges of the list too."""
    logits = 3 * torch.randn(2, 6, 16)
    logits[0, 0, 0] = logits[0, 1, 15] = logits[0, 2, 3] = 20.0  # first, last, end of a row
    probability = logits.softmax(dim=2)
    places = pixel_grid(4, 4, logits.device).flatten(2)[0].T
    for batch in range(2):
        for query in range(6):
            best = int(probability[batch, query].argmax())
            near = [min(max(best + step, 0), 15) for step in (-1, 0, 1, -4, 4)]
            weights = probability[batch, query, near]
            expected = (weights[:, None] * places[near]).sum(dim=0) / weights.sum()
            row, column = divmod(query, 3)
            actual = anchors_to_flow(logits, 2, 3)[batch, :, row, column]
            assert torch.allclose(actual, expected, atol=1e-5)


def test_position_embedding_is_stored_at_its_own_grid_and_sampled_between() -> None:
    """A linear ramp stays one: its step is the fractional one of the official code, not that of the integer size."""
    side, grid = 37, (20, 40)
    ramp = torch.arange(side, dtype=torch.float32)
    stored = torch.cat([torch.zeros(1, 1, 1), ramp.repeat(side).reshape(1, -1, 1)], dim=1)
    assert resample_position(stored, (side, side)) is stored
    resampled = resample_position(stored, grid)[0, 1:, 0].reshape(grid)
    places = torch.arange(4, 36) + 0.5
    fractional, integer = ((places * side / (grid[1] + extra) - 0.5) for extra in (0.1, 0.0))
    # The cubic kernel wiggles around a ramp by up to 0.05.
    assert (resampled[5, 4:36] - fractional).abs().max() < 0.06 < (resampled[5, 4:36] - integer).abs().max()


def _images(size: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    whole = F.interpolate(torch.rand(1, 3, 12, 12, generator=generator), size=(size + 8, size + 8), mode="bicubic")
    return [whole[:, :, :size, :size], whole[:, :, 8:, 8:]]


@torch.inference_mode()
def test_deployed_network_computes_the_same() -> None:
    network = tiny_roma()
    inputs = (*_images(112), *_images(128))
    expected, actual = network(*inputs), deployed(network)(*inputs)
    assert torch.allclose(actual.warp, expected.warp, atol=1e-4)
    assert torch.allclose(actual.certainty, expected.certainty, atol=1e-4)
    padded = deployed(network).decoder.conv_refiner["16"].block1[0]
    assert padded.weight.shape[0] % 64 == 0 and network.decoder.conv_refiner["16"].block1[0].weight.shape[0] % 64


@torch.inference_mode()
def test_one_direction_is_the_left_half_of_both() -> None:
    both = tiny_roma()(*_images(112))
    one = tiny_roma(RoMaConfig(**{**vars(TINY), "symmetric": False}))(*_images(112))
    width = one.warp.shape[2]
    assert both.warp.shape[2] == 2 * width
    assert torch.allclose(both.warp[:, :, :width], one.warp, atol=1e-4)
    assert torch.allclose(both.certainty[:, :, :width], one.certainty, atol=1e-4)


@torch.inference_mode()
def test_swapping_the_images_swaps_the_halves() -> None:
    first, second = _images(112)
    there, back = tiny_roma()(first, second), tiny_roma()(second, first)
    width = there.warp.shape[2] // 2
    assert torch.allclose(there.warp[:, :, :width, :2], back.warp[:, :, width:, 2:], atol=1e-4)
    assert torch.allclose(there.certainty[:, :, :width], back.certainty[:, :, width:], atol=1e-4)


@pytest.mark.parametrize(("rule", "expected"), [("relative", (1.0, 1.6)), ("absolute", (0.5, 0.8))])
def test_scale_factors(rule: str, expected: tuple[float, float]) -> None:
    network = tiny_roma(RoMaConfig(**{**vars(TINY), "scale_rule": rule}))
    assert np.allclose(network.scale_factors((280, 280), (448, 448)), expected)


def test_selection_takes_the_best_pixel_of_each_cell_in_order() -> None:
    certainty = torch.rand(1, 16, 32, generator=torch.Generator().manual_seed(1))
    warp = torch.rand(1, 16, 32, 4, generator=torch.Generator().manual_seed(2)) * 2 - 1
    side = cell_side(16, 16, 4)
    out = select_dense(DenseMatches(warp, certainty), 8, 0.0, symmetric=True)
    cells = certainty[0].reshape(16 // side, side, 32 // side, side).transpose(1, 2).flatten(2)
    expected = cells.amax(dim=2).flatten().sort(descending=True).values[:8]
    assert side == 4 and torch.equal(out.scores[0], expected)
    for k in range(8):
        row, column = (int(v) for v in (certainty[0] == out.scores[0, k]).nonzero()[0])
        pixels = torch.cat([out.keypoints0[0, k], out.keypoints1[0, k]])
        assert torch.allclose(pixels, (warp[0, row, column] + 1) * 8 - 0.5, atol=1e-5)


def test_selection_below_the_threshold_is_empty() -> None:
    dense = DenseMatches(torch.zeros(1, 8, 8, 4), torch.full((1, 8, 8), 0.04))
    out = select_dense(dense, 100, 0.05, symmetric=False)
    assert out.num_matches.tolist() == [0] and not out.scores.any() and not out.keypoints0.any()
