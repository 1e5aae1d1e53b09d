"""LoFTR in a form that engines run faster: a dense first convolution, channels that fill tensor cores, windows whose
heads are computed together.

Nothing here changes a result beyond rounding. What is added is zero, and so is what flows through it.
"""

from __future__ import annotations

import copy

import torch

from matchrt.models.loftr.attention import LoFTREncoderLayer
from matchrt.models.loftr.network import LoFTR
from matchrt.models.loftr.resnet_fpn import ResNetFPN
from matchrt.models.parts.grey_convolution import GreyConvolution

# Channels of convolutions in the backbone are multiples of it; tensor cores need 8 in half precision, 16 in int8.
MULTIPLE = 16


def deployed(network: LoFTR) -> LoFTR:
    """A copy in evaluation mode; `network` stays as it is."""
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
