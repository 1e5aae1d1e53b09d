"""Scores from how well the matches around a match agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from matchrt.export.weights.network import load_network
from matchrt.families.registry import get_spec
from matchrt.models.eloftr.affine_fits import Field, fit
from matchrt.models.eloftr.config import SCORE_REACH
from matchrt.models.eloftr.network import ELoFTR
from matchrt.models.eloftr.rescoring import CANDIDATE, EVIDENCE, Rescoring, evidence, placed, presence
from matchrt.models.parts.coarse_matching import Grid

GRID = Grid(24, 32)
# Rotated by half a turn and enlarged, sheared, shifted: pixels of image 1 from pixels of image 0.
MAPS = {
    "shift": ([[1.0, 0.0], [0.0, 1.0]], [40.0, -24.0]),
    "half turn": ([[-1.5, 0.0], [0.0, -1.5]], [300.0, 200.0]),
    "shear": ([[0.8, 0.4], [-0.1, 1.2]], [3.0, 90.0]),
}


def _matches(name: str, empty: int = 50) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points of all inner cells under an affine map, their confidence, their cells; then empty slots."""
    generator = torch.Generator().manual_seed(1)
    rows, columns = torch.meshgrid(torch.arange(2, 22), torch.arange(2, 30), indexing="ij")
    cells = (rows * 32 + columns).flatten()
    first = 8.0 * torch.stack([columns.flatten(), rows.flatten()], dim=1)
    first += torch.randint(-2, 2, first.shape, generator=generator) * 2
    turn, shift = (torch.tensor(part) for part in MAPS[name])
    confidence = torch.linspace(0.9, 0.2, len(cells))
    order = torch.randperm(len(cells), generator=generator)
    first, cells = first[order], cells[order]
    second = first @ turn.T + shift
    slots = torch.nn.functional.pad
    points = (slots(first, (0, 0, 0, empty), value=7.0), slots(second, (0, 0, 0, empty), value=9.0))
    return (
        points[0][None],
        points[1][None],
        slots(confidence, (0, empty))[None],
        slots(cells, (0, empty), value=767)[None],
    )


def _moved(second: Tensor, wrong: Tensor, pixels: float) -> Tensor:
    angle = torch.rand(len(wrong), generator=torch.Generator().manual_seed(2)) * 6.28
    result = second.clone()
    result[0, wrong] += pixels * torch.stack([angle.cos(), angle.sin()], dim=1)
    return result


def test_a_fit_is_the_least_squares_one() -> None:
    """Against numpy's solution, with the ridge as further equations."""
    generator = torch.Generator().manual_seed(7)
    first, second, confidence, cells = (
        part.double() if part.is_floating_point() else part for part in _matches("shear")
    )
    second = second + torch.randn(second.shape, generator=generator, dtype=torch.float64)
    field = Field.of(first, second, confidence, cells, GRID)
    found = fit(field, field.confidence, (6, 3)).residual[0, 1, :, 11, 15]
    rows, columns = (torch.div(cells[0], 32, rounding_mode="floor") - 11, cells[0] % 32 - 15)
    near = (rows.abs() <= 3) & (columns.abs() <= 3) & (confidence[0] > 0)
    own = near & (rows == 0) & (columns == 0)
    near &= ~own
    weight = confidence[0, near]
    points, places = first[0, near] / 8, second[0, near] / 8
    middle, aim = ((weight[:, None] * part).sum(0) / weight.sum() for part in (points, places))
    left = torch.cat([(points - middle) * weight.sqrt()[:, None], 0.5**0.5 * torch.eye(2, dtype=torch.float64)])
    right = torch.cat([(places - aim) * weight.sqrt()[:, None], torch.zeros(2, 2, dtype=torch.float64)])
    turn = torch.linalg.lstsq(left, right).solution
    expected = second[0, own][0] - 8 * (aim + (first[0, own][0] / 8 - middle) @ turn)
    assert torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_matches_of_an_affine_map_have_no_distance_from_it(name: str) -> None:
    first, second, confidence, cells = _matches(name)
    field = Field.of(first, second, confidence, cells, GRID)
    found = fit(field, field.confidence, (6,)).distance.flatten(1).gather(1, cells)
    assert found[0, :-50].sqrt().max() < 1.0  # the ridge keeps a little
    assert found[0, :-50].sqrt().median() < 0.3


def test_a_wrong_match_lies_as_far_from_the_map_as_it_was_moved() -> None:
    first, second, confidence, cells = _matches("shear")
    wrong = torch.arange(5, cells.shape[1] - 50, 37)
    field = Field.of(first, _moved(second, wrong, 60.0), confidence, cells, GRID)
    far = fit(field, field.confidence, (3,)).distance.flatten(1).gather(1, cells)[0].sqrt()
    assert far[wrong].min() > 45
    # The iterations take the wrong matches out of their neighbours' fits.
    found = evidence(field).flatten(2)[0].T[cells[0]]
    right = torch.ones(cells.shape[1], dtype=torch.bool)
    right[wrong] = right[-50:] = False
    assert found[right, 4].exp().sub(1).quantile(0.95) < 2.0
    assert found[wrong, 4].exp().sub(1).min() > 45


def test_order_and_empty_slots_change_nothing() -> None:
    first, second, confidence, cells = _matches("half turn")
    order = torch.randperm(cells.shape[1], generator=torch.Generator().manual_seed(4))
    whole = evidence(Field.of(first, second, confidence, cells, GRID))
    mixed = evidence(Field.of(first[:, order], second[:, order], confidence[:, order], cells[:, order], GRID))
    assert whole.shape[1] == EVIDENCE and torch.equal(whole, mixed)
    _, scores = Rescoring()(first, second, confidence, cells, GRID)
    assert (scores[0, :-50] > 0).all() and (scores[0, -50:] == 0).all()
    assert torch.isfinite(whole).all()


def test_no_match_and_a_lonely_one_have_finite_scores() -> None:
    first, second, confidence, cells = _matches("shift")
    places, none = Rescoring()(first, second, 0 * confidence, cells, GRID)
    assert (none == 0).all() and torch.equal(places, second)
    places, lonely = Rescoring()(first[:, :1], 1e4 * second[:, :1], confidence[:, :1], cells[:, :1], GRID)
    assert 0 < lonely.item() < 1 and torch.equal(places, 1e4 * second[:, :1])


@pytest.mark.parametrize("name", MAPS)
def test_the_shipped_weights_prefer_matches_that_agree(name: str) -> None:
    """At the same confidences."""
    network = load_network(get_spec("eloftr-lite")).network
    assert isinstance(network, ELoFTR) and network.rescoring is not None
    first, second, confidence, cells = _matches(name)
    wrong = torch.arange(3, cells.shape[1] - 50, 5)
    right = torch.ones(cells.shape[1], dtype=torch.bool)
    right[wrong] = right[-50:] = False
    with torch.inference_mode():
        scores = network.rescoring(first, _moved(second, wrong, 30.0), confidence, cells, GRID)[1][0]
    assert scores[right].quantile(0.02) > 0.5 > scores[wrong].quantile(0.98)


@pytest.mark.parametrize("name", MAPS)
def test_noise_of_places_averages_out_and_wrong_matches_stay(name: str) -> None:
    first, second, confidence, cells = _matches(name)
    noise = torch.randn(second.shape, generator=torch.Generator().manual_seed(5))
    noise[0, -50:] = 0
    wrong = torch.arange(3, cells.shape[1] - 50, 17)
    given = _moved(second + noise, wrong, 40.0)
    scores = torch.where(confidence > 0, torch.full_like(confidence, 0.9), confidence)
    scores[0, wrong] = 0.05
    found = placed(Field.of(first, given, confidence, cells, GRID), given, scores, cells)
    right = torch.ones(cells.shape[1], dtype=torch.bool)
    right[wrong] = right[-50:] = False
    error = (found - second)[0, right].norm(dim=1)
    assert error.pow(2).mean().sqrt() < 0.75 * noise[0, right].norm(dim=1).pow(2).mean().sqrt()
    assert (found - given)[0, wrong].norm(dim=1).max() < 0.4
    assert (found - given).norm(dim=2).max() <= 1.4
    assert torch.equal(found[0, -50:], given[0, -50:])


def test_places_keep_their_digits() -> None:
    """float32 against float64: half of what engines may differ by (1e-3 px)."""
    first, second, confidence, cells = _matches("half turn")
    second = second + torch.randn(second.shape, generator=torch.Generator().manual_seed(6))
    parts = (first, second, confidence)
    exact, found = (
        placed(Field.of(*values, cells, GRID), *values[1:], cells) for values in ([p.double() for p in parts], parts)
    )
    assert (found - exact).abs().max() < 5e-4


def test_a_match_reaches_as_far_as_the_configuration_says() -> None:
    """In float64. The rest, below 1e-5, is the small number that keeps divisions finite."""
    first, second, confidence, cells = _matches("shift")
    first, second, confidence = first.double(), second.double(), confidence.double()
    row = evidence(Field.of(first, second, confidence, cells, GRID))[0, :, 11]
    moved = second.clone()
    left = (cells[0, :-50] == 11 * 32 + 2).nonzero()[0, 0]
    moved[0, left] += 5.0
    other = evidence(Field.of(first, moved, confidence, cells, GRID))[0, :, 11]
    changed = ((row - other).abs().amax(dim=0) > 1e-5).nonzero()[:, 0]
    assert 2 + 6 < int(changed.max()) <= 2 + SCORE_REACH / 8


def test_candidates_fade_in() -> None:
    """What comes just above the least confidence by rounding counts nothing yet."""
    weak = presence(torch.tensor([[0.9, 1.025 * CANDIDATE, CANDIDATE, 0.0, 0.0]]))[0]
    assert weak.tolist() == pytest.approx([1, 0.5, 0, 0, 0], abs=1e-4)
