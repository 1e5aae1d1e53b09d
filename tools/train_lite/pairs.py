"""Training pairs with their ground truth, made in batches where the tiles lie."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.train_lite.geometry import KERNELS, transfer
from tools.train_lite.photometric import Strength, degrade
from tools.train_lite.render import LOOKUP, draw, sample_spectrum, sample_textures, view_points
from tools.train_lite.scene import LEAST_SCALE, Dice, Difficulty, Frame, Scene, View, sample_scene
from tools.train_lite.tiles import Pool

STRIDE = 8
# Of the grey values around a cell, below which nobody could say what it shows.
LEAST_CONTRAST = 3.5 / 255
# Valid sizes are multiples of so many cells: networks that look at squares of cells take no others.
PADDED = 4


@dataclass(frozen=True)
class Shape:
    """Sizes of a batch: views of height and width in pixels, `padded`: share of the views that end in padding."""

    batch: int
    size0: tuple[int, int]
    size1: tuple[int, int]
    padded: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """What the pairs look like."""

    difficulty: Difficulty = field(default_factory=Difficulty)
    strength: Strength = field(default_factory=Strength)
    cross_spectral: float = 0.18


@dataclass(frozen=True)
class Truth:
    """Coarse ground truth between the grids of two views, cells row-major.

    nearest0 `[B,L]`: cell of view 1 nearest to where cell i's pixel really is, known0 says whether it is visible there;
    nearest1 `[B,S]`, known1 likewise from view 1; positive `[B,L]`: the two agree, a match;
    offset `[B,L,2]`: pixels from the nearest cell's pixel to the true point, in view 1.
    """

    nearest0: Tensor
    known0: Tensor
    nearest1: Tensor
    known1: Tensor
    positive: Tensor
    offset: Tensor


@dataclass(frozen=True)
class Pairs:
    """Images `[B,1,H,W]`, cell masks `[B,L]`, `[B,S]` (None: no padding), the truth, and the scene behind it."""

    image0: Tensor
    image1: Tensor
    mask0: Tensor | None
    mask1: Tensor | None
    truth: Truth
    scene: Scene


def _nearest(
    scene: Scene, source: View, target: View, size: tuple[int, int], other: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """For each cell of the source view: the target's nearest cell, whether it is known, the offset in pixels."""
    x, y = view_points(*size, STRIDE, scene.camera.device)
    x, y = x.expand(scene.batch, -1), y.expand(scene.batch, -1)
    there_x, there_y, seen = transfer(scene, source, target, x, y)
    rows, columns = other[0] // STRIDE, other[1] // STRIDE
    half = max(other) / 2
    pixel_x = torch.nan_to_num(there_x * half + (other[1] - 1) / 2, nan=-1e4).clamp(-1e4, 1e4)
    pixel_y = torch.nan_to_num(there_y * half + (other[0] - 1) / 2, nan=-1e4).clamp(-1e4, 1e4)
    column, row = (pixel_x / STRIDE).round(), (pixel_y / STRIDE).round()
    known = seen & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    index = torch.where(known, row * columns + column, torch.zeros_like(row)).long()
    return index, known, torch.stack([pixel_x - STRIDE * column, pixel_y - STRIDE * row], dim=2)


def compile_pairs() -> None:
    """Compiles the expensive formulas of scenes and textures."""
    KERNELS.compile()
    LOOKUP.compile()


def ground_truth(scene: Scene, size0: tuple[int, int], size1: tuple[int, int], seen0: Tensor, seen1: Tensor) -> Truth:
    """The coarse truth of a batch of scenes; seen0, seen1: bool `[B,cells]`, cells that show anything."""
    view0, view1 = scene.view(0), scene.view(1)
    nearest0, known0, offset = _nearest(scene, view0, view1, size0, size1)
    nearest1, known1, _ = _nearest(scene, view1, view0, size1, size0)
    known0 = known0 & seen0 & seen1.gather(1, nearest0)
    known1 = known1 & seen1 & seen0.gather(1, nearest1)
    cells = torch.arange(nearest0.shape[1], device=nearest0.device)
    mutual = (nearest1.gather(1, nearest0) == cells) & known1.gather(1, nearest0)
    return Truth(nearest0, known0, nearest1, known1, known0 & mutual, offset)


def _pad(dice: Dice, image: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Zeroes what lies right of and below a random valid size; returns the image and the mask of its cells."""
    height, width = image.shape[2:]
    rows, columns = height // STRIDE, width // STRIDE
    on = dice.chance(share)
    valid = []
    for count in (rows, columns):
        cells = (dice.uniform(0.6, 1.0) * count / PADDED).round() * PADDED
        valid.append(torch.where(on & dice.chance(0.7), cells, torch.full_like(cells, count)))
    inside_y = torch.arange(rows, device=image.device) < valid[0][:, None]
    inside_x = torch.arange(columns, device=image.device) < valid[1][:, None]
    mask = inside_y[:, :, None] & inside_x[:, None, :]
    pixels = mask.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)[:, None]
    return image * pixels, mask.flatten(1)


def has_content(image: Tensor) -> Tensor:
    """bool `[B,cells]`: within 28 pixels around the cell there is more than one grey value and its rounding."""
    bright = F.max_pool2d(F.max_pool2d(image, STRIDE), 7, 1, 3)
    dark = -F.max_pool2d(F.max_pool2d(-image, STRIDE), 7, 1, 3)
    return (bright - dark > LEAST_CONTRAST).flatten(1)


def frame_of(shape: Shape, tile: int) -> Frame:
    """A view shows a texel of the tile, `tile` texels wide, on at most 1.6 pixels where the zoom leaves a choice."""
    sides = (*shape.size0, *shape.size1)
    aspect = min(shape.size0) / max(shape.size0)
    return Frame(aspect, min(5.0, max(4.0 * LEAST_SCALE, 1.6 * tile / max(sides))))


@torch.no_grad()
def make_pairs(pool: Pool, generator: torch.Generator, shape: Shape, recipe: Recipe) -> Pairs:
    """A batch of pairs; the same generator state gives the same pairs."""
    dice = Dice(generator, pool.table.device, shape.batch)
    scene = sample_scene(dice, recipe.difficulty, frame_of(shape, pool.mipmaps.size))
    textures = sample_textures(dice, scene, pool)
    spectrum = sample_spectrum(dice, recipe.cross_spectral)
    images = []
    for view, size in enumerate((shape.size0, shape.size1)):
        image = draw(pool.mipmaps, scene, scene.view(view), textures.view(view), spectrum.view(view), *size)
        images.append(degrade(dice, image, recipe.strength))
    image0, image1 = images
    mask0: Tensor | None = None
    mask1: Tensor | None = None
    if shape.padded:
        image0, mask0 = _pad(dice, image0, shape.padded)
        image1, mask1 = _pad(dice, image1, shape.padded)
    # Where darkness, a threshold or light leaves nothing in a view, there is nothing to match.
    seen0, seen1 = has_content(image0), has_content(image1)
    if mask0 is not None and mask1 is not None:
        seen0, seen1 = seen0 & mask0, seen1 & mask1
    truth = ground_truth(scene, shape.size0, shape.size1, seen0, seen1)
    return Pairs(image0, image1, mask0, mask1, truth, scene)
