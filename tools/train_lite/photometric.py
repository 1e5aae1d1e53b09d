"""Independent photometric change of the views: exposure, optics, sensor, compression; modality.py has other sensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.train_lite.modality import modality
from tools.train_lite.scene import Dice, constant

KERNEL = 11
# The luminance table of the JPEG standard (ITU-T T.81, annex K).
_JPEG_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


@dataclass(frozen=True)
class Strength:
    """Shares of the views that get each change; the defaults are the recipe."""

    untouched: float = 0.12
    modality: float = 0.35
    shade: float = 0.35
    blur: float = 0.3
    resample: float = 0.15
    noise: float = 0.4
    jpeg: float = 0.35


def _where(condition: Tensor, changed: Tensor, image: Tensor) -> Tensor:
    return torch.where(condition[:, None, None, None], changed, image)


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _coordinates(image: Tensor) -> tuple[Tensor, Tensor]:
    height, width = image.shape[2:]
    y = torch.linspace(-1.0, 1.0, height, device=image.device)[None, None, :, None]
    x = torch.linspace(-1.0, 1.0, width, device=image.device)[None, None, None, :]
    return y, x


def shade(dice: Dice, image: Tensor, share: float) -> Tensor:
    """Shadows with a soft edge, gradients and vignettes."""
    y, x = _coordinates(image)
    angle, offset = dice.uniform(0.0, 2 * math.pi), dice.uniform(-0.8, 0.8)
    wobble = 0.3 * torch.sin(_column(dice.uniform(1.0, 6.0)) * (x - y) + _column(dice.uniform(0.0, 6.28)))
    side = _column(angle.cos()) * x + _column(angle.sin()) * y + wobble * _column(dice.uniform(0.0, 1.0))
    softness = _column(torch.exp(dice.uniform(math.log(1.0), math.log(60.0))))
    step = torch.sigmoid(softness * (side - _column(offset)))
    gain = 1.0 + _column(dice.uniform(-0.75, 0.5)) * step
    gain = gain * (1.0 - _column(dice.uniform(0.0, 0.4) * dice.chance(0.3)) * (x.square() + y.square()))
    return _where(dice.chance(share), image * gain, image)


def exposure(dice: Dice, image: Tensor) -> Tensor:
    """Gamma, contrast about the mean, and brightness."""
    gamma = torch.exp(dice.normal(0.3).clamp(-0.9, 0.9))
    image = image.clamp(1e-4, 1.0) ** _column(gamma)
    contrast = torch.exp(dice.normal(0.35).clamp(-1.2, 0.8))
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return (image - mean) * _column(contrast) + mean + _column(dice.normal(0.08).clamp(-0.25, 0.25))


def blur(dice: Dice, image: Tensor, share: float) -> Tensor:
    """Defocus and motion: an anisotropic Gaussian of its own for every image."""
    batch, _, height, width = image.shape
    sigma = torch.exp(dice.uniform(math.log(0.4), math.log(2.2)))
    along = sigma * torch.where(dice.chance(0.35), dice.uniform(1.0, 3.5), torch.ones_like(sigma))
    on = dice.chance(share)
    sigma, along = torch.where(on, sigma, 0.05 * torch.ones_like(sigma)), torch.where(on, along, 0.05 * sigma)
    angle = dice.uniform(0.0, math.pi)
    offset = torch.arange(KERNEL, device=image.device) - KERNEL // 2
    y, x = torch.meshgrid(offset.float(), offset.float(), indexing="ij")
    u = angle.cos()[:, None, None] * x + angle.sin()[:, None, None] * y
    v = -angle.sin()[:, None, None] * x + angle.cos()[:, None, None] * y
    kernel = torch.exp(-0.5 * ((u / along[:, None, None]) ** 2 + (v / sigma[:, None, None]) ** 2))
    kernel = kernel / kernel.sum(dim=(1, 2), keepdim=True)
    edge = KERNEL // 2
    padded = F.pad(image, (edge, edge, edge, edge), mode="replicate").transpose(0, 1)
    return F.conv2d(padded, kernel[:, None], groups=batch).view(batch, 1, height, width)


def resample(dice: Dice, image: Tensor, share: float) -> Tensor:
    """A sensor of half or a quarter of the resolution, enlarged again."""
    result = image
    on, quarter = dice.chance(share), dice.chance(0.3)
    for factor, chosen in ((2, on & ~quarter), (4, on & quarter)):
        small = F.avg_pool2d(image, factor)
        large = F.interpolate(small, scale_factor=float(factor), mode="bilinear", align_corners=False)
        result = _where(chosen, large, result)
    return result


def noise(dice: Dice, image: Tensor, share: float) -> Tensor:
    """Read noise and speckle, white or of two-pixel grain."""
    height, width = image.shape[2:]
    fine = dice.normal(1.0, 1, height, width)
    coarse = dice.normal(1.0, 1, height // 2, width // 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    grain = _where(dice.chance(0.3), coarse, fine)
    level = _column(torch.exp(dice.uniform(math.log(0.005), math.log(0.09))))
    speckle = torch.where(_column(dice.chance(0.3)), image, torch.full_like(image, 0.5))
    return _where(dice.chance(share), image + 2 * level * speckle * grain, image)


def jpeg(dice: Dice, image: Tensor, share: float) -> Tensor:
    """Quantises the 8x8 cosine coefficients as baseline JPEG does."""
    batch, _, height, width = image.shape
    k = torch.arange(8, device=image.device, dtype=torch.float32)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2.0)
    table = constant(tuple(float(step) for row in _JPEG_TABLE for step in row), image.device).view(8, 8) / 255.0
    factor = torch.exp(dice.uniform(math.log(0.4), math.log(4.0)))[:, None, None, None, None]
    step = (table * factor).clamp(min=1 / 255)
    blocks = image.view(batch, height // 8, 8, width // 8, 8).transpose(2, 3)
    coefficients = basis @ (blocks - 0.5) @ basis.T
    coefficients = (coefficients / step).round() * step
    restored = (basis.T @ coefficients @ basis + 0.5).transpose(2, 3).reshape(image.shape)
    return _where(dice.chance(share), restored, image)


def degrade(dice: Dice, image: Tensor, strength: Strength) -> Tensor:
    """All changes in the order of light, optics, sensor and file; image `[B,1,H,W]` in 0..1, sides multiples of 8."""
    result = modality(dice, image, strength.modality)
    result = shade(dice, result, strength.shade)
    result = exposure(dice, result)
    result = blur(dice, result, strength.blur)
    result = resample(dice, result, strength.resample)
    result = noise(dice, result, strength.noise).clamp(0.0, 1.0)
    result = jpeg(dice, result, strength.jpeg)
    result = _where(dice.chance(strength.untouched), image, result)
    return (result.clamp(0.0, 1.0) * 255.0).round() / 255.0
