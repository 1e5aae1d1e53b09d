"""eloftr-lite's own parts: matching by cosines, refinement on the half-resolution map, and both forms of its graphs."""

from __future__ import annotations

import pytest
import torch

from matchrt.export.weights.network import load_network
from matchrt.families.registry import get_spec
from matchrt.models.eloftr.config import ELOFTR_LITE
from matchrt.models.eloftr.half_resolution import (
    BEFORE,
    CELL,
    SIDE,
    STRIDE,
    HalfMatching,
    neighbourhood_offset,
    point_of,
    window_order,
    windows,
)
from matchrt.models.eloftr.network import ELoFTR
from matchrt.models.parts.coarse_matching import Grid, dual_softmax, select_matches
from matchrt.models.parts.coarse_matching_bounded import CosineScores, largest_of_rows
from matchrt.models.parts.config import CoarseMatchConfig

CONFIG = CoarseMatchConfig(threshold=0.01, border=0)


def _features(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randn(2, 6 * 8, 16, generator=generator)
    x1 = x0[:, torch.randperm(48, generator=generator)] + 0.3 * torch.randn(2, 48, 16, generator=generator)
    return 3 * x0, x1


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("padded", [False, True])
def test_confidence_is_the_dual_softmax_of_scaled_cosines(twice: bool, padded: bool) -> None:
    x0, x1 = _features(0)
    mask0, mask1 = torch.ones(2, 48, dtype=torch.bool), torch.ones(2, 48, dtype=torch.bool)
    mask0[:, 40:], mask1[0, 30:] = False, False
    masks = (mask0, mask1) if padded else (None, None)
    scores = CosineScores(12.0)
    scores.twice = twice
    found = scores(x0, x1, (8, 8), *masks)
    cosines = torch.nn.functional.normalize(x0, dim=2) @ torch.nn.functional.normalize(x1, dim=2).transpose(1, 2)
    similarity = 12.0 * cosines
    if padded:
        similarity = similarity.masked_fill(~(mask0[:, :, None] & mask1[:, None]), -1e9)
    expected = dual_softmax(similarity.double()).float()
    inside = mask0[:, :, None] & mask1[:, None] if padded else torch.ones_like(expected, dtype=torch.bool)
    assert torch.allclose(found.value_of(found.order)[inside], expected[inside], atol=2e-5)
    assert torch.allclose(scores.similarity(x0, x1, *masks)[inside], similarity[inside], atol=1e-4)
    best, best1 = found.best_of_rows()
    rows = mask0 if padded else torch.ones(2, 48, dtype=torch.bool)
    assert torch.equal(best1[rows], similarity.argmax(dim=2)[rows])
    mutual = similarity.argmax(dim=1).gather(1, best1) == torch.arange(48)
    assert torch.equal(found.mutual(best, best1)[rows], mutual[rows])
    assert mutual[rows].float().mean() > 0.5


def test_both_forms_select_the_same_matches() -> None:
    x0, x1 = _features(1)
    scores = CosineScores()
    grid, chosen = Grid(6, 8), []
    for twice in (False, True):
        scores.twice = twice
        chosen.append(select_matches(scores(x0, x1, (8, 8)), grid, grid, CONFIG, 64))
    assert torch.equal(chosen[0].index0, chosen[1].index0) and torch.equal(chosen[0].index1, chosen[1].index1)
    assert (chosen[0].scores > 0).sum() > 50


def test_the_largest_of_rows_is_their_maximum() -> None:
    scores = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(2))
    value, place = largest_of_rows(scores, 4)
    assert torch.equal(value, scores.amax(dim=2)) and torch.equal(place, scores.argmax(dim=2))


def test_windows_lie_around_the_cells_point() -> None:
    """A map that holds its own coordinates shows which pixels a window takes."""
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    features = torch.stack([columns, rows])[None]
    cell = torch.tensor([[2 * 8 + 3]])  # row 2, column 3 of a grid of 8 columns: the map's pixel (12, 8)
    inner = windows(features, cell, 8, 0, False)[0, 0].reshape(CELL, CELL, 2)
    assert inner[0, 0].tolist() == [10.0, 6.0] and inner[-1, -1].tolist() == [13.0, 9.0]
    outer = windows(features, cell, 8, 1, True)[0, 0].reshape(SIDE, SIDE, 2)
    assert torch.equal(outer[1:-1, 1:-1], inner)
    corner = windows(features, torch.tensor([[0]]), 8, 1, False)[0, 0]
    assert corner.min() == 0.0  # edges are repeated
    assert point_of(torch.tensor([[BEFORE]]), torch.tensor([[BEFORE]])).tolist() == [[[0.0, 0.0]]]


def test_refinement_finds_a_known_shift() -> None:
    """Image 1 shows image 0's map moved by one pixel right and two down: both points and offsets follow."""
    generator = torch.Generator().manual_seed(3)
    # Each stage reads channels of its own, whose vectors have one length, so that each pixel is most like itself.
    parts = [torch.nn.functional.normalize(torch.randn(1, n, 30, 40, generator=generator), dim=1) for n in (24, 8)]
    codes = torch.cat([14 * parts[0], 8 * parts[1]], dim=1)
    map0, map1 = codes[..., 2:26, 2:34], codes[..., 0:24, 1:33]
    cells = torch.tensor([[2 * 8 + 3, 3 * 8 + 4]])
    matching = HalfMatching(8)
    found0, found1, _ = matching(windows(map0, cells, 8, 0, False), windows(map1, cells, 8, 1, False))
    # Where the chosen pixel's partner lies within image 1's cell, the shift is exact to the spread of the softmax.
    assert torch.allclose(found1 - found0, torch.tensor([2.0, 4.0]).expand_as(found0), atol=0.2)


def test_the_first_stage_takes_the_best_pair_of_the_dual_softmax() -> None:
    """Against both softmaxes as they are written. Image 1's margin counts in them, and is not taken."""
    generator = torch.Generator().manual_seed(8)
    window0, window1 = (torch.randn(1, 200, n, 32, generator=generator) for n in (16, 36))
    scores = (window0[..., :24] * 24**-0.5) @ window1[..., :24].transpose(2, 3)
    confidence = scores.softmax(dim=3) * scores.softmax(dim=2)
    assert torch.allclose(window_order(window0, window1, 8).exp(), confidence, rtol=1e-4)
    inside = confidence.reshape(200, 16, SIDE, SIDE)[..., 1:-1, 1:-1].reshape(200, 256).argmax(dim=1)[None]
    assert (confidence.reshape(200, 576).argmax(dim=1) % 36 // SIDE % (SIDE - 1) == 0).any()  # some are of the margin
    first, second, _ = HalfMatching(8)(window0, window1)
    row, column = inside // 16 // CELL, inside // 16 % CELL
    assert torch.equal(first, point_of(row, column))
    row, column = inside % 16 // CELL, inside % 16 % CELL
    assert (second - point_of(row, column)).abs().max() <= STRIDE


def test_the_second_stage_is_an_expectation_of_offsets() -> None:
    window0, window1 = torch.zeros(1, 1, 16, 8), torch.zeros(1, 1, 36, 8)
    window0[..., 0] = 1.0
    window1[0, 0, (2 + 1) * SIDE + (3 - 1), 0] = 1e3  # one row below and one column left of (2, 3)
    middle = torch.tensor([[2]]), torch.tensor([[3]])
    offset = neighbourhood_offset(window0, window1, torch.tensor([[5]]), *middle, 8)
    assert torch.allclose(offset, torch.tensor([[[-1.0, 1.0]]]))


def test_the_shipped_weights_find_a_shifted_picture() -> None:
    network = load_network(get_spec("eloftr-lite")).network.eval()
    assert isinstance(network, ELoFTR) and network.config.widths == ELOFTR_LITE.widths
    noise = torch.rand(1, 1, 24, 32, generator=torch.Generator().manual_seed(4))
    picture = torch.nn.functional.interpolate(noise, (192, 256), mode="bicubic").clamp(0, 1)
    picture = torch.nn.functional.interpolate(picture, scale_factor=1.5, mode="bilinear")
    first, second = picture[..., 32:224, 32:288], picture[..., 22:214, 48:304]
    with torch.inference_mode():
        found = network(first, second, max_matches=512)
    count = int(found.num_matches)
    shift = (found.keypoints1 - found.keypoints0)[0, :count]
    assert count > 100
    assert ((shift - torch.tensor([-16.0, 10.0])).norm(dim=1) < 1.5).float().mean() > 0.9
