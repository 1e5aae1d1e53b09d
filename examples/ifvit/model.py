"""A dense-registration network: ResNet-18 down to 1/8, LoFTR's transformer, a dual-softmax head."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from examples.ifvit.config import STRIDE, Config
from matchrt.flax.weights import load_loftr_weights, merge_loftr
from matchrt.models.loftr.flax.attention import LocalFeatureTransformer
from matchrt.models.loftr.flax.position import sine_encoding, sine_frequencies
from matchrt.models.loftr.flax.resnet_fpn import BasicBlock


class ResNet18Eighth(nnx.Module):
    """ResNet-18 (He et al., CVPR 2016) up to its stage at 1/8, `[B,H,W,1] -> [B,H/8,W/8,hidden_dim]`."""

    def __init__(self, hidden_dim: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 64, (7, 7), 2, padding=((3, 3), (3, 3)), use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(64, momentum=0.9, rngs=rngs)
        self.layer1 = nnx.List([BasicBlock(64, 64, rngs=rngs), BasicBlock(64, 64, rngs=rngs)])
        self.layer2 = nnx.List([BasicBlock(64, 128, 2, rngs=rngs), BasicBlock(128, 128, rngs=rngs)])
        self.out = nnx.Conv(128, hidden_dim, (1, 1), use_bias=False, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        """See the class."""
        x = nnx.relu(self.bn1(self.conv1(image)))
        x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for block in (*self.layer1, *self.layer2):
            x = block(x)
        return self.out(x)


class DenseRegistration(nnx.Module):
    """Two prints to the probability that a cell of the one lies in a cell of the other."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.backbone = ResNet18Eighth(config.hidden_dim, rngs=rngs)
        self.transformer = LocalFeatureTransformer(config.transformer, rngs=rngs) if config.use_loftr else None
        self.temperature = config.temperature

    def __call__(self, image0: jax.Array, image1: jax.Array) -> jax.Array:
        """Images `[B,S,S,1]` in 0..1 -> cosine similarity over temperature `[B,L,L]` of their cells."""
        return self.similarity(*self.tokens(image0, image1))

    def similarity(self, tokens0: jax.Array, tokens1: jax.Array) -> jax.Array:
        """Tokens `[B,L,C]` -> cosine similarity over temperature `[B,L,L]`."""
        return jnp.einsum("blc,bsc->bls", unit(tokens0), unit(tokens1)) / self.temperature

    def tokens(self, image0: jax.Array, image1: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images `[B,S,S,1]` in 0..1 -> what the transformer says of their cells, `[B,L,C]` each."""
        features = self.backbone(jnp.concatenate([image0, image1]))
        batch, height, width, channels = features.shape
        code = sine_encoding(height, width, sine_frequencies(channels, fixed_divisor=True))
        tokens = (features + code).reshape(batch, height * width, channels)
        tokens0, tokens1 = jnp.split(tokens, 2)
        if self.transformer is not None:
            tokens0, tokens1 = self.transformer(tokens0, tokens1)
        return tokens0, tokens1


def unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis."""
    return x / jnp.sqrt((x**2).sum(axis=-1, keepdims=True) + 1e-6)


def create_model(config: Config, tell: Callable[[str], None] = lambda text: None) -> DenseRegistration:
    """The model of a config, its transformer started from `loftr_pretrained_ckpt` where one is named.

    tell: hears what was loaded, and what stays fresh.
    """
    model = DenseRegistration(config, rngs=nnx.Rngs(config.seed))
    if config.loftr_pretrained_ckpt is not None:
        tell(merge_loftr(model, load_loftr_weights(config.loftr_pretrained_ckpt, config.transformer)).summary())
    return model


def dense_loss(scores: jax.Array, target: jax.Array, valid: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The loss and the mean distance in pixels between expected and true place, over cells with a true place.

    scores `[B,L,L]`, target `[B,L,2]` (pixels), valid bool `[B,L]`. The loss is LoFTR's: the negative logarithm of the
    dual softmax at the true cell; beside it the distance of the expected place, in cells.
    """
    cells = size // STRIDE
    nearest = jnp.clip(jnp.round(target / STRIDE).astype(jnp.int32), 0, cells - 1)
    index = nearest[..., 1] * cells + nearest[..., 0]
    rows, columns = nnx.log_softmax(scores, axis=2), nnx.log_softmax(scores, axis=1)
    chosen = jnp.take_along_axis(rows + columns, index[:, :, None], axis=2)[:, :, 0]
    row, column = jnp.divmod(jnp.arange(cells * cells), cells)
    places = jnp.stack([column, row], axis=1) * float(STRIDE)
    distance = jnp.sqrt(((jnp.exp(rows) @ places - target) ** 2).sum(axis=2) + 1e-6)
    share = valid / jnp.maximum(valid.sum(), 1)
    pixels = (distance * share).sum()
    return -(chosen * share).sum() + pixels / STRIDE, pixels
