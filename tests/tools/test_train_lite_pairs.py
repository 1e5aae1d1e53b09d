"""Training pairs: the truth lies on the same content, unrelated pairs have none, seeds decide, nothing waits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tools.train_lite.geometry import transfer
from tools.train_lite.mipmaps import build_mipmaps
from tools.train_lite.modality import KINDS, modality
from tools.train_lite.pairs import Pairs, Recipe, Shape, frame_of, has_content, make_pairs
from tools.train_lite.photometric import Strength
from tools.train_lite.procedural import KINDS as DRAWN
from tools.train_lite.procedural import procedural_tile
from tools.train_lite.render import draw, sample_spectrum, sample_textures, view_points
from tools.train_lite.scene import Dice, Difficulty, Frame, constant, sample_scene
from tools.train_lite.similar import group_name, similar_tiles
from tools.train_lite.tiles import Pool

CPU = torch.device("cpu")
SIDE = 96
PLAIN = Difficulty(easy=0.0, negative=0.0, wide_scale=0.0, narrow_overlap=0.0, any_rotation=0.0, steep_rotation=0.0)
TURNED = replace(PLAIN, any_rotation=1.0)
ZOOMED = replace(PLAIN, wide_scale=1.0)


def _pool(tiles: list[np.ndarray], group: list[int] | None = None) -> Pool:
    mipmaps = build_mipmaps(tiles, CPU)
    groups = torch.tensor(group if group is not None else range(len(tiles)))
    return Pool(mipmaps, torch.arange(len(tiles)), len(tiles), groups, similar_tiles(mipmaps, groups))


@pytest.fixture(scope="module")
def drawn() -> Pool:
    return _pool([procedural_tile(seed, 128) for seed in range(8)])


@pytest.fixture(scope="module")
def clouds() -> Pool:
    """Smooth tiles: the same at all magnifications."""
    random = torch.Generator().manual_seed(5)
    noise = F.interpolate(torch.rand(6, 3, 12, 12, generator=random), size=(256, 256), mode="bicubic")
    return _pool([(tile.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy() for tile in noise])


def _dice(seed: int, batch: int) -> Dice:
    return Dice(torch.Generator().manual_seed(seed), CPU, batch)


def _same(first: Pairs, second: Pairs) -> bool:
    return torch.equal(first.image0, second.image0) and torch.equal(first.truth.offset, second.truth.offset)


def _correlation(first: Tensor, second: Tensor, seen: Tensor) -> Tensor:
    """Of the pixels that are seen, for each pair."""
    weight = seen / seen.sum(dim=1, keepdim=True).clamp(min=1)
    first = first - (weight * first).sum(dim=1, keepdim=True)
    second = second - (weight * second).sum(dim=1, keepdim=True)
    product = (weight * first * second).sum(dim=1)
    return product / ((weight * first**2).sum(dim=1) * (weight * second**2).sum(dim=1)).sqrt()


@pytest.mark.parametrize("difficulty", [PLAIN, TURNED, ZOOMED, replace(PLAIN, narrow_overlap=1.0, bounded=1.0)])
def test_true_correspondences_show_the_same_content(clouds: Pool, difficulty: Difficulty) -> None:
    dice = _dice(3, 24)
    scene = sample_scene(dice, difficulty, Frame(1.0, 3.2))
    textures, spectrum = sample_textures(dice, scene, clouds), sample_spectrum(dice, 0.0)
    # One sensor for both views.
    spectrum = replace(spectrum, weight=spectrum.weight[:, :1].expand(-1, 2, -1))
    images = [
        draw(clouds.mipmaps, scene, scene.view(view), textures.view(view), spectrum.view(view), SIDE, SIDE)
        for view in (0, 1)
    ]
    x, y = (axis.expand(24, -1) for axis in view_points(SIDE, SIDE, 1, CPU))
    there_x, there_y, seen = transfer(scene, scene.view(0), scene.view(1), x, y)
    inside = seen & (there_x.abs() < 0.97) & (there_y.abs() < 0.97)
    grid = torch.stack([there_x, there_y], dim=2)[:, None]
    found = F.grid_sample(images[1], grid, align_corners=False, padding_mode="border")[:, 0, 0]
    enough = inside.sum(dim=1) > 200
    assert enough.float().mean() > 0.5
    correlation = _correlation(images[0].flatten(1), found, inside)[enough]
    assert correlation.median() > 0.99
    assert (correlation > 0.9).float().mean() > 0.9


def test_any_rotation_goes_round_and_zoom_reaches_four() -> None:
    scene = sample_scene(_dice(1, 600), replace(TURNED, max_slant_degrees=1.0, wide_scale=1.0), Frame(1.0, 3.2))
    ground = scene.to_image[:, :, 0, :2, :2] / scene.to_image[:, :, 0, 2:, 2:]
    relative = ground[:, 1] @ torch.linalg.inv(ground[:, 0])
    angle = torch.atan2(relative[:, 1, 0], relative[:, 0, 0]).rad2deg()
    quadrants = torch.histc(angle, bins=4, min=-180.0, max=180.0)
    assert (quadrants > 100).all()
    zoom = torch.linalg.det(relative).abs().sqrt().log2()
    assert (zoom > 1.5).float().mean() > 0.05
    assert (zoom < -1.5).float().mean() > 0.05


def test_magnification_stays_below_what_a_tile_can_show() -> None:
    large = frame_of(Shape(1, (768, 1024), (768, 1024)), 1024)
    small = frame_of(Shape(1, (320, 320), (320, 320)), 1024)
    assert large.magnification == pytest.approx(2.4)
    assert small.magnification == 5.0
    assert (large.aspect, small.aspect) == (0.75, 1.0)


def test_two_regions_of_one_tile_do_not_overlap() -> None:
    scene = sample_scene(_dice(2, 400), replace(Difficulty(), negative=1.0, similar=1.0), Frame(1.0, 3.2))
    assert 120 < int(scene.elsewhere.sum()) < 280
    assert torch.equal(scene.elsewhere, ~scene.similar)
    x, y = (axis.expand(400, -1) for axis in view_points(64, 64, 4, CPU))
    related = replace(scene, positive=torch.ones_like(scene.positive))
    there_x, there_y, seen = transfer(related, related.view(0), related.view(1), x, y)
    inside = seen & (there_x.abs() <= 1.0) & (there_y.abs() <= 1.0)
    assert not inside[scene.elsewhere].any()
    assert inside[scene.similar].any()


def test_unrelated_pairs_have_no_matches_and_other_tiles(drawn: Pool) -> None:
    recipe = Recipe(Difficulty(negative=1.0))
    truth = make_pairs(drawn, torch.Generator().manual_seed(4), Shape(16, (64, 64), (64, 64)), recipe).truth
    assert not truth.known0.any()
    assert not truth.positive.any()
    scene = sample_scene(_dice(4, 200), recipe.difficulty)
    tile = sample_textures(_dice(5, 200), scene, drawn).tile
    assert torch.equal(scene.elsewhere, tile[:, 0, 0] == tile[:, 1, 0])
    assert (drawn.similar[tile[:, 0, 0]] == tile[:, 1, :1]).any(dim=1)[scene.similar].all()


def test_similar_tiles_are_of_other_groups_and_no_copies() -> None:
    tiles = [procedural_tile(seed, 128) for seed in (0, 8, 16, 1, 9)]
    pool = _pool([*tiles, np.roll(tiles[0], 30, axis=1)], [0, 0, 1, 2, 3, 4])
    assert (pool.group[pool.similar] != pool.group[:, None]).all()
    # Three tiles are of other groups and no copy; the fourth place is the copy's.
    assert pool.similar[0, :3].sort().values.tolist() == [2, 3, 4]


def test_photographs_of_a_series_are_one_group() -> None:
    assert group_name("train-photo-unknown.webp") == "train-photo-unknown.webp"


def test_where_a_view_shows_nothing_there_is_nothing_to_match() -> None:
    image = torch.full((1, 1, 96, 96), 0.5)
    image[0, 0, 4, 4] = 0.6
    content = has_content(image).view(12, 12)
    assert content[:4, :4].all()
    assert int(content.sum()) == 16
    black = _pool([np.zeros((128, 128, 3), np.uint8) for _ in range(2)])
    recipe = Recipe(PLAIN, Strength(modality=0.0, shade=0.0, noise=0.0, jpeg=0.0), 0.0)
    scene = Shape(4, (64, 64), (64, 64))
    assert not make_pairs(black, torch.Generator().manual_seed(1), scene, recipe).truth.known0.any()


def test_seeds_decide(drawn: Pool) -> None:
    shape = Shape(4, (64, 96), (96, 64), padded=0.5)

    def made(seed: int) -> Pairs:
        return make_pairs(drawn, torch.Generator().manual_seed(seed), shape, Recipe())

    assert _same(made(1), made(1))
    assert not _same(made(1), made(2))


def test_nothing_waits_for_the_device(drawn: Pool) -> None:
    """Tensors without values: whatever would read one on the host raises."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            pairs = make_pairs(drawn, torch.Generator(), Shape(8, (64, 64), (64, 64)), Recipe())
    finally:
        constant.cache_clear()
    assert pairs.image0.shape == (8, 1, 64, 64)


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
def test_every_kind_gives_a_picture(kind: object) -> None:
    assert callable(kind)
    image = torch.rand(3, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    for given in (F.avg_pool2d(image, 5, 1, 2), torch.zeros_like(image), torch.ones_like(image)):
        shown = kind(_dice(2, 3), given)
        assert shown.shape == given.shape
        assert shown.isfinite().all()


def test_the_share_of_changed_views_is_the_recipe_s() -> None:
    assert sum(weight for _, weight in KINDS) == pytest.approx(1.0)
    for batch, repeats in ((2, 200), (64, 10)):
        dice = _dice(6, batch)
        image = torch.rand(batch, 1, 16, 16, generator=dice.generator)
        changed = [(modality(dice, image, 0.35) != image).any(dim=3).any(dim=2).float() for _ in range(repeats)]
        assert 0.25 < float(torch.stack(changed).mean()) < 0.4


@pytest.mark.parametrize("seed", range(len(DRAWN)))
def test_drawn_tiles_of_every_kind(seed: int) -> None:
    tile = procedural_tile(seed, 128)
    assert tile.shape == (128, 128, 3)
    assert tile.dtype == np.uint8
    assert tile.std() > 3
    assert np.array_equal(tile, procedural_tile(seed, 128))
