"""Synthetic fingerprints with known warps, made on the device.

A print is an AM-FM wave (Larkin and Fletcher, "A coherent framework for fingerprint analysis", Optics Express 2007):
the cosine of a smooth phase, whose level lines are the ridges, plus one spiral phase for each minutia, where a ridge
ends or forks. It is a function of the plane, so a warped print is that function at warped places: no pixel is
interpolated, and the true place of every pixel is known.

Coordinates are pixels, x right, y down, the centre of the top-left pixel is (0, 0).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from examples.ifvit.config import STRIDE

PERIOD = 9.0  # pixels a ridge and a valley, as at 500 dpi
MINUTIAE = 12
WAVES = 6


class Pairs(NamedTuple):
    """image0: distorted prints, image1: the same fingers, both `[B,S,S,1]` in 0..1.

    target: `[B,L,2]`, pixel (x, y) of image1 that shows what image 0's cell shows; valid: bool `[B,L]`, whether it lies
    in image 1. Cells are row-major on a grid of stride 8; a cell stands for its top-left pixel, as in LoFTR.
    finger: int32 `[B]`, which finger the prints are of.
    """

    image0: jax.Array
    image1: jax.Array
    target: jax.Array
    valid: jax.Array
    finger: jax.Array


class Finger(NamedTuple):
    """The phase of one finger."""

    core: jax.Array  # [2]
    stretch: jax.Array  # []
    waves: jax.Array  # [WAVES, 4]: two wave numbers, phase, amplitude in radians
    minutiae: jax.Array  # [MINUTIAE, 3]: x, y, +1 or -1


@partial(jax.jit, static_argnames=("count", "size"))
def make_pairs(key: jax.Array, count: int, size: int) -> Pairs:
    """`count` pairs of side `size`; the same for the same key."""
    return jax.vmap(partial(_pair, size=size))(jax.random.split(key, count), jnp.arange(count))


def _pair(key: jax.Array, number: jax.Array, size: int) -> Pairs:
    finger_key, warp_key, first, second = jax.random.split(key, 4)
    finger = _finger(finger_key, size)
    plane = plane_of(size)
    warped = random_warp(warp_key, plane, size)
    image0 = sensed(first, jnp.cos(_phase(finger, warped)))
    image1 = sensed(second, jnp.cos(_phase(finger, plane)))
    target, valid = places(warped, size)
    return Pairs(image0[:, :, None], image1[:, :, None], target, valid, number)


def plane_of(size: int) -> jax.Array:
    """The places (x, y) of an image's pixels, `[S,S,2]`."""
    return jnp.stack(jnp.meshgrid(jnp.arange(size), jnp.arange(size), indexing="xy"), axis=2).astype(jnp.float32)


def places(warped: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """`Pairs.target` and `Pairs.valid` of one pair whose image 0 shows at each pixel what image 1 shows at `warped`."""
    target = warped[::STRIDE, ::STRIDE].reshape(-1, 2)
    return target, ((target >= 0) & (target <= size - STRIDE)).all(axis=1)


def _finger(key: jax.Array, size: int) -> Finger:
    keys = jax.random.split(key, 7)
    core = jax.random.uniform(keys[0], (2,), minval=-0.2, maxval=1.2) * size
    stretch = jax.random.uniform(keys[1], (), minval=0.5, maxval=1.5)
    angle = jax.random.uniform(keys[2], (WAVES,), maxval=2 * jnp.pi)
    number = 2 * jnp.pi / jax.random.uniform(keys[3], (WAVES,), minval=50.0, maxval=150.0)
    phase = jax.random.uniform(keys[4], (WAVES,), maxval=2 * jnp.pi)
    waves = jnp.stack([number * jnp.cos(angle), number * jnp.sin(angle), phase, jnp.full(WAVES, 1.5)], axis=1)
    place = jax.random.uniform(keys[5], (MINUTIAE, 2), minval=-0.2, maxval=1.2) * size
    turn = jax.random.rademacher(keys[6], (MINUTIAE, 1), dtype=jnp.float32)
    return Finger(core, stretch, waves, jnp.concatenate([place, turn], axis=1))


def _phase(finger: Finger, points: jax.Array) -> jax.Array:
    """Radians at `points [H,W,2]`."""
    x, y = points[..., 0], points[..., 1]
    # Ellipses around the core: loops and whorls near it, arches far away.
    distance = jnp.sqrt((x - finger.core[0]) ** 2 + (finger.stretch * (y - finger.core[1])) ** 2 + 4 * PERIOD**2)
    phase = 2 * jnp.pi * distance / PERIOD
    x, y = x[..., None], y[..., None]
    first, second, offset, amplitude = finger.waves.T
    place_x, place_y, turn = finger.minutiae.T
    bends = amplitude * jnp.sin(first * x + second * y + offset)
    spirals = turn * jnp.arctan2(y - place_y, x - place_x)
    return phase + bends.sum(axis=2) + spirals.sum(axis=2)


def random_warp(key: jax.Array, plane: jax.Array, size: int) -> jax.Array:
    """Where each pixel of the distorted print lies in the other one: turn, scale, shift, and elastic skin."""
    keys = jax.random.split(key, 4)
    angle = jax.random.uniform(keys[0], (), minval=-1.0, maxval=1.0) * jnp.deg2rad(20.0)
    scale = jax.random.uniform(keys[1], (), minval=0.9, maxval=1.1)
    shift = jax.random.uniform(keys[2], (2,), minval=-0.1, maxval=0.1) * size
    cosine, sine = jnp.cos(angle) * scale, jnp.sin(angle) * scale
    middle = (size - 1) / 2
    x, y = plane[..., 0] - middle, plane[..., 1] - middle
    rigid = jnp.stack([cosine * x - sine * y, sine * x + cosine * y], axis=2) + middle + shift
    elastic = jax.random.normal(keys[3], (4, 4, 2)) * (0.02 * size)
    return rigid + jax.image.resize(elastic, (size, size, 2), "cubic")


def sensed(key: jax.Array, ridges: jax.Array) -> jax.Array:
    """What a sensor makes of ridges -1..1: pressure, erosion or dilation, dry and dirty places, noise; 0..1."""
    keys = jax.random.split(key, 6)
    size = ridges.shape[0]
    pressure = jax.random.uniform(keys[0], (), minval=-0.3, maxval=0.3)
    image = jnp.tanh(2.5 * (ridges + pressure))
    kind = jax.random.randint(keys[1], (), 0, 3)
    image = jnp.select([kind == 0, kind == 1], [_dilated(image), -_dilated(-image)], image)
    contrast = jax.image.resize(jax.random.uniform(keys[2], (5, 5), minval=0.3, maxval=1.0), (size, size), "cubic")
    dirt = jax.image.resize(jax.random.normal(keys[3], (9, 9)), (size, size), "cubic")
    image = image * contrast * jax.nn.sigmoid(8.0 * (1.6 - dirt))
    noise = jax.random.normal(keys[4], image.shape) * jax.random.uniform(keys[5], (), minval=0.05, maxval=0.3)
    return jnp.clip(0.5 + 0.4 * (image + noise), 0.0, 1.0)


def _dilated(image: jax.Array) -> jax.Array:
    """Grey dilation by a 3x3 square."""
    return jax.lax.reduce_window(image, -jnp.inf, jax.lax.max, (3, 3), (1, 1), "SAME")
