"""Follows points between the views of a scene. Closed-form but for a fixed point, hence exact ground truth.

Points are pairs of tensors x, y `[B,N]` and the arithmetic is spelled out: a compiler then makes one kernel of it,
where small matrix products and stacks would each pass through memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tools.train_lite.scene import HALF_PLANES, WAVES, Scene, View

FIXED_POINT_STEPS = 8


def _project(matrix: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Homographies `[B,3,3]` on points -> x, y and the denominator."""
    m = matrix[:, :, :, None]
    depth = m[:, 2, 0] * x + m[:, 2, 1] * y + m[:, 2, 2]
    scale = 1.0 / torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    return (
        (m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2]) * scale,
        (m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]) * scale,
        depth,
    )


def _parallax(scene: Scene, view: View, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ray from the camera through the raised ground point meets the plane, minus that point."""
    height = torch.zeros_like(x)
    for wave in range(WAVES):
        frequency = scene.wave_frequency[:, wave, :, None]
        phase = frequency[:, 0] * x + frequency[:, 1] * y + scene.wave_phase[:, wave, None]
        height = height + scene.wave_amplitude[:, wave, None] * phase.sin()
    camera = view.camera[:, :, None]
    lever = height / (camera[:, 2] - height)
    return (x - camera[:, 0]) * lever, (y - camera[:, 1]) * lever


def outline(scene: Scene, layer: int, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance-like value of a patch: positive inside."""
    inside = torch.full_like(x, 1e6)
    for edge in range(HALF_PLANES):
        normal = scene.mask_normal[:, layer, edge, :, None]
        reach = scene.mask_offset[:, layer, edge, None]
        inside = torch.minimum(inside, reach - normal[:, 0] * x - normal[:, 1] * y)
    return inside + scene.mask_ripple[:, layer, None] * ((40 * x).sin() + (31 * y).cos())


class Kernels:
    """The two expensive formulas; `compile` replaces them by one kernel each."""

    def __init__(self) -> None:
        self.parallax: Callable[..., tuple[Tensor, Tensor]] = _parallax
        self.outline: Callable[..., Tensor] = outline

    def compile(self) -> None:
        """Compiles both for every shape that comes."""
        self.parallax = torch.compile(_parallax, dynamic=False)
        self.outline = torch.compile(outline, dynamic=False)


KERNELS = Kernels()


def to_layer(scene: Scene, view: View, layer: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points p of a view -> coordinates of a layer, and bool: the ray meets the layer's plane in front."""
    u, v, depth = _project(view.from_image[:, layer], x, y)
    if layer == 0:
        ground_u, ground_v = u, v
        for _ in range(FIXED_POINT_STEPS):
            du, dv = KERNELS.parallax(scene, view, u, v)
            u, v = ground_u - du, ground_v - dv
    return u, v, depth > 1e-3


def to_view(scene: Scene, view: View, layer: int, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of a layer -> p of a view, and whether they lie in front of the camera."""
    if layer == 0:
        du, dv = KERNELS.parallax(scene, view, u, v)
        u, v = u + du, v + dv
    x, y, depth = _project(view.to_image[:, layer], u, v)
    return x, y, depth > 1e-3


def visible(scene: Scene, view: View, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The frontmost layer at each point, its index and the coordinates in it."""
    u, v, _ = to_layer(scene, view, 0, x, y)
    index = torch.zeros_like(x, dtype=torch.int64)
    for layer in range(1, scene.layers):
        here_u, here_v, front = to_layer(scene, view, layer, x, y)
        covers = front & (KERNELS.outline(scene, layer, here_u, here_v) > 0) & view.active[:, layer, None]
        u, v = torch.where(covers, here_u, u), torch.where(covers, here_v, v)
        index = torch.where(covers, layer, index)
    return index, u, v


def on_ground(scene: Scene, u: Tensor, v: Tensor) -> Tensor:
    """Signed like `outline`: positive where the ground is, everywhere if it is not bounded."""
    return torch.where(scene.bounded[:, None], KERNELS.outline(scene, 0, u, v), 1.0)


def transfer(scene: Scene, source: View, target: View, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points p of one view -> the same surface points in the other, and bool: visible there.

    Being inside the other view's frame is left to the caller, who knows its size.
    """
    index, u, v = visible(scene, source, x, y)
    there_x, there_y = torch.zeros_like(x), torch.zeros_like(y)
    seen = torch.zeros_like(x, dtype=torch.bool)
    for layer in range(scene.layers):
        layer_x, layer_y, front = to_view(scene, target, layer, u, v)
        here = index == layer
        there_x, there_y = torch.where(here, layer_x, there_x), torch.where(here, layer_y, there_y)
        seen = seen | (here & front & target.active[:, layer, None])
    back, back_u, back_v = visible(scene, target, there_x, there_y)
    # Same layer, same place: the second test also rejects ground hidden behind its own relief.
    same = (back == index) & ((back_u - u).square() + (back_v - v).square() < 1e-4)
    finite = there_x.isfinite() & there_y.isfinite()
    exists = (index > 0) | (on_ground(scene, u, v) > 0)
    return there_x, there_y, seen & same & finite & exists & scene.positive[:, None]
