"""ResNet backbone with a feature pyramid, as in `matchrt.models.loftr.resnet_fpn`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class LeakyReLU(nnx.Module):
    """An activation as a module, so that the modules after it in a list keep torch's indices."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[...] -> [...]`."""
        return nnx.leaky_relu(x, negative_slope=0.01)


def _conv(inputs: int, outputs: int, size: int, stride: int, rngs: nnx.Rngs, dtype: Any) -> Any:
    # The padding is in numbers, because "SAME" would put the odd pixel of a strided convolution on the other side.
    half = size // 2
    return nnx.Conv(
        inputs, outputs, (size, size), stride, padding=((half, half), (half, half)), use_bias=False, dtype=dtype,
        rngs=rngs,
    )  # fmt: skip


def _norm(channels: int, rngs: nnx.Rngs, dtype: Any) -> Any:
    # Flax's momentum is the share of the old value; torch's 0.1 is that of the new one.
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions with a shortcut, `[B,H,W,Cin] -> [B,H/stride,W/stride,Cout]`."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, rngs: nnx.Rngs, dtype: Any = None
    ) -> None:
        self.conv1 = _conv(in_channels, out_channels, 3, stride, rngs, dtype)
        self.conv2 = _conv(out_channels, out_channels, 3, 1, rngs, dtype)
        self.bn1 = _norm(out_channels, rngs, dtype)
        self.bn2 = _norm(out_channels, rngs, dtype)
        shortcut = [_conv(in_channels, out_channels, 1, stride, rngs, dtype), _norm(out_channels, rngs, dtype)]
        self.downsample = nnx.List(shortcut if stride != 1 else [])

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B,H,W,Cin] -> [B,H/stride,W/stride,Cout]`."""
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return nnx.relu(_apply(self.downsample, x) + y)


class ResNetFPN(nnx.Module):
    """Grey image to coarse features and, with `fine`, to features four times as dense along each side.

    block_dims: channels of the stages `layer1..N`; `layer1` runs at half the input's resolution. Three stages are
        LoFTR's 8_2 pyramid (coarse 1/8, fine 1/2), four its 16_4 pyramid (coarse 1/16, fine 1/4).
    """

    def __init__(
        self, initial_dim: int, block_dims: tuple[int, ...], fine: bool, *, rngs: nnx.Rngs, dtype: Any = None
    ) -> None:
        if initial_dim != block_dims[0]:
            raise ValueError(f"initial_dim {initial_dim} must equal the first stage's {block_dims[0]} channels")
        self.n_stages = len(block_dims)
        self.conv1 = _conv(1, initial_dim, 7, 2, rngs, dtype)
        self.bn1 = _norm(initial_dim, rngs, dtype)
        in_channels = initial_dim
        for stage, channels in enumerate(block_dims, start=1):
            blocks = [
                BasicBlock(in_channels, channels, 1 if stage == 1 else 2, rngs=rngs, dtype=dtype),
                BasicBlock(channels, channels, rngs=rngs, dtype=dtype),
            ]
            setattr(self, f"layer{stage}", nnx.List(blocks))
            in_channels = channels
        setattr(self, f"layer{self.n_stages}_outconv", _conv(block_dims[-1], block_dims[-1], 1, 1, rngs, dtype))
        # The fine map is two stages below the coarse one.
        self.pyramid_stages: tuple[int, ...] = (self.n_stages - 1, self.n_stages - 2) if fine else ()
        for stage in self.pyramid_stages:
            here, above = block_dims[stage - 1], block_dims[stage]
            setattr(self, f"layer{stage}_outconv", _conv(here, above, 1, 1, rngs, dtype))
            merge = [
                _conv(above, above, 3, 1, rngs, dtype),
                _norm(above, rngs, dtype),
                LeakyReLU(),
                _conv(above, here, 3, 1, rngs, dtype),
            ]
            setattr(self, f"layer{stage}_outconv2", nnx.List(merge))

    def __call__(self, image: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """`image [B,H,W,1]` in 0..1, sides multiples of the coarse stride -> coarse `[B,H/s,W/s,C]`, fine or None."""
        x = self.stem(image)
        features: list[jax.Array] = []
        for stage in range(1, self.n_stages + 1):
            x = self.stage(stage, x)
            features.append(x)
        coarse = self.coarse(x)
        if not self.pyramid_stages:
            return coarse, None
        fine = coarse
        for stage in self.pyramid_stages:
            fine = self.merge(stage, features[stage - 1], fine)
        return coarse, fine

    def stem(self, image: jax.Array) -> jax.Array:
        """`[B,H,W,1]` -> `[B,H/2,W/2,initial_dim]`."""
        return nnx.relu(self.bn1(self.conv1(image)))

    def stage(self, number: int, x: jax.Array) -> jax.Array:
        """The blocks of `layer1..N`: `[B,H,W,Cin] -> [B,H/stride,W/stride,Cout]`."""
        return _apply(getattr(self, f"layer{number}"), x)

    def coarse(self, x: jax.Array) -> jax.Array:
        """The last stage's features to the coarse map, `[B,h,w,C] -> [B,h,w,C]`."""
        return getattr(self, f"layer{self.n_stages}_outconv")(x)

    def merge(self, number: int, features: jax.Array, above: jax.Array) -> jax.Array:
        """One step down the pyramid.

        features: of the stage, `[B,2h,2w,C]`. above: the map of the stage above, `[B,h,w,C]`; the result is twice its
            size.
        """
        lateral = getattr(self, f"layer{number}_outconv")(features)
        return _apply(getattr(self, f"layer{number}_outconv2"), lateral + upsample_twice(above))


def _apply(steps: Any, x: jax.Array) -> jax.Array:
    for step in steps:
        x = step(x)
    return x


def upsample_twice(x: jax.Array) -> jax.Array:
    """Bilinear, `[B,H,W,C] -> [B,2H,2W,C]`, corners aligned, which `jax.image.resize` does not offer.

    The official code aligns them, and the published weights were trained with that.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        place = np.arange(2 * size) * ((size - 1) / (2 * size - 1))
        low = np.minimum(np.floor(place).astype(np.int32), max(size - 2, 0))
        shape = [1] * 4
        shape[axis] = 2 * size
        share = jnp.asarray((place - low).reshape(shape), x.dtype)
        high = np.minimum(low + 1, size - 1)
        x = jnp.take(x, low, axis=axis) * (1 - share) + jnp.take(x, high, axis=axis) * share
    return x


def run_backbone(
    backbone: ResNetFPN, image0: jax.Array, image1: jax.Array
) -> tuple[tuple[jax.Array, jax.Array | None], tuple[jax.Array, jax.Array | None]]:
    """Features of both images; one batched call when their sizes agree."""
    if image0.shape[1:] != image1.shape[1:]:
        return backbone(image0), backbone(image1)
    coarse, fine = backbone(jnp.concatenate([image0, image1]))
    coarse0, coarse1 = jnp.split(coarse, 2)
    if fine is None:
        return (coarse0, None), (coarse1, None)
    fine0, fine1 = jnp.split(fine, 2)
    return (coarse0, fine0), (coarse1, fine1)
