"""The parts of EfficientLoFTR that are computed otherwise than in the official code, each against the plain way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.weights import sharp_state
from torch import Tensor

from matchrt.models.eloftr.aggregated_attention import AggregatedTransformer
from matchrt.models.eloftr.config import ELoFTRConfig
from matchrt.models.eloftr.fine import half_windows, pixel_windows
from matchrt.models.eloftr.rotary import rotated_rows
from matchrt.models.parts.coarse_matching import Grid, TwoProducts, comparable, dual_softmax, select_pairs, similarity
from matchrt.models.parts.config import CoarseMatchConfig

TINY = ELoFTRConfig(widths=(8, 8, 16, 32), blocks=(1, 1, 1, 1), n_heads=2, layer_pairs=2, fine_regress=4)


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mutual_best", [True, False])
def test_all_pairs_are_the_best_of_all_pairs(mutual_best: bool) -> None:
    grid0, grid1 = Grid(8, 12), Grid(12, 8, torch.tensor([12, 8]), torch.tensor([8, 4]))
    confidence = torch.rand(2, 96, 96, generator=torch.Generator().manual_seed(3)) ** (8 if mutual_best else 1)
    config = CoarseMatchConfig(threshold=0.3, border=1, mutual=False)
    matches = select_pairs(TwoProducts(confidence, torch.zeros(0), lambda order: order), grid0, grid1, config, 200)
    for index in range(2):
        inside0, inside1 = grid0.interior(1, confidence.device)[0], grid1.interior(1, confidence.device)[index]
        allowed = confidence[index] * inside0[:, None] * inside1
        expected = allowed.flatten().sort(descending=True)
        count = min(int((expected.values > 0.3).sum()), 200)
        assert int((matches.scores[index] > 0).sum()) == count > 0
        assert torch.equal(matches.scores[index, :count], expected.values[:count])
        chosen = matches.index0[index, :count] * 96 + matches.index1[index, :count]
        assert torch.equal(chosen.sort().values, expected.indices[:count].sort().values)


def test_all_pairs_with_more_slots_than_pairs() -> None:
    config = CoarseMatchConfig(threshold=0.0, border=1, mutual=False)
    confidence = TwoProducts(torch.full((1, 16, 16), 0.5), torch.zeros(0), lambda order: order)
    matches = select_pairs(confidence, Grid(4, 4), Grid(4, 4), config, 100)
    pairs = {(int(i), int(j)) for i, j, s in zip(matches.index0[0], matches.index1[0], matches.scores[0], strict=True)
             if s > 0}  # fmt: skip
    assert len(pairs) == int((matches.scores > 0).sum()) == 16


@torch.inference_mode()
def test_padding_is_as_if_it_were_cut_off() -> None:
    transformer = AggregatedTransformer(TINY)
    transformer.load_state_dict(sharp_state(transformer))
    x0, x1 = _noise(2, 16, 20, 32), _noise(2, 16, 20, 32, seed=1)
    valid0, valid1 = torch.tensor([[12, 20], [16, 8]]), torch.tensor([[16, 12], [8, 20]])
    full0, full1 = transformer(x0, x1, valid0, valid1)
    for index in range(2):
        (h0, w0), (h1, w1) = valid0[index].tolist(), valid1[index].tolist()
        cut0, cut1 = transformer(x0[index : index + 1, :h0, :w0], x1[index : index + 1, :h1, :w1])
        assert torch.allclose(full0[index, :h0, :w0], cut0[0], atol=1e-5)
        assert torch.allclose(full1[index, :h1, :w1], cut1[0], atol=1e-5)
        assert not full0[index, h0:].any() and not full0[index, :, w0:].any()


def test_padding_in_the_similarity_is_a_mask() -> None:
    x0, x1 = 3 * _noise(1, 24, 16), 3 * _noise(1, 20, 16, seed=1)
    mask0, mask1 = torch.arange(24)[None] < 17, torch.arange(20)[None] < 11
    plain = similarity(x0, x1, 0.1, None, None).masked_fill(~(mask0[:, :, None] & mask1[:, None]), -1e9)
    first, second = comparable(x0, x1, 0.1, mask0, mask1)
    actual, expected = dual_softmax(first @ second.transpose(1, 2)), dual_softmax(plain)
    assert torch.allclose(actual[:, :17, :11], expected[:, :17, :11], atol=1e-6)
    assert not actual[:, 17:].any() and not actual[:, :, 11:].any()


@pytest.mark.parametrize("margin", [0, 1])
def test_windows_are_those_of_the_enlarged_map(margin: int) -> None:
    features = _noise(2, 5, 24, 32)
    whole = F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
    side = 8 + 2 * margin
    unfolded = F.unfold(whole, side, stride=8, padding=margin).reshape(2, 5, side**2, 48)
    cells = torch.tensor([[9, 17, 30], [10, 38, 29]])  # away from the edges, as every match is
    windows = pixel_windows(half_windows(features, cells, 8), margin)
    for index in range(2):
        expected = unfolded[index][:, :, cells[index]].permute(2, 1, 0)
        assert torch.allclose(windows[index], expected, atol=1e-5)


def test_windows_of_a_large_batch_are_read_at_their_own_places() -> None:
    """Places beyond 2^24, which float32 does not hold, in the second of two images."""
    side = 2900
    features = torch.arange(2 * side**2, dtype=torch.int32).reshape(2, 1, side, side)
    cell = (side // 4) * (side // 4 - 2) + side // 4 - 2  # near the last pixels
    windows = half_windows(features, torch.tensor([[cell], [cell]]), side // 4)
    assert side**2 < 2**24 < windows[1].min()
    assert torch.equal(windows[1], windows[0] + side**2)
    assert windows[1, 0, :6, 0].diff().eq(1).all()


def test_turned_weights_turn_the_activations() -> None:
    weight, x = _noise(8, 6), _noise(3, 6, seed=1)
    pairs = F.linear(x, weight).reshape(3, 4, 2)
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=2).reshape(3, 8)
    assert torch.allclose(F.linear(x, rotated_rows(weight)), turned)


def test_config_rejects_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="n_heads"):
        ELoFTRConfig(n_heads=6)
    with pytest.raises(ValueError, match="fine_regress"):
        ELoFTRConfig(fine_regress=64)
    with pytest.raises(ValueError, match="border"):
        ELoFTRConfig(match=CoarseMatchConfig(border=0))
