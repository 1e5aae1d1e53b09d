"""The same network in a form that engines run faster. Nothing here changes a result beyond rounding.

Norms are folded into the convolutions before them. The last 1x1 convolution of each refiner and its two heads are one
convolution, as nothing is between them. Projected features of scale 1 are padded from 12 to 16 channels, so that no row
begins at an odd place in memory. The factor of attention is in the weights of the queries: rotating is linear.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from matchrt.models.roma.deployed import scale_queries
from matchrt.models.romav2.network import RoMaV2
from matchrt.models.romav2.refiner import Refiner, RefinerBlock
from matchrt.models.romav2.transformer import Attention

# Values of 16 bits that GPUs read and write at once.
MULTIPLE = 8


def deployed(network: RoMaV2) -> RoMaV2:
    """A network in evaluation mode with folded norms; `network` is not changed. Results differ by rounding only.

    Weights of the transformers and of the head are shared with it, not copied, except those of queries, keys and
    values. Error: ValueError in training mode.
    """
    if network.training:
        raise ValueError("folding norms needs a network in evaluation mode")
    shared = {id(p): p for part in (network.f, network.matcher) for p in part.parameters()}
    result = copy.deepcopy(network, memo=dict(shared))
    for module in list(result.modules()):
        if isinstance(module, Attention):
            scale_queries(module)
        if isinstance(module, RefinerBlock):
            assert isinstance(module.norm, nn.BatchNorm2d)
            module.conv_depthwise = fuse_conv_bn_eval(module.conv_depthwise, module.norm)
            module.norm = nn.Identity()
    for refiner in result.refiners.values():
        assert isinstance(refiner, Refiner)
        if refiner.correlation is None:  # a correlation divides by the root of the number of channels
            refiner.proj = _padded_convolution(refiner.proj)
        _merge_heads(refiner)
    layers = result.refiner_features.layers
    for index in range(len(layers) - 1):
        convolution, norm = layers[index], layers[index + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[index], layers[index + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return result.eval()


def _padded_convolution(linear: nn.Module) -> nn.Conv2d:
    """The layer as a 1x1 convolution, with outputs of zero behind its own, up to a multiple of `MULTIPLE`.

    Where features are only sampled, laying the encoder's maps out as rows costs more than it gains.
    """
    assert isinstance(linear, nn.Linear)
    extra = -linear.out_features % MULTIPLE
    result = nn.Conv2d(linear.in_features, linear.out_features + extra, 1)
    assert result.bias is not None
    with torch.no_grad():
        result.weight.copy_(F.pad(linear.weight, (0, 0, 0, extra))[:, :, None, None])
        result.bias.copy_(F.pad(linear.bias, (0, extra)))
    return result


def _merge_heads(refiner: Refiner) -> None:
    """Makes one convolution of the last block's 1x1 and both heads."""
    block = refiner.hidden_blocks[-1]
    assert isinstance(block, RefinerBlock) and isinstance(block.conv_pointwise, nn.Conv2d)
    inner, heads = block.conv_pointwise, (refiner.warp_head, refiner.confidence_head)
    assert inner.bias is not None
    weight = torch.cat([head.weight for head in heads]).flatten(1).double()
    bias = torch.cat([head.bias for head in heads if head.bias is not None])
    merged = nn.Conv2d(inner.in_channels, weight.shape[0], 1)
    with torch.no_grad():
        merged.weight.copy_((weight @ inner.weight.flatten(1).double())[:, :, None, None])
        merged.bias.copy_(weight @ inner.bias.double() + bias)  # type: ignore[union-attr]
    block.conv_pointwise = nn.Identity()
    refiner.merged_heads = merged
