"""LoFTR in a form that engines run faster.

Its first convolution is dense, its channels fill tensor cores, and the heads of a window are computed together. Nothing
here changes a result beyond rounding: the added weights are zero, and so are the values that they compute.
"""

from __future__ import annotations

import copy

import torch

from matchrt.models.loftr.attention import LoFTREncoderLayer
from matchrt.models.loftr.network import LoFTR
from matchrt.models.loftr.resnet_fpn import ResNetFPN
from matchrt.models.parts.grey_convolution import GreyConvolution

# Channels of the backbone's convolutions are multiples of this; tensor cores need 8 in half precision, 16 in int8.
MULTIPLE = 16


def deployed(network: LoFTR) -> LoFTR:
    """A copy in evaluation mode; `network` is not changed."""
    result = copy.deepcopy(network)
    backbone = aligned(result.backbone)
    backbone.conv1 = GreyConvolution(backbone.conv1)  # type: ignore[assignment]
    result.backbone = backbone
    if result.config.fine is not None:
        for layer in result.loftr_fine.layers:
            assert isinstance(layer, LoFTREncoderLayer)
            layer.windows = True
    return result.eval()


def aligned(backbone: ResNetFPN, multiple: int = MULTIPLE) -> ResNetFPN:
    """The backbone with channels added, up to the next multiple, to the stages whose features nothing else reads.

    LoFTR's second stage has 196 channels, which tensor cores cannot use. With 208 it runs two to three times as fast.
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
