"""Draws the views of scenes from texture tiles, with mipmaps against aliasing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tools.train_lite.geometry import KERNELS, on_ground, to_layer
from tools.train_lite.mipmaps import MIP_LEVELS, Mipmaps
from tools.train_lite.scene import Dice, Scene, View, constant
from tools.train_lite.tiles import Pool

# Outline values per unit of alpha: patch edges are about one pixel soft.
EDGE_SHARPNESS = 200.0
# Terms of the random function of colour.
WAVES = 4


@dataclass(frozen=True)
class Textures:
    """Which tile each layer of each view shows: tile `[B,2,layers]` and where on it `shift [B,layers,2]`.

    background `[B,2]`: the grey value behind a bounded ground.
    """

    tile: Tensor
    shift: Tensor
    background: Tensor

    def view(self, index: int) -> Textures:
        """The same without the view axis: tile `[B,layers]`, background `[B]`."""
        return Textures(self.tile[:, index], self.shift, self.background[:, index])


@dataclass(frozen=True)
class Spectrum:
    """How colours become grey, the first axis after the batch being the view.

    weight `[B,2,3]`: a channel mix; wave_*: a random smooth function of the colour, as another sensor might see it;
    waves: bool `[B,2]`, which of the two is used. `view` takes one view out.
    """

    weight: Tensor
    wave_weight: Tensor
    wave_phase: Tensor
    wave_amplitude: Tensor
    waves: Tensor

    def view(self, index: int) -> Spectrum:
        """The same without the view axis."""
        return Spectrum(
            self.weight[:, index],
            self.wave_weight[:, index],
            self.wave_phase[:, index],
            self.wave_amplitude[:, index],
            self.waves[:, index],
        )


def sample_textures(dice: Dice, scene: Scene, pool: Pool) -> Textures:
    """Draws tiles from the pool's table, in which likelier tiles stand more often.

    Patches often show the ground's own tile. Unrelated views show another tile, one of similar style, or (where the
    scene says `elsewhere`) the same tile in another place.
    """
    layers, table = scene.layers, pool.table
    drawn = table[(dice.uniform(0.0, 1.0, 2, layers) * len(table)).long().clamp(max=len(table) - 1)]
    tile = drawn[:, :1].expand(-1, 2, -1).clone()
    own = dice.chance(0.35, layers)
    tile = torch.where(own[:, None], tile[:, :, :1], tile)
    choice = (dice.uniform(0.0, 1.0, layers) * pool.similar.shape[1]).long().clamp(max=pool.similar.shape[1] - 1)
    alike = pool.similar[tile[:, 0]].gather(2, choice[:, :, None])[:, :, 0]
    # A tile of the same photograph, drawn by chance, is related.
    other = torch.where(pool.group[drawn[:, 1]] == pool.group[tile[:, 0]], alike, drawn[:, 1])
    other = torch.where(scene.similar[:, None], alike, other)
    tile[:, 1] = torch.where((scene.positive | scene.elsewhere)[:, None], tile[:, 1], other)
    shift = dice.uniform(-1.0, 1.0, layers, 2)
    shift[:, 0] = 0.0
    grey = dice.uniform(0.0, 1.0, 2)
    return Textures(tile, shift, torch.where(dice.chance(0.6, 2), 0.0, grey))


def sample_spectrum(dice: Dice, cross_spectral: float) -> Spectrum:
    """Draws the grey mixes; `cross_spectral` is the share of views seen through a random function of colour."""
    luma = constant((0.299, 0.587, 0.114), dice.device)
    random_mix = dice.uniform(0.0, 1.0, 2, 3) ** 2
    random_mix = random_mix / random_mix.sum(dim=2, keepdim=True).clamp(min=1e-3)
    weight = torch.where(dice.chance(0.5, 2, 1), luma.expand_as(random_mix), random_mix)
    return Spectrum(
        weight=weight,
        wave_weight=dice.normal(3.0, 2, WAVES, 3),
        wave_phase=dice.uniform(0.0, 6.2832, 2, WAVES),
        wave_amplitude=dice.uniform(0.3, 1.0, 2, WAVES),
        waves=dice.chance(cross_spectral, 2),
    )


def _grey(red: Tensor, green: Tensor, blue: Tensor, spectrum: Spectrum) -> Tensor:
    """Colours `[B,N]` in 0..1 -> grey as the view's sensor sees them."""
    weight = spectrum.weight[:, :, None]
    mix = weight[:, 0] * red + weight[:, 1] * green + weight[:, 2] * blue
    total = torch.zeros_like(mix)
    for index in range(WAVES):
        wave = spectrum.wave_weight[:, index, :, None]
        phase = wave[:, 0] * red + wave[:, 1] * green + wave[:, 2] * blue + spectrum.wave_phase[:, index, None]
        total = total + spectrum.wave_amplitude[:, index, None] * phase.sin()
    other = 0.5 + 0.5 * total / spectrum.wave_amplitude.sum(dim=1)[:, None]
    return torch.where(spectrum.waves[:, None], other, mix)


def _mirror(u: Tensor) -> Tensor:
    """Coordinates of a tiling that repeats mirrored -> 0..1 of one tile."""
    turn = torch.remainder(u + 1.0, 4.0)
    return torch.where(turn > 2.0, 4.0 - turn, turn) * 0.5


def _texel(mipmaps: Mipmaps, start: Tensor, level: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bilinear colour of u, v (0..1) at an integer mipmap level `[B,N]`; start `[B,1]`: where the tile begins."""
    size = mipmaps.size >> level
    # Levels lie behind each other: size^2 * (1 + 1/4 + ...) = (4 size^2 - 4 level size^2) / 3.
    begin = start + (4 * (mipmaps.size * mipmaps.size - size * size)) // 3
    last = (size - 1).float()
    x = (u * size - 0.5).clamp(min=0.0).minimum(last)
    y = (v * size - 0.5).clamp(min=0.0).minimum(last)
    x0, y0 = x.long(), y.long()
    x1, y1 = (x0 + 1).minimum(size - 1), (y0 + 1).minimum(size - 1)
    fx, fy = x - x0, y - y0
    red = green = blue = torch.zeros_like(x)
    for row, column, weight in (
        (y0, x0, (1 - fy) * (1 - fx)),
        (y0, x1, (1 - fy) * fx),
        (y1, x0, fy * (1 - fx)),
        (y1, x1, fy * fx),
    ):
        packed = mipmaps.texels[begin + row * size + column]
        red = red + weight * (packed & 255)
        green = green + weight * ((packed >> 8) & 255)
        blue = blue + weight * ((packed >> 16) & 255)
    return red / 255.0, green / 255.0, blue / 255.0


def _footprint(u: Tensor, v: Tensor, height: int, width: int) -> Tensor:
    """How far a step of one pixel goes on the texture, `[B,N]`."""
    u, v = u.view(-1, height, width), v.view(-1, height, width)
    along = ((u[:, :, 1:] - u[:, :, :-1]).square() + (v[:, :, 1:] - v[:, :, :-1]).square()).sqrt()
    down = ((u[:, 1:] - u[:, :-1]).square() + (v[:, 1:] - v[:, :-1]).square()).sqrt()
    along = torch.cat([along, along[:, :, -1:]], dim=2)
    down = torch.cat([down, down[:, -1:]], dim=1)
    # Between the larger and the mean footprint: foreshortened texture keeps some detail along its long side.
    return (0.65 * torch.maximum(along, down) + 0.35 * torch.minimum(along, down)).flatten(1)


def view_points(height: int, width: int, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """p of every `step`-th pixel, row-major: x, y `[1, height/step * width/step]`."""
    half = max(height, width) / 2
    y = (torch.arange(0, height, step, device=device) - (height - 1) / 2) / half
    x = (torch.arange(0, width, step, device=device) - (width - 1) / 2) / half
    grid_x, grid_y = torch.meshgrid(x, y, indexing="xy")
    return grid_x.reshape(1, -1), grid_y.reshape(1, -1)


def _colour(
    mipmaps: Mipmaps, u: Tensor, v: Tensor, start: Tensor, shift: Tensor, spectrum: Spectrum, height: int, width: int
) -> Tensor:
    """Grey value `[B,N]` of a layer's points u, v; start `[B,1]`: the tile, shift `[B,2]`: where on it."""
    footprint = _footprint(u.clamp(-50.0, 50.0), v.clamp(-50.0, 50.0), height, width)
    level = torch.log2((footprint * (mipmaps.size / 2)).clamp(min=1.0)).clamp(max=MIP_LEVELS - 1.001)
    lower = level.floor()
    blend = level - lower
    u, v = _mirror(u + shift[:, 0, None]), _mirror(v + shift[:, 1, None])
    near = _texel(mipmaps, start, lower.long(), u, v)
    far = _texel(mipmaps, start, lower.long() + 1, u, v)
    red, green, blue = (a + blend * (b - a) for a, b in zip(near, far, strict=True))
    return _grey(red, green, blue, spectrum)


class Lookup:
    """The texture look-up; `compile` makes one kernel of some two hundred."""

    def __init__(self) -> None:
        self.colour: Callable[..., Tensor] = _colour

    def compile(self) -> None:
        """Compiles it for every shape that comes."""
        self.colour = torch.compile(_colour, dynamic=False)


LOOKUP = Lookup()


def draw(
    mipmaps: Mipmaps,
    scene: Scene,
    view: View,
    textures: Textures,
    spectrum: Spectrum,
    height: int,
    width: int,
) -> Tensor:
    """Grey view `[B,1,height,width]` in 0..1 before any photometric change; textures and spectrum of this view."""
    x, y = view_points(height, width, 1, mipmaps.texels.device)
    x, y = x.expand(scene.batch, -1), y.expand(scene.batch, -1)
    image = torch.zeros_like(x)
    for layer in range(scene.layers):
        u, v, front = to_layer(scene, view, layer, x, y)
        start = textures.tile[:, layer, None] * mipmaps.stride
        colour = LOOKUP.colour(mipmaps, u, v, start, textures.shift[:, layer], spectrum, height, width)
        if layer == 0:
            ground = (on_ground(scene, u, v) * EDGE_SHARPNESS + 0.5).clamp(0.0, 1.0)
            background = textures.background[:, None]
            image = background + ground * (colour - background)
            continue
        alpha = (KERNELS.outline(scene, layer, u, v) * EDGE_SHARPNESS + 0.5).clamp(0.0, 1.0)
        alpha = alpha * (front & view.active[:, layer, None])
        image = image + alpha * (colour - image)
    return image.view(scene.batch, 1, height, width)
