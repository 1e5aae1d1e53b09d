"""LoFTR and its relatives in JAX, with the stages and names of `matchrt.models.loftr.network`.

Pixel coordinates: x right, y down, the centre of the top-left pixel is (0, 0). A coarse cell (row i, column j)
represents the pixel (j*stride, i*stride).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from matchrt.models.loftr.config import LoFTRConfig
from matchrt.models.loftr.flax.attention import LocalFeatureTransformer
from matchrt.models.loftr.flax.coarse_matching import Grid, dual_softmax, select_matches, similarity
from matchrt.models.loftr.flax.fine_refinement import FinePreprocess, FineRefinement, gather_windows
from matchrt.models.loftr.flax.position import sine_encoding, sine_frequencies
from matchrt.models.loftr.flax.resnet_fpn import ResNetFPN, run_backbone

Pair = tuple[jax.Array, jax.Array]


class MatchArrays(NamedTuple):
    """K match slots for each pair, sorted by score; rows after `num_matches` are zero.

    keypoints0: float32 `[B,K,2]`, (x, y) in pixels of the network's input 0.
    keypoints1: float32 `[B,K,2]`, the matching points in pixels of input 1.
    scores: float32 `[B,K]` in 0..1, descending.
    num_matches: int32 `[B]`, how many of the K slots are matches.
    """

    keypoints0: jax.Array
    keypoints1: jax.Array
    scores: jax.Array
    num_matches: jax.Array


class LoFTR(nnx.Module):
    """The network. A call gives matches; the stages are methods, so that each can be tested and trained alone.

    dtype: in which features are computed; None for float32. Parameters and matching stay float32.

    A new network is in training mode: call `eval()` before matching, so that BatchNorm uses its running statistics.
    """

    def __init__(self, config: LoFTRConfig, *, rngs: nnx.Rngs, dtype: Any = None) -> None:
        self.config = config
        self.dtype = dtype
        self.backbone = ResNetFPN(
            config.initial_dim, config.block_dims, fine=config.fine is not None, rngs=rngs, dtype=dtype
        )
        self.loftr_coarse = LocalFeatureTransformer(config.coarse, rngs=rngs, dtype=dtype)
        if config.fine is not None:
            fine = config.fine
            self.fine_preprocess = FinePreprocess(config.coarse.d_model, fine.d_model, rngs=rngs, dtype=dtype)
            self.loftr_fine = LocalFeatureTransformer(fine, rngs=rngs, dtype=dtype)
            self.fine_matching = FineRefinement(fine, config.fine_window)

    def tokens(self, coarse: jax.Array) -> jax.Array:
        """Coarse map `[B,h,w,C]` -> tokens `[B,h*w,C]` with the position encoding; row-major cells."""
        batch, height, width, channels = coarse.shape
        frequencies = sine_frequencies(self.config.coarse.d_model, self.config.fixed_position_divisor)
        encoded = coarse + jnp.asarray(sine_encoding(height, width, frequencies), coarse.dtype)
        return encoded.reshape(batch, height * width, channels)

    def encode_coarse(
        self,
        coarse0: jax.Array,
        coarse1: jax.Array,
        mask0: jax.Array | None = None,
        mask1: jax.Array | None = None,
    ) -> Pair:
        """Coarse maps `[B,h,w,C]` -> tokens `[B,h*w,C]` after position encoding and transformer.

        mask0, mask1: bool `[B,h*w]`, False for padding; None if there is none.
        """
        return self.loftr_coarse(self.tokens(coarse0), self.tokens(coarse1), mask0, mask1)

    def similarity(
        self,
        tokens0: jax.Array,
        tokens1: jax.Array,
        mask0: jax.Array | None = None,
        mask1: jax.Array | None = None,
    ) -> jax.Array:
        """Similarity logits `[B,L,S]`, temperature applied; `dual_softmax` of it is the confidence."""
        return similarity(tokens0, tokens1, self.config.match.temperature, mask0, mask1)

    def refine(self, fine: Pair, tokens: Pair, cells: Pair, widths: tuple[int, int]) -> Pair:
        """Refines matches; every argument is a pair, of image 0 and image 1.

        fine: fine maps `[B,H,W,C]`.
        tokens: coarse features `[B,L,C]`.
        cells: int `[B,K]`, the matched cells.
        widths: columns of the coarse grids.

        Returns the expectation `[B,K,2]` (x, y) in -1..1 of image 1's window, and its standard deviation `[B,K]`.
        """
        windows0, windows1 = self.fine_windows(fine, tokens, cells, widths)
        expectation, deviation = self.fine_matching(*self.loftr_fine(windows0, windows1))
        batch, count = cells[0].shape
        return expectation.reshape(batch, count, 2), deviation.reshape(batch, count)

    def fine_windows(self, fine: Pair, tokens: Pair, cells: Pair, widths: tuple[int, int]) -> Pair:
        """The windows `[B*K,25,C]` of both images that enter the fine transformer; arguments as in `refine`."""
        ratio = self.config.coarse_stride // self.config.fine_stride
        windows = (
            gather_windows(features, index, width, ratio, self.config.fine_window)
            for features, index, width in zip(fine, cells, widths, strict=True)
        )
        first, second = (self.fine_preprocess(*item) for item in zip(windows, tokens, cells, strict=True))
        return first, second

    def __call__(
        self,
        image0: jax.Array,
        image1: jax.Array,
        size0: jax.Array | None = None,
        size1: jax.Array | None = None,
        max_matches: int = 2048,
    ) -> MatchArrays:
        """Matches of grey images `[B,H,W,1]` in 0..1.

        The images may differ in size; sides are multiples of the coarse stride.
        size0, size1: int `[B,2]`, valid height and width in pixels, the rest is padding; None for no padding.
        max_matches: K, the match slots of each pair; static under jit.
        """
        (coarse0, fine0), (coarse1, fine1) = run_backbone(self.backbone, image0, image1)
        grid0, grid1 = self.grid(coarse0, size0), self.grid(coarse1, size1)
        mask0, mask1 = grid0.mask(), grid1.mask()
        tokens0, tokens1 = self.encode_coarse(coarse0, coarse1, mask0, mask1)
        confidence = dual_softmax(self.similarity(tokens0, tokens1, mask0, mask1))
        matches = select_matches(confidence, grid0, grid1, self.config.match, max_matches)
        keypoints0, keypoints1 = self.pixels(matches.index0, grid0), self.pixels(matches.index1, grid1)
        if fine0 is not None and fine1 is not None:
            cells = (matches.index0, matches.index1)
            expectation, _ = self.refine((fine0, fine1), (tokens0, tokens1), cells, (grid0.width, grid1.width))
            keypoints1 = keypoints1 + expectation * self.config.fine_radius
        return finished(keypoints0, keypoints1, matches.scores)

    def grid(self, coarse: jax.Array, size: jax.Array | None = None) -> Grid:
        """The grid of a coarse map `[B,h,w,C]` whose image is valid within `size` int `[B,2]` (pixels)."""
        height, width = coarse.shape[1:3]
        if size is None:
            return Grid(height, width)
        # A cell is image if its own pixel is, as in a nearest-neighbour reduction of the pixel mask.
        stride = self.config.coarse_stride
        return Grid(height, width, (size + stride - 1) // stride)

    def pixels(self, cells: jax.Array, grid: Grid) -> jax.Array:
        """Cells int `[B,K]` -> their pixels float32 `[B,K,2]` (x, y)."""
        row, column = jnp.divmod(cells, grid.width)
        return jnp.stack([column, row], axis=2).astype(jnp.float32) * self.config.coarse_stride


def finished(keypoints0: jax.Array, keypoints1: jax.Array, scores: jax.Array) -> MatchArrays:
    """Counts the slots with a score above 0, and zeroes the points of the others; shapes as in `MatchArrays`."""
    real = scores > 0
    keep = real[:, :, None]
    return MatchArrays(
        jnp.where(keep, keypoints0, 0.0),
        jnp.where(keep, keypoints1, 0.0),
        scores,
        real.sum(axis=1).astype(jnp.int32),
    )
