"""The parts of the network against their definitions, written out the slow way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from support.pictures import shifted_pair
from support.weights import random_network

from matchrt.families.loftr import COARSE_LOFTR
from matchrt.models.loftr.attention import full_attention, linear_attention, window_attention
from matchrt.models.loftr.config import LOFTR_LITE, LoFTRConfig, TransformerConfig
from matchrt.models.loftr.fine_refinement import FineRefinement, gather_windows
from matchrt.models.loftr.position import sine_encoding, sine_frequencies
from matchrt.models.parts.coarse_matching import (
    Confidence,
    Grid,
    dual_softmax,
    fast_dual_softmax,
    rows_and_columns,
    select_matches,
)
from matchrt.models.parts.coarse_matching_once import OneProduct
from matchrt.models.parts.config import CoarseMatchConfig
from matchrt.models.parts.masks import MASKED


def test_position_formula() -> None:
    table = sine_encoding(3, 5, sine_frequencies(16, fixed_divisor=True))[0]
    row, column, k = 2, 4, 1
    frequency = 10000 ** (-2 * k / 8)
    expected = [math.sin(5 * frequency), math.cos(5 * frequency), math.sin(3 * frequency), math.cos(3 * frequency)]
    assert table[4 * k : 4 * k + 4, row, column].tolist() == pytest.approx(expected, abs=1e-6)


def test_published_divisor_floors_to_minus_one() -> None:
    assert sine_frequencies(256, fixed_divisor=False)[:3].tolist() == pytest.approx([1.0, math.exp(-2), math.exp(-4)])


def test_linear_attention_is_the_normalised_kernel_sum() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 7, 4), torch.randn(1, 2, 9, 4), torch.randn(1, 2, 9, 4)
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).transpose(2, 3)
    expected = _joined((weights / (weights.sum(3, keepdim=True) + 1e-6)) @ v)
    merge = torch.randn(8, 8)
    found = linear_attention((_joined(q), _joined(k), _joined(v)), 2, merge, None, None)
    assert torch.allclose(found, F.linear(expected, merge), atol=1e-5)


def _joined(heads: torch.Tensor) -> torch.Tensor:
    """`[B,h,L,d]` as `[B,L,C]`."""
    return heads.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("width", [4, 16])
def test_full_attention_is_the_scaled_softmax(width: int) -> None:
    """softmax(q k / sqrt(d)) v, written out for every query and head, and as torch's own operator computes it."""
    torch.manual_seed(0)
    q, k, v = (2 * torch.randn(1, 2, length, width) for length in (7, 9, 9))
    found = full_attention(q, k, v, None)
    for head in range(2):
        for query in range(7):
            weights = [math.exp(float(q[0, head, query] @ k[0, head, j]) / math.sqrt(width)) for j in range(9)]
            expected = sum(w / sum(weights) * v[0, head, j] for j, w in enumerate(weights))
            assert torch.allclose(found[0, head, query], expected, atol=1e-5)
    assert torch.allclose(found, F.scaled_dot_product_attention(q, k, v), atol=1e-5)


def test_masked_source_equals_shorter_source() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 7, 4), torch.randn(1, 2, 9, 4), torch.randn(1, 2, 9, 4)
    mask = torch.arange(9)[None] < 6
    shorter = full_attention(q, k[:, :, :6], v[:, :, :6], None)
    assert torch.allclose(full_attention(q, k, v, mask), shorter, atol=1e-5)
    q, k, v, merge = _joined(q), _joined(k), _joined(v), torch.randn(8, 8)
    shorter = linear_attention((q, k[:, :6], v[:, :6]), 2, merge, None, None)
    inside = torch.arange(7)[None] < 5
    found = linear_attention((q, k, v), 2, merge, inside, mask)
    assert torch.allclose(found[:, :5], shorter[:, :5], atol=1e-5) and float(found[:, 5:].abs().max()) < 1e-20


def _brute_force(confidence: torch.Tensor, grid: Grid, config: CoarseMatchConfig) -> set[tuple[int, int]]:
    """The definition with NonZero: above the threshold, away from the border, the best of its row and column."""
    keep = confidence > config.threshold
    valid_h = int(grid.valid_height[0]) if grid.valid_height is not None else grid.height
    valid_w = int(grid.valid_width[0]) if grid.valid_width is not None else grid.width
    b = config.border
    for cell in range(grid.height * grid.width):
        row, column = divmod(cell, grid.width)
        if not (b <= row < valid_h - b and b <= column < valid_w - b):
            keep[cell, :] = False
            keep[:, cell] = False
    if config.mutual:
        keep &= confidence == confidence.max(1, keepdim=True).values
        keep &= confidence == confidence.max(0, keepdim=True).values
        return {(int(i), int(j)) for i, j in keep.nonzero()}
    best = confidence.argmax(1)
    return {(i, int(j)) for i, j in enumerate(best) if keep[i, j]}


@pytest.mark.parametrize("mutual", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("once", [False, True])
def test_selection_equals_its_definition(mutual: bool, padded: bool, once: bool) -> None:
    torch.manual_seed(1)
    valid = (torch.tensor([7]), torch.tensor([8])) if padded else (None, None)
    grid = Grid(9, 11, *valid)
    scores = torch.randn(1, 99, 99) * 4
    config = CoarseMatchConfig(threshold=0.005, border=1, mutual=mutual)
    matches = select_matches(_fast(scores, (11, 11), once), grid, grid, config, 128)
    count = int((matches.scores > 0).sum())
    found = {(int(i), int(j)) for i, j in zip(matches.index0[0, :count], matches.index1[0, :count], strict=True)}
    expected = _brute_force(dual_softmax(scores)[0], grid, config)
    assert found == expected
    assert len(expected) >= 5 - 3 * mutual
    scores = matches.scores[0]
    assert bool((scores[1:] <= scores[:-1]).all()) and not scores[count:].any()


@pytest.mark.parametrize("once", [False, True])
def test_selection_keeps_the_best_when_slots_are_few(once: bool) -> None:
    torch.manual_seed(1)
    grid, config = Grid(9, 11), CoarseMatchConfig(threshold=0.0, border=0)
    scores = torch.randn(1, 99, 99) * 4
    confidence = _fast(scores, (11, 11), once)
    all_matches = select_matches(confidence, grid, grid, config, 128)
    few = select_matches(confidence, grid, grid, config, 5)
    assert few.scores[0].tolist() == all_matches.scores[0, :5].tolist()


@pytest.mark.parametrize("once", [False, True])
def test_all_ways_to_the_confidence_agree(once: bool) -> None:
    torch.manual_seed(2)
    scores = torch.randn(1, 70, 90) * 8
    scores[:, 60:] += MASKED
    scores[..., 80:] += MASKED
    fast = _fast(scores, (10, 9), once)
    expected = dual_softmax(scores)[:, :60, :80]
    assert torch.allclose(fast.value_of(fast.order)[:, :60, :80], expected, rtol=1e-4, atol=1e-9)
    best, index = fast.best_of_rows()
    assert torch.equal(index[:, :60], expected.argmax(2))
    assert torch.allclose(fast.value_of(best)[:, :60], expected.amax(2), rtol=1e-4)
    mutual = fast.mutual(best, index)[0, :60]
    assert mutual.tolist() == [int(expected[0, :, j].argmax()) == i for i, j in enumerate(index[0, :60])]
    assert 5 < int(mutual.sum()) < 60


def _fast(scores: torch.Tensor, widths: tuple[int, int], once: bool) -> Confidence:
    if once:
        return OneProduct.of(scores, widths)
    return fast_dual_softmax(scores, scores.transpose(1, 2))


def test_rows_and_columns() -> None:
    row, column = rows_and_columns(torch.tensor([0, 6, 7, 20]), 7)
    assert row.tolist() == [0, 0, 1, 2] and column.tolist() == [0, 6, 0, 6]


def test_windows_equal_unfold() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 16, 24)
    cells = torch.tensor([[0, 5, 23], [7, 11, 14]])
    unfolded = F.unfold(features, 5, stride=4, padding=2).view(2, 3, 25, -1)
    expected = torch.stack([unfolded[b, :, :, cells[b]].permute(2, 1, 0) for b in range(2)])
    assert torch.equal(gather_windows(features, cells, 6, 4, 5), expected)


def test_refinement_points_at_the_peak() -> None:
    matcher = FineRefinement(TransformerConfig(4, 1, ()), 5)
    x0, x1 = torch.zeros(1, 25, 4), torch.zeros(1, 25, 4)
    x0[0, 12] = 20.0
    x1[0, 5 * 1 + 4] = 20.0  # row 1, column 4: one up, two right of the centre
    expectation, deviation = matcher(x0, x1)
    assert expectation[0].tolist() == pytest.approx([1.0, -0.5], abs=1e-4)
    assert float(deviation[0]) < 1e-3


@torch.inference_mode()
def test_padding_does_not_leak_into_the_transformer() -> None:
    """Tokens of the valid area do not depend on what lies in the padding."""
    network = random_network(LOFTR_LITE)
    torch.manual_seed(0)
    coarse0, coarse1 = torch.randn(2, 1, 128, 8, 10)
    mask = torch.zeros(8, 10, dtype=torch.bool)
    mask[:6, :7] = True
    flat = mask.reshape(1, -1)
    first = network.encode_coarse(coarse0, coarse1, flat, flat)
    noise0, noise1 = (torch.where(mask, c, torch.randn_like(c)) for c in (coarse0, coarse1))
    second = network.encode_coarse(noise0, noise1, flat, flat)
    for before, after in zip(first, second, strict=True):
        assert torch.allclose(before[:, flat[0]], after[:, flat[0]], atol=1e-4)


@torch.inference_mode()
def test_matches_of_a_batch_equal_single_matches() -> None:
    network = random_network(LoFTRConfig(
        initial_dim=8, block_dims=(8, 16, 32), coarse=TransformerConfig(32, 4, ("self", "cross")),
        fine=TransformerConfig(8, 2, ("self", "cross")), match=CoarseMatchConfig(threshold=0.0, border=1)))  # fmt: skip
    pairs = [shifted_pair(64, 96, (8, 8), seed) for seed in (0, 1)]
    first, second = (torch.stack([torch.from_numpy(pair[i]).float()[None] / 255 for pair in pairs]) for i in (0, 1))
    both = network(first, second, max_matches=32)
    assert int(both.num_matches.min()) > 0
    for index in (0, 1):
        single = network(first[index : index + 1], second[index : index + 1], max_matches=32)
        assert int(single.num_matches[0]) == int(both.num_matches[index])
        assert torch.allclose(single.keypoints1[0], both.keypoints1[index], atol=1e-3)
        assert torch.allclose(single.scores[0], both.scores[index], atol=1e-5)


def test_full_attention_network_runs() -> None:
    config = LoFTRConfig(
        initial_dim=8, block_dims=(8, 16, 32), coarse=TransformerConfig(32, 4, ("self", "cross"), attention="full"),
        fine=TransformerConfig(8, 2, ("self", "cross"), attention="full"), match=CoarseMatchConfig(threshold=0.0)
    )  # fmt: skip
    network = random_network(config)
    image = torch.rand(1, 1, 64, 96)
    size = torch.tensor([[48, 80]])
    out = network(image, image, size, size, max_matches=32)
    assert bool(torch.isfinite(out.keypoints1).all())
    count = int(out.num_matches[0])
    assert count > 0 and float(out.keypoints0[0, :count, 0].max()) < 80


def test_config_rejects_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="multiple"):
        TransformerConfig(30, 8, ())
    with pytest.raises(ValueError, match="last stage"):
        LoFTRConfig(block_dims=(128, 196, 200))
    with pytest.raises(ValueError, match="its stage"):
        LoFTRConfig(fine=TransformerConfig(64, 8, ()))
    assert COARSE_LOFTR.coarse_stride == 16 and LOFTR_LITE.fine_stride == 2


def test_attention_within_windows_is_linear_attention() -> None:
    torch.manual_seed(6)
    parts = [torch.randn(30, 25, 32) for _ in range(3)]
    expected = linear_attention((parts[0], parts[1], parts[2]), 8, torch.eye(32), None, None)
    assert torch.allclose(window_attention(*parts, n_heads=8), expected, atol=1e-6)


def test_masks_of_padding() -> None:
    grid = Grid(4, 5, torch.tensor([4, 2]), torch.tensor([3, 5]))
    mask = grid.mask()
    assert mask is not None and mask.dtype == torch.bool
    for index, (height, width) in enumerate(((4, 3), (2, 5))):
        expected = torch.zeros(4, 5, dtype=torch.bool)
        expected[:height, :width] = True
        assert torch.equal(mask[index].reshape(4, 5), expected)
    assert grid.interior(1, torch.device("cpu"))[1].sum() == 0
