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
# Below it a view shows a mirrored tile whole, twice.
LEAST_SCALE = 0.6


@dataclass(frozen=True)
class Scene:
    """B scenes of `layers` layers; layer 0 is the ground, later layers lie in front of earlier ones.

    to_image: `[B,2,layers,3,3]`, layer coordinates -> p of the view; from_image: its inverse.
    camera: `[B,2,3]`, ground position (x, y) and height of the two cameras.
    wave_*: the height field, a sum of sinusoids over the ground.
    mask_*: each layer's outline: half planes `normal . u <= offset` with a wavy edge.
    active: bool `[B,2,layers]`, whether the layer is in the view (an object may have moved away).
    positive: bool `[B]`, False where the two views show unrelated content.
    similar: bool `[B]`, among those: the second view shows a tile of similar style.
    elsewhere: bool `[B]`, among those: the two views show regions of one tile that do not overlap.
    bounded: bool `[B]`, whether the ground ends at its outline, with a plain background behind it.
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
    similar: Tensor
    elsewhere: Tensor
    bounded: Tensor

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
        values = torch.empty(self.batch, *shape, device=self.device)
        return values.uniform_(low, high, generator=self.generator)

    def normal(self, deviation: float, *shape: int) -> Tensor:
        """Normal around 0."""
        values = torch.empty(self.batch, *shape, device=self.device)
        return values.normal_(0.0, deviation, generator=self.generator)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """bool, True with the given probability."""
        return torch.rand(self.batch, *shape, generator=self.generator, device=self.device) < probability


@dataclass(frozen=True)
class Difficulty:
    """Shares and ranges of the geometric change; the defaults are the recipe.

    negative: share of unrelated pairs, `similar` of them of similar style. Of the pairs that are not easy:
    any_rotation, steep_rotation, wide_rotation: one view rolls anywhere, by 45 to 100 degrees, or by up to 45 degrees;
    wide_scale: zoom log-uniform up to 4 times; narrow_overlap: 15 to 35 % of the nearer view is in both.
    bounded: share of pairs whose ground ends, as an organ in a scan or a model before a plain background.
    """

    easy: float = 0.2
    negative: float = 0.12
    similar: float = 0.5
    max_slant_degrees: float = 66.0
    strong_slant: float = 0.4
    wide_scale: float = 0.36
    narrow_overlap: float = 0.1
    any_rotation: float = 0.36
    steep_rotation: float = 0.08
    wide_rotation: float = 0.22
    relief: float = 0.6
    bounded: float = 0.06
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


@dataclass(frozen=True)
class Frame:
    """What the scenes must know of the pictures: shorter by longer side, and the largest useful magnification."""

    aspect: float = 0.75
    magnification: float = 3.2


@dataclass(frozen=True)
class Kinds:
    """bool `[B,1]`: pairs with little change, and unrelated pairs that show two regions of one tile."""

    easy: Tensor
    elsewhere: Tensor


def _sample_turn(dice: Dice, difficulty: Difficulty) -> Tensor:
    """Rolls `[B,2]` in degrees beside the hand's: one of the views, either, is turned."""
    turn = torch.zeros(dice.batch, 1, device=dice.device)
    turn = torch.where(dice.chance(difficulty.wide_rotation, 1), dice.uniform(-45.0, 45.0, 1), turn)
    side = torch.where(dice.chance(0.5, 1), 1.0, -1.0)
    turn = torch.where(dice.chance(difficulty.steep_rotation, 1), side * dice.uniform(45.0, 100.0, 1), turn)
    turn = torch.where(dice.chance(difficulty.any_rotation, 1), dice.uniform(-180.0, 180.0, 1), turn)
    first = dice.chance(0.5, 1)
    return torch.cat([torch.where(first, turn, 0.0), torch.where(first, 0.0, turn)], dim=1)


def _sample_angles(dice: Dice, difficulty: Difficulty, kinds: Kinds, focal: Tensor) -> tuple[Tensor, Tensor]:
    """Slant and roll `[B,2]` in radians."""
    steep = dice.chance(difficulty.strong_slant, 2)
    slant = torch.where(steep, dice.uniform(0.0, difficulty.max_slant_degrees, 2), dice.normal(12.0, 2)).abs()
    slant = torch.where(kinds.easy, 0.2 * slant.clamp(max=30.0), slant)
    slant = torch.deg2rad(torch.where(kinds.elsewhere, slant.clamp(max=8.0), slant))
    # Keep the horizon out of the view: tan(slant) * tan(half the diagonal) stays below 0.75.
    slant = torch.minimum(slant, torch.atan(0.75 * focal / 1.25))
    roll, turn = dice.normal(10.0, 2), _sample_turn(dice, difficulty)
    return slant, torch.deg2rad(torch.where(kinds.easy, 0.3 * roll, roll + turn))


def _sample_scales(dice: Dice, difficulty: Difficulty, kinds: Kinds, frame: Frame) -> Tensor:
    """Magnifications `[B,2]`; at 1 the long side spans a whole tile.

    Where the zoom is large the farther view makes room for it: the nearer view stays below what the tile can show.
    """
    first = torch.exp(dice.uniform(0.0, math.log(2.8), 1)).clamp(max=frame.magnification)
    octaves = dice.normal(0.25, 1)
    octaves = torch.where(kinds.easy, 0.3 * octaves, octaves)
    scale = torch.cat([first, (first * torch.exp2(octaves)).clamp(LEAST_SCALE, frame.magnification)], dim=1)
    zoom = torch.exp2(dice.uniform(0.0, 2.0, 1))
    room = (frame.magnification / zoom / LEAST_SCALE).clamp(1.0, 3.0)
    low = LEAST_SCALE * room ** dice.uniform(0.0, 1.0, 1)
    wide = torch.cat([low, low * zoom], dim=1)
    wide = torch.where(dice.chance(0.5, 1), wide.flip(1), wide)
    scale = torch.where(dice.chance(difficulty.wide_scale, 1) & ~kinds.easy, wide, scale)
    return torch.where(kinds.elsewhere, dice.uniform(2.9, 3.3, 2), scale)


def _sample_targets(dice: Dice, difficulty: Difficulty, kinds: Kinds, frame: Frame, scale: Tensor) -> Tensor:
    """Ground points in the centres of the views, `[B,2,2]`: the nearer view lies about the farther one's place."""
    large, small = 1.0 / scale.amin(dim=1, keepdim=True), 1.0 / scale.amax(dim=1, keepdim=True)
    sides = constant((1.0, frame.aspect), dice.device)
    base = dice.uniform(-1.0, 1.0, 2) * (1.0 - 0.8 * large).clamp(min=0.05)
    shift = dice.uniform(-0.75, 0.75, 2) * large
    shift = torch.where(kinds.easy, 0.4 * shift, shift)
    along = large + small - 2.0 * small * dice.uniform(0.15, 0.35, 1)
    aside = torch.cat([along * torch.where(dice.chance(0.5, 1), 1.0, -1.0), small * dice.uniform(-0.1, 0.1, 1)], dim=1)
    aside = torch.where(dice.chance(0.5, 1), aside, aside.flip(1))
    narrow = dice.chance(difficulty.narrow_overlap, 1) & ~kinds.easy
    shift = torch.where(narrow, aside, shift) * sides
    target = torch.stack([base, base + shift], dim=1)
    target = torch.where((scale[:, :1] > scale[:, 1:])[:, :, None], target.flip(1), target)
    # Two halves of the tile; 0.54 keeps the corners of rolled views apart and inside the tile.
    halves = constant((-0.54, 0.54), dice.device).expand(dice.batch, 2)
    halves = torch.stack([halves, dice.uniform(-0.5, 0.5, 2)], dim=2)
    halves = torch.where(dice.chance(0.5, 1, 1), halves, halves.flip(2))
    return torch.where(kinds.elsewhere[:, :, None], halves, target)


def _sample_cameras(dice: Dice, difficulty: Difficulty, kinds: Kinds, frame: Frame) -> Cameras:
    """Focal length f in units of half the long side, magnification s, distance f / s."""
    focal = torch.exp(dice.uniform(math.log(1.0), math.log(5.0), 1)).expand(-1, 2).clone()
    other_focal = dice.chance(0.3, 1)
    focal[:, 1:] = torch.where(other_focal, torch.exp(dice.uniform(0.0, math.log(5.0), 1)), focal[:, 1:])
    focal = torch.where(kinds.elsewhere, focal.clamp(min=2.5), focal)
    scale = _sample_scales(dice, difficulty, kinds, frame)
    slant, roll = _sample_angles(dice, difficulty, kinds, focal)
    rotation = _rotation(dice.uniform(0.0, 2 * math.pi, 2), slant, roll)
    target = _sample_targets(dice, difficulty, kinds, frame, scale)
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


def _sample_active(dice: Dice, difficulty: Difficulty, kinds: Kinds) -> Tensor:
    """Which layers are in which view, bool `[B,2,layers]`."""
    active = torch.ones(dice.batch, 2, 1 + len(difficulty.patches), dtype=torch.bool, device=dice.device)
    for index, probability in enumerate(difficulty.patches, start=1):
        present = dice.chance(probability, 1) & (~kinds.easy | dice.chance(0.3, 1))
        one_view = dice.chance(0.2, 1)
        hidden = torch.cat([one_view & dice.chance(0.5, 1), one_view], dim=1)
        hidden[:, 1] &= ~hidden[:, 0]
        # A patch seen in both views would relate them, and one with the ground's tile repeats any part of it.
        active[:, :, index] = present & ~hidden & ~kinds.elsewhere
    return active


def _sample_outlines(dice: Dice, cameras: Cameras, layers: int) -> tuple[Tensor, Tensor]:
    """Half planes of the layers: normals `[B,layers,HALF_PLANES,2]`, offsets `[B,layers,HALF_PLANES]`.

    Patches lie about their own origin, the end of the ground (where it is bounded) about the middle of the two views.
    """
    angles = dice.uniform(0.0, 2 * math.pi, layers, HALF_PLANES)
    normal = torch.stack([angles.cos(), angles.sin()], dim=3)
    size = torch.exp(dice.uniform(math.log(0.1), math.log(0.45), layers, 1)) / cameras.scale[:, :1, None].clamp(min=1.0)
    offset = size * dice.uniform(0.5, 1.5, layers, HALF_PLANES)
    middle = cameras.target.mean(dim=1)[:, None]
    reach = dice.uniform(0.4, 0.95, HALF_PLANES) / cameras.scale.amin(dim=1, keepdim=True)
    offset[:, 0] = reach + (normal[:, 0] * middle).sum(dim=2)
    return normal, offset


def sample_scene(dice: Dice, difficulty: Difficulty, frame: Frame = Frame()) -> Scene:
    """Draws a batch of scenes. The order of the draws is part of the recipe: it decides what a seed gives."""
    layers = 1 + len(difficulty.patches)
    negative, alike, same_tile = dice.chance(difficulty.negative), dice.chance(difficulty.similar), dice.chance(0.5)
    elsewhere = negative & alike & same_tile
    kinds = Kinds(dice.chance(difficulty.easy)[:, None] & ~elsewhere[:, None], elsewhere[:, None])
    cameras = _sample_cameras(dice, difficulty, kinds, frame)
    to_image = _sample_planes(dice, cameras, layers)
    # A positive third row in front of the camera stays positive in the inverse: its denominator says 'in front'.
    from_image, _ = torch.linalg.inv_ex(to_image)
    frequency, amplitude = _sample_relief(dice, difficulty, cameras)
    normal, offset = _sample_outlines(dice, cameras, layers)
    return Scene(
        to_image=to_image,
        from_image=from_image,
        camera=cameras.place,
        wave_frequency=frequency,
        wave_phase=dice.uniform(0.0, 2 * math.pi, WAVES),
        wave_amplitude=amplitude,
        mask_normal=normal,
        mask_offset=offset,
        mask_ripple=dice.uniform(0.0, 0.06, layers) * dice.chance(0.5, layers),
        active=_sample_active(dice, difficulty, kinds),
        positive=~negative,
        similar=negative & alike & ~same_tile,
        elsewhere=elsewhere,
        bounded=dice.chance(difficulty.bounded) & ~elsewhere,
    )
