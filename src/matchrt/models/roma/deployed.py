"""The same network in a form that engines run faster: norms folded into convolutions, refiners padded with zeros.

Nothing here changes a result beyond rounding. The published refiners have 1377, 1137 and 569 channels, of which 225, 49
and 25 are the window of correlations. With the window padded to 256, 64 and 32 they have 1408, 1152 and 576 channels.
These are multiples of 64, which fill tensor cores. The added weights are zero, and so are the values that they compute.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from matchrt.models.roma.match_decoder import TwoHeads
from matchrt.models.roma.network import RoMa
from matchrt.models.roma.projection import Projection, RowProjection
from matchrt.models.roma.refiner import ConvRefiner
from matchrt.models.roma.transformer import Attention, Block

# Channels of the padded refiners are multiples of it.
MULTIPLE = 64


def deployed(network: RoMa, multiple: int = MULTIPLE) -> RoMa:
    """A network in evaluation mode with folded norms and padded refiners; `network` is not changed.

    DINOv2's and the match decoder's weights are shared with it, except those of queries, keys and values. Error:
    ValueError in training mode.
    """
    if network.training:
        raise ValueError("folding norms needs a network in evaluation mode")
    shared = {id(p): p for part in (network.dinov2, network.decoder.embedding_decoder) for p in part.parameters()}
    result = copy.deepcopy(network, memo=dict(shared))
    _fold_norms(result)
    decoder = result.decoder
    for scale, refiner in decoder.conv_refiner.items():
        assert isinstance(refiner, ConvRefiner)
        if refiner.config.radius:
            # The other scales only sample. There, laying the encoder's maps out as rows costs more than it gains.
            decoder.proj[scale] = _row_projection(decoder.proj[scale])
            _pad(refiner, multiple)
        _merge_last(refiner)
    for block in (*result.dinov2.blocks, *decoder.embedding_decoder.blocks):
        assert isinstance(block, Block)
        scale_queries(block.attn)
    assert isinstance(decoder.embedding_decoder.to_out, nn.Linear)
    decoder.embedding_decoder.to_out = TwoHeads(decoder.embedding_decoder.to_out)
    return result.eval()


def _fold_norms(module: nn.Module) -> None:
    """Replaces each convolution and the norm behind it, in every Sequential, by one convolution and an Identity."""
    for child in module.modules():
        if not isinstance(child, nn.Sequential):
            continue
        for index in range(len(child) - 1):
            first, second = child[index], child[index + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                child[index] = fuse_conv_bn_eval(first, second)
                child[index + 1] = nn.Identity()


def _row_projection(projection: nn.Module) -> RowProjection:
    assert isinstance(projection, Projection) and isinstance(projection[0], nn.Conv2d)
    return RowProjection(projection[0])


def scale_queries(attention: Attention) -> None:
    """Puts the attention's factor into the rows of `qkv` that give the queries. The layer given is not changed."""
    qkv = attention.qkv
    factor = torch.ones(qkv.out_features)
    factor[: qkv.in_features] = attention.scale
    scaled = nn.Linear(1, 1, bias=qkv.bias is not None)
    scaled.weight = nn.Parameter(qkv.weight.detach() * factor[:, None])
    if qkv.bias is not None:
        scaled.bias = nn.Parameter(qkv.bias.detach() * factor)
    attention.qkv, attention.scale = scaled, 1.0


def _pad(refiner: ConvRefiner, multiple: int) -> None:
    channels = refiner.config.channels
    extra = -channels % multiple
    refiner.padding = extra
    for block in (refiner.block1, *refiner.hidden_blocks):
        assert isinstance(block, nn.Sequential)
        block[0] = _padded(block[0], extra, 0)
        block[3] = _padded(block[3], extra, extra)
    refiner.out_conv = _padded(refiner.out_conv, 0, extra)


def _merge_last(refiner: ConvRefiner) -> None:
    """Makes one convolution of the last block's 1x1 and the output's 1x1: nothing is between them."""
    block = refiner.hidden_blocks[-1]
    assert isinstance(block, nn.Sequential)
    inner, outer = block[3], refiner.out_conv
    assert isinstance(inner, nn.Conv2d) and inner.bias is not None and outer.bias is not None
    merged = nn.Conv2d(inner.in_channels, outer.out_channels, 1)
    weight = outer.weight.flatten(1).double()
    with torch.no_grad():
        merged.weight.copy_((weight @ inner.weight.flatten(1).double())[:, :, None, None])
        merged.bias.copy_(weight @ inner.bias.double() + outer.bias)  # type: ignore[union-attr]
    block[3] = nn.Identity()
    refiner.out_conv = merged


def _padded(conv: nn.Module, outputs: int, inputs: int) -> nn.Conv2d:
    """A convolution with zero filters added; depthwise ones get more groups."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    depthwise = conv.groups > 1
    result = nn.Conv2d(
        conv.in_channels + (outputs if depthwise else inputs),
        conv.out_channels + outputs,
        conv.kernel_size,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        groups=conv.groups + outputs if depthwise else 1,
    )
    with torch.no_grad():
        result.weight.copy_(F.pad(conv.weight, (0, 0, 0, 0, 0, 0 if depthwise else inputs, 0, outputs)))
        result.bias.copy_(F.pad(conv.bias, (0, outputs)))  # type: ignore[union-attr]
    return result
