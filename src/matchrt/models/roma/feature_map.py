"""Feature maps as rows: the channels of a pixel lie side by side in memory.

Sampling and correlation read whole pixels at places that the flow gives. A map `[B,C,H,W]` has the channels of a pixel
H * W values apart. Compilers do not lay such a map out anew before they read it: they fuse the transposition into the
gather, which then reads single values (docs/models/roma.md). So maps are made as rows, by products
that write them, and stay rows up to the input of the convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matchrt.models.roma.config import Size


@dataclass(frozen=True)
class FeatureMap:
    """Features of a batch of images, which may be a part of a larger stack or another order of it.

    stack: `[T, height*width, C]`, the rows of T images.
    size: (height, width) of the map in pixels.
    first: image b of the batch is image (first + b) mod T of the stack.
    count: images in the batch.
    """

    stack: Tensor
    size: Size
    first: int
    count: int

    @classmethod
    def of(cls, features: Tensor) -> FeatureMap:
        """The map of `[B,C,H,W]`. Its rows are a view, which lies in memory as `features` does."""
        return cls.of_rows(features.flatten(2).transpose(1, 2), (features.shape[2], features.shape[3]))

    @classmethod
    def of_rows(cls, rows: Tensor, size: Size) -> FeatureMap:
        """The map of `rows [B, height*width, C]`."""
        return cls(rows, size, 0, rows.shape[0])

    @property
    def table(self) -> Tensor:
        """The rows of the whole stack, `[T*height*width, C]`."""
        return self.stack.flatten(0, 1)

    @property
    def rows(self) -> Tensor:
        """The rows of the batch, `[B, height*width, C]`; a copy if the batch runs over the end of the stack."""
        total, last = self.stack.shape[0], self.first + self.count
        if last <= total:
            return self.stack if self.count == total else self.stack[self.first : last]
        return torch.cat([self.stack[self.first :], self.stack[: last - total]])

    def planes(self) -> Tensor:
        """The batch as `[B,C,height,width]`."""
        rows = self.rows
        return rows.transpose(1, 2).reshape(self.count, rows.shape[2], *self.size)

    def starts(self) -> Tensor:
        """Where in `table` each image of the batch begins, int32 `[B]`."""
        images = torch.arange(self.first, self.first + self.count, device=self.stack.device, dtype=torch.int32)
        return images % self.stack.shape[0] * (self.size[0] * self.size[1])

    def part(self, first: int, count: int) -> FeatureMap:
        """`count` images from image `first` of the batch on; behind the last of the stack comes its first."""
        return replace(self, first=(self.first + first) % self.stack.shape[0], count=count)
