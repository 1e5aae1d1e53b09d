"""Random scenes of a textured height field with planar patches in front of it, seen by two cameras.

Coordinates. A view's pixel (x, y) becomes p = (pixel - centre) / (long side / 2). The ground plane carries canonical
coordinates u, in which a texture tile spans -1..1. A camera looks from z < 0 towards the plane z = 0. Everything is
closed-form, so that the ground truth is exact: geometry.py follows a point from one view to the canonical frame of the
layer that is visible there, and from that into the other view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

WAVES = 6
HALF_PLANES = 5


@dataclass(frozen=True)
class Scene:
    """B scenes of `layers` layers; layer 0 is the ground, later layers lie in front of earlier ones.

    to_image: `[B,2,layers,3,3]`, layer coordinates -> p of the view; from_image: its inverse.
    camera: `[B,2,3]`, ground position (x, y) and height of the two cameras.
    wave_*: the height field, a sum of sinusoids over the ground.
    mask_*: each layer's outline: half planes `normal . u <= offset` with a wavy edge.
    active: bool `[B,2,layers]`, whether the layer is in the view (an object may have moved away).
    positive: bool `[B]`, False where the two views show unrelated content.
    """

    to_image: Tensor
    from_image: Tensor
    camera: Tensor
    wave_frequency: Tensor
    wave_phase: Tensor
    wave_amplitude: Tensor
    mask_normal: Tensor
    mask_offset: Tensor
    mask_ripple: Tensor
    active: Tensor
    positive: Tensor

    def view(self, index: int) -> View:
        """What concerns one view alone."""
        return View(self.to_image[:, index], self.from_image[:, index], self.camera[:, index], self.active[:, index])

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.to_image.shape[2])

    @property
    def batch(self) -> int:
        """Number of scenes."""
        return int(self.to_image.shape[0])


@dataclass(frozen=True)
class View:
    """One view of the scenes: `[B,layers,3,3]` twice, camera `[B,3]`, active `[B,layers]`."""

    to_image: Tensor
    from_image: Tensor
    camera: Tensor
    active: Tensor


@lru_cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A small table on the device, copied there once: a copy in every step would make the host wait for the GPU."""
    return torch.tensor(values, device=device)


@dataclass(frozen=True)
class Dice:
    """Random numbers of one generator, shaped `[batch, ...]`."""

    generator: torch.Generator
    device: torch.device
    batch: int

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform in low..high."""
        values = torch.rand(self.batch, *shape, generator=self.generator, device=self.device)
        return low + (high - low) * values

    def normal(self, deviation: float, *shape: int) -> Tensor:
        """Normal around 0."""
        return deviation * torch.randn(self.batch, *shape, generator=self.generator, device=self.device)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """bool, True with the given probability."""
        return torch.rand(self.batch, *shape, generator=self.generator, device=self.device) < probability


@dataclass(frozen=True)
class Difficulty:
    """Shares and ranges of the geometric change; the defaults are the recipe."""

    easy: float = 0.2
    negative: float = 0.08
    max_slant_degrees: float = 66.0
    strong_slant: float = 0.4
    wide_scale: float = 0.4
    any_rotation: float = 0.1
    wide_rotation: float = 0.22
    relief: float = 0.6
    patches: tuple[float, ...] = (0.45, 0.3)


def _rotation(axis_angle: Tensor, tilt: Tensor, roll: Tensor) -> Tensor:
    """`[...,3,3]`: tilt about the horizontal axis at `axis_angle`, then roll about the optical axis."""
    zero, one = torch.zeros_like(tilt), torch.ones_like(tilt)
    x, y = axis_angle.cos(), axis_angle.sin()
    c, s = tilt.cos(), tilt.sin()
    rows = [
        torch.stack([c + x * x * (1 - c), x * y * (1 - c), y * s], dim=-1),
        torch.stack([x * y * (1 - c), c + y * y * (1 - c), -x * s], dim=-1),
        torch.stack([-y * s, x * s, c], dim=-1),
    ]
    spin = [
        torch.stack([roll.cos(), -roll.sin(), zero], dim=-1),
        torch.stack([roll.sin(), roll.cos(), zero], dim=-1),
        torch.stack([zero, zero, one], dim=-1),
    ]
    return torch.stack(spin, dim=-2) @ torch.stack(rows, dim=-2)


@dataclass(frozen=True)
class Cameras:
    """Two cameras: focal length and magnification `[B,2]`, rotation `[B,2,3,3]`, the ground point in the centre
    `target [B,2,2]`, its distance `[B,2]`, and the place `[B,2,3]` as ground position and height."""

    focal: Tensor
    scale: Tensor
    rotation: Tensor
    target: Tensor
    distance: Tensor
    place: Tensor


def _sample_angles(dice: Dice, difficulty: Difficulty, easy: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """Slant and roll `[B,2]` in radians."""
    steep = dice.chance(difficulty.strong_slant, 2)
    slant = torch.where(steep, dice.uniform(0.0, difficulty.max_slant_degrees, 2), dice.normal(12.0, 2)).abs()
    slant = torch.deg2rad(torch.where(easy, 0.2 * slant.clamp(max=30.0), slant))
    # Keep the horizon out of the view: tan(slant) * tan(half the diagonal) stays below 0.75.
    slant = torch.minimum(slant, torch.atan(0.75 * focal / 1.25))
    roll = dice.normal(10.0, 2)
    wide = dice.chance(difficulty.wide_rotation, 1)
    turn = torch.where(wide, dice.uniform(-45.0, 45.0, 1), torch.zeros_like(roll[:, :1]))
    turn = torch.where(dice.chance(difficulty.any_rotation, 1), dice.uniform(-180.0, 180.0, 1), turn)
    roll = torch.where(easy, 0.3 * roll, torch.cat([roll[:, :1], roll[:, 1:] + turn], dim=1))
    return slant, torch.deg2rad(roll)


def _sample_cameras(dice: Dice, difficulty: Difficulty, easy: Tensor) -> Cameras:
    """Focal length f in units of half the long side, magnification s, distance f / s."""
    focal = torch.exp(dice.uniform(math.log(1.0), math.log(5.0), 1)).expand(-1, 2).clone()
    other_focal = dice.chance(0.3, 1)
    focal[:, 1:] = torch.where(other_focal, torch.exp(dice.uniform(0.0, math.log(5.0), 1)), focal[:, 1:])
    scale0 = torch.exp(dice.uniform(math.log(1.0), math.log(2.8), 1))
    narrow = dice.normal(0.25, 1)
    octaves = torch.where(dice.chance(difficulty.wide_scale, 1), dice.uniform(-1.6, 1.6, 1), narrow)
    octaves = torch.where(easy, 0.3 * narrow, octaves)
    scale = torch.cat([scale0, (scale0 * torch.exp2(octaves)).clamp(0.6, 5.0)], dim=1)
    slant, roll = _sample_angles(dice, difficulty, easy, focal)
    rotation = _rotation(dice.uniform(0.0, 2 * math.pi, 2), slant, roll)
    room = (1.0 - 0.8 / scale0).clamp(min=0.05)
    target0 = dice.uniform(-1.0, 1.0, 2) * room
    shift = dice.uniform(-0.75, 0.75, 2) / torch.minimum(scale[:, :1], scale[:, 1:])
    shift = torch.where(easy, 0.4 * shift, shift)
    target = torch.stack([target0, target0 + shift], dim=1)
    distance = focal / scale
    ground = torch.cat([target, torch.zeros_like(target[:, :, :1])], dim=2)
    place = ground - distance[..., None] * rotation[:, :, 2]
    return Cameras(focal, scale, rotation, target, distance, torch.cat([place[..., :2], -place[..., 2:]], dim=2))


def _sample_planes(dice: Dice, cameras: Cameras, layers: int) -> Tensor:
    """The layers' homographies `[B,2,layers,3,3]`: the ground first, then patches in front of it."""
    height = cameras.place[..., 2].amin(dim=1)
    origin = torch.zeros(dice.batch, layers, 3, device=dice.device)
    axes = torch.eye(3, device=dice.device)[:, :2].expand(dice.batch, layers, 3, 2).clone()
    rise = torch.cumsum(dice.uniform(0.03, 0.25, layers - 1), dim=1).clamp(max=0.55)
    anchor = cameras.target[:, :1] + dice.uniform(-0.8, 0.8, layers - 1, 2) / cameras.scale[:, :1, None]
    origin[:, 1:, :2] = anchor * (1 - rise[..., None]) + cameras.place[:, :1, :2] * rise[..., None]
    origin[:, 1:, 2] = -rise * height[:, None]
    lean = dice.normal(0.2, layers - 1).clamp(-0.5, 0.5)
    axes[:, 1:] = _rotation(dice.uniform(0.0, 2 * math.pi, layers - 1), lean, torch.zeros_like(lean))[..., :2]
    # diag(f, f, 1) [R a1, R a2, R (o - target) + (0, 0, d)]
    rotation = cameras.rotation[:, :, None]
    ground = torch.cat([cameras.target, torch.zeros_like(cameras.target[:, :, :1])], dim=2)
    offset = (rotation @ (origin[:, None] - ground[:, :, None])[..., None])[..., 0]
    offset[..., 2] += cameras.distance[:, :, None]
    matrix = torch.cat([rotation @ axes[:, None], offset[..., None]], dim=4)
    intrinsics = torch.ones(dice.batch, 2, 1, 3, 1, device=dice.device)
    intrinsics[:, :, :, :2] = cameras.focal[:, :, None, None, None]
    to_image = intrinsics * matrix
    # A patch that moved between the exposures: its own small motion in the second view.
    moved = (dice.chance(0.25, layers) & (torch.arange(layers, device=dice.device) > 0))[..., None, None]
    motion = torch.eye(3, device=dice.device).expand(dice.batch, layers, 3, 3).clone()
    motion[:, :, :2, 2] = dice.normal(0.15, layers, 2)
    motion[:, :, 0, 1] = dice.normal(0.1, layers)
    motion[:, :, 1, 0] = -motion[:, :, 0, 1]
    still = torch.eye(3, device=dice.device).expand_as(motion)
    to_image[:, 1] = torch.where(moved, motion, still) @ to_image[:, 1]
    return to_image


def _sample_relief(dice: Dice, difficulty: Difficulty, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Frequencies `[B,WAVES,2]` and amplitudes `[B,WAVES]` of the height field.

    Its slopes times the tangent of the viewing angle stay below 0.4, so that fixed points converge.
    """
    height = cameras.place[..., 2].amin(dim=1)
    aside = (cameras.place[..., :2] - cameras.target).norm(dim=2)
    tangent = ((aside + 1.2 / cameras.scale) / cameras.place[..., 2]).amax(dim=1, keepdim=True)
    slope = dice.uniform(0.0, 0.4, 1) * dice.chance(difficulty.relief, 1) / (0.15 + tangent)
    share = torch.softmax(dice.normal(1.0, WAVES), dim=1)
    direction = dice.uniform(0.0, 2 * math.pi, WAVES)
    rate = torch.exp(dice.uniform(math.log(2.0), math.log(14.0), WAVES)) * cameras.scale[:, :1].clamp(max=2.0)
    frequency = torch.stack([direction.cos() * rate, direction.sin() * rate], dim=2)
    return frequency, torch.minimum(slope * share / rate, 0.04 * height[:, None])


def _sample_active(dice: Dice, difficulty: Difficulty, easy: Tensor) -> Tensor:
    """Which layers are in which view, bool `[B,2,layers]`."""
    active = torch.ones(dice.batch, 2, 1 + len(difficulty.patches), dtype=torch.bool, device=dice.device)
    for index, probability in enumerate(difficulty.patches, start=1):
        present = dice.chance(probability, 1) & (~easy | dice.chance(0.3, 1))
        one_view = dice.chance(0.2, 1)
        hidden = torch.cat([one_view & dice.chance(0.5, 1), one_view], dim=1)
        hidden[:, 1] &= ~hidden[:, 0]
        active[:, :, index] = present & ~hidden
    return active


def sample_scene(dice: Dice, difficulty: Difficulty) -> Scene:
    """Draws a batch of scenes. The order of the draws is part of the recipe: it decides what a seed gives."""
    layers = 1 + len(difficulty.patches)
    easy = dice.chance(difficulty.easy)[:, None]
    cameras = _sample_cameras(dice, difficulty, easy)
    to_image = _sample_planes(dice, cameras, layers)
    # A positive third row in front of the camera stays positive in the inverse: its denominator says 'in front'.
    from_image, _ = torch.linalg.inv_ex(to_image)
    frequency, amplitude = _sample_relief(dice, difficulty, cameras)
    angles = dice.uniform(0.0, 2 * math.pi, layers, HALF_PLANES)
    size = torch.exp(dice.uniform(math.log(0.1), math.log(0.45), layers, 1)) / cameras.scale[:, :1, None].clamp(min=1.0)
    active = _sample_active(dice, difficulty, easy)
    return Scene(
        to_image=to_image,
        from_image=from_image,
        camera=cameras.place,
        wave_frequency=frequency,
        wave_phase=dice.uniform(0.0, 2 * math.pi, WAVES),
        wave_amplitude=amplitude,
        mask_normal=torch.stack([angles.cos(), angles.sin()], dim=3),
        mask_offset=size * dice.uniform(0.5, 1.5, layers, HALF_PLANES),
        mask_ripple=dice.uniform(0.0, 0.06, layers) * dice.chance(0.5, layers),
        active=active,
        positive=~dice.chance(difficulty.negative),
    )
