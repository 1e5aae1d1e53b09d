"""Views as other sensors would show them: thermal, map, events, scans, night, haze, and simpler changes of kind.

Each function takes grey images `[n,1,H,W]` in 0..1, sides multiples of 8, and returns such images. Only a slice of the
batch passes through each: a picture costs what its own kind costs, and sizes never depend on values on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.train_lite.scene import Dice

CURVE_KNOTS = 8
HOT_SPOTS = 3
LIGHTS = 8
LABELS = 6


def _pick(condition: Tensor, changed: Tensor, image: Tensor) -> Tensor:
    return torch.where(condition[:, None, None, None], changed, image)


def _number(dice: Dice, low: float, high: float) -> Tensor:
    """Uniform in low..high, one for each picture, `[n,1,1,1]`."""
    return dice.uniform(low, high, 1, 1, 1)


def _grain(dice: Dice, image: Tensor) -> Tensor:
    """White noise of deviation 1."""
    return dice.normal(1.0, 1, *image.shape[2:])


def _axes(image: Tensor) -> tuple[Tensor, Tensor]:
    """x `[1,1,1,W]` and y `[1,1,H,1]` in -1..1."""
    height, width = image.shape[2:]
    x = torch.linspace(-1.0, 1.0, width, device=image.device)
    y = torch.linspace(-1.0, 1.0, height, device=image.device)
    return x[None, None, None, :], y[None, None, :, None]


def _soft(image: Tensor, passes: int) -> Tensor:
    """Nearly Gaussian blur of deviation sqrt(2 passes)."""
    for _ in range(passes):
        image = F.avg_pool2d(image, 5, 1, 2, count_include_pad=False)
    return image


def _coarse(image: Tensor, factor: int, passes: int = 0) -> Tensor:
    """As a sensor of a `factor`-th of the resolution sees it; `passes` blur that smaller picture."""
    small = _soft(F.avg_pool2d(image, factor), passes)
    return F.interpolate(small, scale_factor=float(factor), mode="bilinear", align_corners=False)


def stretch(image: Tensor) -> Tensor:
    """Mean 0.5, contrast of a normal photograph."""
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    deviation = image.std(dim=(1, 2, 3), keepdim=True).clamp(min=0.02)
    return ((image - mean) / deviation * 0.2 + 0.5).clamp(0.0, 1.0)


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the next pixel along x and y."""
    dx = F.pad(image[..., 1:] - image[..., :-1], (0, 1, 0, 0))
    dy = F.pad(image[..., 1:, :] - image[..., :-1, :], (0, 0, 0, 1))
    return dx, dy


def _curve(dice: Dice, image: Tensor, low: float, high: float) -> Tensor:
    """A smooth curve through CURVE_KNOTS random values: it rises and falls."""
    knots = dice.uniform(low, high, CURVE_KNOTS)
    place = (image.clamp(0.0, 1.0) * (CURVE_KNOTS - 1)).flatten(1)
    left = place.floor().clamp(max=CURVE_KNOTS - 2)
    rest = place - left
    rest = rest * rest * (3.0 - 2.0 * rest)
    first, second = knots.gather(1, left.long()), knots.gather(1, left.long() + 1)
    return (first + rest * (second - first)).view(image.shape)


def _spots(dice: Dice, image: Tensor, count: int, radius: tuple[float, float]) -> Tensor:
    """Sum of `count` round spots of random place, brightness and radius (units of half the height)."""
    x, y = _axes(image)
    height, width = image.shape[2:]
    centre_x, centre_y = dice.uniform(-1.0, 1.0, count, 1, 1), dice.uniform(-1.0, 1.0, count, 1, 1)
    size = torch.exp(dice.uniform(math.log(radius[0]), math.log(radius[1]), count, 1, 1))
    distance = ((x - centre_x) * (width / height)).square() + (y - centre_y).square()
    return (dice.uniform(0.2, 1.0, count, 1, 1) * torch.exp(-distance / size.square())).sum(dim=1, keepdim=True)


def inverted(_: Dice, image: Tensor) -> Tensor:
    """The negative."""
    return 1.0 - image


def waves(dice: Dice, image: Tensor) -> Tensor:
    """An intensity curve that goes up and down."""
    turns, phase = _number(dice, 0.7, 2.2), _number(dice, 0.0, 2 * math.pi)
    return stretch(0.5 + 0.5 * torch.sin(math.pi * turns * image + phase))


def edges(dice: Dice, image: Tensor) -> Tensor:
    """Strength of the edges, bright or dark, as they are or as drawn lines."""
    image = torch.lerp(image, _soft(image, 1), _number(dice, 0.0, 1.0))
    dx, dy = _gradient(image)
    strength = (dx.square() + dy.square() + 1e-8).sqrt()
    strength = strength / (4 * strength.mean(dim=(1, 2, 3), keepdim=True) + 1e-3)
    drawn = (6.0 * (strength - _number(dice, 0.4, 0.9)) + 0.5).clamp(0.0, 1.0)
    strength = _pick(dice.chance(0.4), drawn, strength.clamp(max=1.0))
    return _pick(dice.chance(0.5), 1.0 - strength, strength)


def local_contrast(_: Dice, image: Tensor) -> Tensor:
    """Differences from the mean over about 24 pixels."""
    return (0.5 + 2.0 * (image - _coarse(image, 8, 1))).clamp(0.0, 1.0)


def few_levels(dice: Dice, image: Tensor) -> Tensor:
    """Flat areas of few grey levels."""
    levels = _number(dice, 2.0, 7.0).floor()
    return (_soft(stretch(image), 1) * levels).round() / levels


def thermal(dice: Dice, image: Tensor) -> Tensor:
    """Warmth: materials in a new order, little texture, haloes, hot spots, a coarse and noisy sensor."""
    image = stretch(image)
    smooth = torch.lerp(image, _soft(image, 2), _number(dice, 0.4, 1.0))
    low = _number(dice, 0.0, 1.0)
    band = torch.sigmoid((smooth - low) / 0.06) * torch.sigmoid((low + _number(dice, 0.15, 0.6) - smooth) / 0.06)
    warmth = smooth + band * (1.0 - 2.0 * smooth)
    warmth = warmth.clamp(1e-3, 1.0) ** torch.exp(_number(dice, -0.7, 0.7))
    warmth = _pick(dice.chance(0.5), 1.0 - warmth, warmth)
    around = _coarse(warmth, 8, 2)
    # Texture weighs less against large areas, or more (the halo of the sensor's own filters).
    warmth = around + _number(dice, 0.5, 1.5) * (warmth - around)
    hot = _spots(dice, image, HOT_SPOTS, (0.01, 0.15))
    warmth = warmth + _pick(dice.chance(0.4), hot, torch.zeros_like(hot))
    warmth = _pick(dice.chance(0.4), _coarse(warmth, 2), warmth)
    warmth = _pick(dice.chance(0.2), _coarse(warmth, 4), warmth)
    columns = dice.normal(1.0, 1, 1, image.shape[3])
    warmth = warmth + _number(dice, 0.0, 0.03) * _grain(dice, image) + _number(dice, 0.0, 0.02) * columns
    return (0.5 + _number(dice, 0.4, 1.6) * (stretch(warmth) - 0.5)).clamp(0.0, 1.0)


def map_like(dice: Dice, image: Tensor) -> Tensor:
    """Flat areas, mostly light, with lines along their borders and labels that the ground does not have."""
    image = stretch(image)
    smooth = stretch(torch.lerp(_soft(image, 2), _soft(image, 5), _number(dice, 0.0, 1.0)))
    segment = (smooth * _number(dice, 2.5, 6.0) + _number(dice, 0.0, 1.0)).floor()
    # A hash of the segment's number: its colour says nothing about the brightness there.
    colour = torch.remainder(torch.sin(segment * 12.9898 + _number(dice, 0.0, 6.28)) * 43758.547, 1.0)
    floor = _number(dice, 0.0, 0.9)
    flat = floor + (1.0 - floor) * colour
    thin = (_gradient(segment)[0].abs() + _gradient(segment)[1].abs()).clamp(max=1.0)
    line = _pick(dice.chance(0.5), F.max_pool2d(thin, 3, 1, 1), thin)
    # Light lines need areas that are not.
    light = dice.chance(0.4) & (floor < 0.5).flatten()
    ink = _pick(light, torch.ones_like(flat), _number(dice, 0.0, 0.6))
    drawn = flat + line * _number(dice, 0.4, 1.0) * (ink - flat)
    x, y = _axes(image)
    aside = (x - dice.uniform(-1.0, 1.0, LABELS, 1, 1)).abs() < dice.uniform(0.04, 0.2, LABELS, 1, 1)
    above = (y - dice.uniform(-1.0, 1.0, LABELS, 1, 1)).abs() < dice.uniform(0.012, 0.04, LABELS, 1, 1)
    label = (aside & above & dice.chance(0.5, LABELS, 1, 1)).any(dim=1, keepdim=True)
    height, width = image.shape[2:]
    letters = dice.chance(0.45, 1, height // 2, width // 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return torch.where(label & letters, _number(dice, 0.0, 0.5), drawn)


def events(dice: Dice, image: Tensor) -> Tensor:
    """An event camera: the sign of the change as the camera moves, where it is large, on a plain ground."""
    x, y = _axes(image)
    dx, dy = _gradient((_soft(stretch(image), 1) + 0.1).log())
    angle, zoom = _number(dice, 0.0, 2 * math.pi), dice.normal(0.7, 1, 1, 1)
    change = dx * (angle.cos() + zoom * x) + dy * (angle.sin() + zoom * y)
    change = change / change.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-5)
    change = change + _number(dice, 0.1, 0.7) * _grain(dice, image)
    threshold = _number(dice, 0.6, 1.8)
    ground = _pick(dice.chance(0.5), _number(dice, 0.0, 1.0).round(), _number(dice, 0.3, 0.7))
    up = torch.remainder(ground + _number(dice, 0.3, 0.7), 1.0)
    down = torch.remainder(ground + _number(dice, 0.3, 0.7), 1.0)
    picture = torch.where(change > threshold, up, ground)
    return torch.where(change < -threshold, down, picture)


def scan(dice: Dice, image: Tensor) -> Tensor:
    """CT and MR: a window of intensities through a curve that rises and falls, an uneven field, speckle."""
    image = stretch(image)
    smooth = torch.lerp(image, _soft(image, 1), _number(dice, 0.0, 1.0))
    window = ((smooth - _number(dice, 0.0, 0.35)) / _number(dice, 0.4, 0.9)).clamp(0.0, 1.0)
    picture = _curve(dice, window, 0.0, 1.0)
    x, y = _axes(image)
    field = _number(dice, -0.5, 0.5) * x + _number(dice, -0.5, 0.5) * y + _number(dice, -0.4, 0.2) * (x * x + y * y)
    picture = picture * field.exp()
    speckle = _soft(_grain(dice, image), 1) * 3.0
    picture = picture * (1.0 + _pick(dice.chance(0.3), 0.3 * speckle, torch.zeros_like(speckle)))
    picture = (picture.square() + (_number(dice, 0.0, 0.05) * _grain(dice, image)).square()).sqrt()
    return picture.clamp(0.0, 1.0)


def night(dice: Dice, image: Tensor) -> Tensor:
    """Little light, lamps with their glow, noise, and a gain that brings some of it back."""
    dark = image.clamp(1e-4, 1.0) ** _number(dice, 1.0, 2.2)
    light = _number(dice, 0.05, 0.25) + _number(dice, 0.0, 0.6) * _spots(dice, image, 3, (0.2, 0.8))
    lamps = _spots(dice, image, LIGHTS, (0.008, 0.04))
    lamps = lamps + 0.25 * _coarse(lamps, 8, 2)
    dark = dark * light + _pick(dice.chance(0.7), lamps, torch.zeros_like(lamps))
    dark = dark + (0.02 * dark.clamp(min=0.0).sqrt() + _number(dice, 0.002, 0.012)) * _grain(dice, image)
    return (dark * _number(dice, 1.5, 5.0)).clamp(1e-4, 1.0) ** _number(dice, 0.6, 1.0)


def weather(dice: Dice, image: Tensor) -> Tensor:
    """Haze that grows in one direction, or rain."""
    x, y = _axes(image)
    angle = _number(dice, 0.0, 2 * math.pi)
    depth = (0.5 + 0.5 * (angle.cos() * x + angle.sin() * y)).clamp(min=0.0)
    clear = torch.exp(-_number(dice, 0.4, 2.2) * (0.3 + depth))
    hazy = image * clear + _number(dice, 0.4, 1.0) * (1.0 - clear)
    drops = (_grain(dice, image) > 2.9).float()
    streaks = F.avg_pool2d(drops, (17, 1), 1, (8, 0)) * 6.0
    rainy = hazy + (_number(dice, 0.2, 0.8) * streaks).clamp(max=0.6)
    return _pick(dice.chance(0.4), rainy, hazy).clamp(0.0, 1.0)


# Each kind with its share of the changed views.
KINDS: tuple[tuple[Callable[[Dice, Tensor], Tensor], float], ...] = (
    (inverted, 0.08),
    (waves, 0.08),
    (edges, 0.10),
    (local_contrast, 0.05),
    (few_levels, 0.05),
    (thermal, 0.18),
    (map_like, 0.12),
    (events, 0.11),
    (scan, 0.12),
    (night, 0.08),
    (weather, 0.03),
)


def modality(dice: Dice, image: Tensor, share: float) -> Tensor:
    """Shows `share` of the views as another sensor would.

    Which views: a random order of the batch, cut into one slice for each kind; lengths are rounded up and the excess
    is left out by chance.
    """
    order = dice.uniform(0.0, 1.0).argsort()
    begin, result = 0, image.clone()
    for kind, weight in KINDS:
        wanted = share * weight * dice.batch
        count = min(dice.batch, math.ceil(wanted))
        if not count:
            continue
        # Small batches go round: a view may change twice there.
        index = order.roll(-(begin % dice.batch))[:count]
        begin += count
        part, own = Dice(dice.generator, dice.device, count), result[index]
        result.index_copy_(0, index, _pick(part.chance(wanted / count), kind(part, own), own))
    return result
