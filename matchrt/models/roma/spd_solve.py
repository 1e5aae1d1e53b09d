"""Solving symmetric positive definite systems with matrix products only.

Engines have neither Cholesky nor an inverse. Here a block elimination (block LDL^T) runs over a few large diagonal
blocks, and each block is inverted by a scaled Newton-Schulz iteration whose coefficients are fixed when the graph is
made:

- Every eigenvalue of the matrix lies in [floor, ceiling]. The blocks that elimination leaves are Schur complements of
  it, hence symmetric positive definite with the same floor, and never larger than the original block; so one bound,
  known before any data is seen, serves all of them. Nothing is divided by data and nothing can leave its range.
- Newton-Schulz `X <- X(2I - AX)` squares the error `I - AX`. While the spectrum of AX still spans [l, 2 - l], scaling
  each step by 2 / (1 + l(2 - l)) multiplies l by nearly 4 instead of 2 (Pan and Schreiber, SIAM J. Sci. Stat. Comput.
  12(5), 1991). The last steps are unscaled: they correct the rounding of the earlier ones.
- Without pivoting, elimination on symmetric positive definite blocks is stable.

It must stay float32: with half or TF32 products a condition of 1e4 leaves no digit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def newton_schulz_scales(floor: float, ceiling: float, unscaled: int = 3) -> tuple[float, ...]:
    """Factors of the Newton-Schulz steps that invert any matrix whose eigenvalues lie in [floor, ceiling].

    Scaled steps until the error is below 1/2, then `unscaled` steps with factor 1 (error 2^-8 after three, each
    squaring it; a fourth is added where float32 needs it).
    """
    low = 2.0 * floor / (floor + ceiling)
    scales: list[float] = []
    while 1.0 - low > 0.5:
        image = low * (2.0 - low)
        factor = 2.0 / (1.0 + image)
        scales.append(factor)
        low = factor * image
    return (*scales, *([1.0] * unscaled))


def invert_spd(matrix: Tensor, floor: float, ceiling: float) -> Tensor:
    """The inverse of `matrix [B,n,n]`, symmetric with eigenvalues in [floor, ceiling]."""
    size = matrix.shape[-1]
    twice = 2.0 * torch.eye(size, device=matrix.device, dtype=matrix.dtype)
    start = 2.0 / (floor + ceiling)
    # The first step from X = start * I needs no product.
    first, *rest = newton_schulz_scales(floor, ceiling, unscaled=5)
    inverse = (first * start) * (twice - start * matrix)
    for scale in rest:
        inverse = inverse @ (scale * (twice - matrix @ inverse))
    return inverse


def solve_spd(matrix: Tensor, right: Tensor, floor: float, ceiling_margin: float, block: int) -> Tensor:
    """`matrix^-1 right` for `matrix [B,N,N]`, `right [B,N,M]`.

    matrix: symmetric, eigenvalues at least `floor`, entries at most 1 beside the diagonal and 1 + `ceiling_margin` on
    it, so that a block of n rows has no eigenvalue above n + `ceiling_margin`. block: largest diagonal block.
    """
    sizes = block_sizes(matrix.shape[1], block)
    system = torch.cat([matrix, right], dim=2)
    eliminated: list[Tensor] = []
    inverses: list[Tensor] = []
    for size in sizes:
        head, below = system[:, :size], system[:, size:]
        pivot = invert_spd(head[:, :, :size], floor, size + ceiling_margin)
        eliminated.append(head[:, :, size:])
        inverses.append(pivot)
        if below.shape[1]:
            system = below[:, :, size:] - (below[:, :, :size] @ pivot) @ head[:, :, size:]
    columns = right.shape[2]
    solution: Tensor | None = None
    for pivot, row in zip(reversed(inverses), reversed(eliminated), strict=True):
        width = row.shape[2] - columns
        value = row[:, :, width:]
        if solution is not None:
            value = value - row[:, :, :width] @ solution
        part = pivot @ value
        solution = part if solution is None else torch.cat([part, solution], dim=1)
    assert solution is not None
    return solution


def block_sizes(total: int, block: int) -> tuple[int, ...]:
    """Nearly equal parts of `total`, none above `block`."""
    count = -(-total // block)
    base, extra = divmod(total, count)
    return tuple(base + (index < extra) for index in range(count))
