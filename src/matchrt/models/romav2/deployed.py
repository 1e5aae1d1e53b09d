"""The same network in a form that engines run faster: norms folded into the convolutions before them."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from matchrt.models.romav2.network import RoMaV2
from matchrt.models.romav2.refiner import RefinerBlock


def deployed(network: RoMaV2) -> RoMaV2:
    """A network in evaluation mode with folded norms; `network` is not changed. Results differ by rounding only.

    Weights of the transformers and of the head are shared with it, not copied. Error: ValueError in training mode.
    """
    if network.training:
        raise ValueError("folding norms needs a network in evaluation mode")
    shared = {id(p): p for part in (network.f, network.matcher) for p in part.parameters()}
    result = copy.deepcopy(network, memo=dict(shared))
    for module in list(result.modules()):
        if isinstance(module, RefinerBlock):
            assert isinstance(module.norm, nn.BatchNorm2d)
            module.conv_depthwise = fuse_conv_bn_eval(module.conv_depthwise, module.norm)
            module.norm = nn.Identity()
    layers = result.refiner_features.layers
    for index in range(len(layers) - 1):
        convolution, norm = layers[index], layers[index + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[index], layers[index + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return result.eval()
