"""Grid networks in a form that engines run faster: a dense first convolution, channels that fill tensor cores, windows
whose heads are computed together.

Nothing here changes a result beyond rounding. What is added is zero, and so is what flows through it.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.eloftr.network import ELoFTR
from matchrt.models.eloftr.repvgg import RepVGGBlock
from matchrt.models.loftr.attention import LoFTREncoderLayer
from matchrt.models.loftr.network import LoFTR
from matchrt.models.loftr.resnet_fpn import ResNetFPN

# Channels of convolutions in the backbone are multiples of it; tensor cores need 8 in half precision, 16 in int8.
MULTIPLE = 16


class GreyConvolution(nn.Module):
    """A convolution of one channel with stride 2, as a column convolution of many channels with stride 1.

    Pixels of 2x2 squares become channels (as `pixel_unshuffle`), and so do the kernel's columns of squares. A kernel of
    7x7 then has 16 channels and 4 rows: on one channel, tensor cores idle in all but one lane, which made LoFTR's first
    convolution as costly as the three that follow it.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        side = conv.kernel_size[0]
        if (conv.in_channels, conv.stride, conv.padding) != (1, (2, 2), (side // 2, side // 2)) or side % 4 != 3:
            raise ValueError(f"not a convolution of one channel with stride 2 and a kernel of 3, 7, 11...: {conv}")
        self.squares = (side + 1) // 2
        # A row in front makes the kernel's first row the first of a square.
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


def deployed(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode; `network`, a LoFTR or an ELoFTR, stays as it is."""
    result = copy.deepcopy(network)
    if isinstance(result, LoFTR):
        _deploy_loftr(result)
    else:
        assert isinstance(result, ELoFTR)
        _deploy_eloftr(result)
    return result.eval()


def _deploy_loftr(result: LoFTR) -> None:
    backbone = aligned(result.backbone)
    backbone.conv1 = GreyConvolution(backbone.conv1)  # type: ignore[assignment]
    result.backbone = backbone
    if result.config.fine is not None:
        for layer in result.loftr_fine.layers:
            assert isinstance(layer, LoFTREncoderLayer)
            layer.windows = True


def _deploy_eloftr(result: ELoFTR) -> None:
    first = result.backbone.layer0
    assert isinstance(first, RepVGGBlock)
    first.rbr_reparam = GreyConvolution(first.rbr_reparam)  # type: ignore[assignment]


def aligned(backbone: ResNetFPN, multiple: int = MULTIPLE) -> ResNetFPN:
    """The backbone with channels added to the stages that nothing outside sees, up to the next multiple.

    LoFTR's second stage has 196 channels, which tensor cores do not take: with 208 it runs two to three times as fast.
    """
    dims = list(backbone.block_dims)
    seen = {len(dims) - 1, *([len(dims) - 3] if backbone.pyramid_stages else [])}
    dims = [side if index in seen else side + -side % multiple for index, side in enumerate(dims)]
    result = ResNetFPN(dims[0], tuple(dims), fine=bool(backbone.pyramid_stages))
    given = backbone.state_dict()
    state = {}
    for key, tensor in result.state_dict().items():
        # A norm divides by the square root of the variance.
        state[key] = torch.ones_like(tensor) if key.endswith("running_var") else torch.zeros_like(tensor)
        state[key][tuple(slice(side) for side in given[key].shape)] = given[key]
    result.load_state_dict(state)
    return result.eval()
