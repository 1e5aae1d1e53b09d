"""The two images' halves of one batch."""

from __future__ import annotations

from torch import Tensor


def halves(both: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second half `[B,...]` of `both [2*B,...]`, as views.

    An exporter that does not know B gets them as a dimension of their own: the sizes of chunks and slices come from
    divisions and comparisons, which hold for the example's B only or grow with every layer.
    """
    if isinstance(both.shape[0], int):
        first, second = both.chunk(2)
    else:
        first, second = both.unflatten(0, (2, both.shape[0] // 2)).unbind(0)
    return first, second
