"""A dense form of the first convolution of networks that take grey images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GreyConvolution(nn.Module):
    """A convolution of one channel with stride 2, written as a column convolution of many channels with stride 1.

    Pixels of 2x2 squares become channels (as in `pixel_unshuffle`), and so do the columns of squares of the kernel. A
    kernel of 7x7 then has 16 channels and 4 rows. With one channel, tensor cores use only one lane, and LoFTR's first
    convolution cost as much as the three that follow it.

    Error: ValueError for a convolution of another kind.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        side = conv.kernel_size[0]
        if (conv.in_channels, conv.stride, conv.padding) != (1, (2, 2), (side // 2, side // 2)) or side % 4 != 3:
            raise ValueError(f"not a convolution of one channel with stride 2 and a kernel of 3, 7, 11...: {conv}")
        self.squares = (side + 1) // 2
        # A row added in front makes the kernel's first row the first row of a square.
        weight = F.pad(conv.weight.detach(), (1, 0, 1, 0))
        weight = weight.reshape(conv.out_channels, self.squares, 2, self.squares, 2).permute(0, 3, 2, 4, 1)
        self.weight = nn.Parameter(weight.reshape(conv.out_channels, -1, self.squares, 1).contiguous())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach())
        self.before = (side + 1) // 4

    def forward(self, image: Tensor) -> Tensor:
        """`[B,1,H,W]`, even sides -> `[B,C,H/2,W/2]`."""
        squares = torch.cat([image[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], 1)
        after = self.squares - 1 - self.before
        padded = F.pad(squares, (self.before, after, self.before, after))
        width = squares.shape[3]
        columns = torch.cat([padded[..., shift : shift + width] for shift in range(self.squares)], 1)
        return F.conv2d(columns, self.weight, self.bias)
