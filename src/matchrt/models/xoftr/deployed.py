"""XoFTR in a form that engines run faster: a dense first convolution, channels that fill tensor cores, a folded norm.

Nothing here changes a result beyond rounding: the added weights are zero, and so are the values that they compute.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from matchrt.models.loftr.deployed import aligned
from matchrt.models.parts.grey_convolution import GreyConvolution
from matchrt.models.xoftr.backbone import XoFTRBackbone
from matchrt.models.xoftr.network import XoFTR


def deployed(network: XoFTR) -> XoFTR:
    """A copy in evaluation mode; `network` is not changed."""
    result = copy.deepcopy(network)
    wider = aligned(network.backbone)
    backbone = XoFTRBackbone(wider.block_dims)
    backbone.load_state_dict(wider.state_dict())
    backbone.conv1 = GreyConvolution(backbone.conv1)  # type: ignore[assignment]
    result.backbone = backbone
    # The features at 1/4 have channels that are zero now, and this convolution alone reads them, besides the backbone.
    fine = result.fine_process
    fine.out_conv_m = _with_inputs(fine.out_conv_m, wider.block_dims[1])
    point, depthwise, norm = fine.conv_merge
    assert isinstance(depthwise, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    fine.conv_merge = nn.Sequential(point, fuse_conv_bn_eval(depthwise.eval(), norm.eval()))
    return result.eval()


def _with_inputs(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """The 1x1 convolution with that many input channels, of which the added ones count nothing."""
    result = nn.Conv2d(channels, conv.out_channels, 1, bias=False)
    with torch.no_grad():
        result.weight.zero_()
        result.weight[:, : conv.in_channels] = conv.weight
    return result
