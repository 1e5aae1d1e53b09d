"""The networks that are trained here, in the form in which they are trained."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import nn

from matchrt.models.eloftr.config import ELOFTR_LITE
from matchrt.models.eloftr.network import ELoFTR
from matchrt.models.eloftr.repvgg import RepVGGBlock, RepVGGBranches
from matchrt.models.loftr.config import LOFTR_LITE
from matchrt.models.loftr.network import LoFTR
from matchrt.models.parts.config import CoarseMatchConfig

Network = LoFTR | ELoFTR


def new_network(name: str) -> Network:
    """The network of that name with fresh weights, in training form. Error: KeyError for another name."""
    return {"loftr-lite": _loftr, "eloftr-lite": _eloftr}[name]()


NAMES = ("loftr-lite", "eloftr-lite")


def _loftr() -> LoFTR:
    net = LoFTR(LOFTR_LITE)
    for parameter in net.parameters():
        if parameter.dim() > 1 and parameter.dim() != 4:
            nn.init.xavier_uniform_(parameter)
        elif parameter.dim() == 4:
            nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
    return net


def _eloftr() -> ELoFTR:
    # Scores are made anew by weights of their own, which `tools.train_lite.rescoring` makes afterwards.
    net = ELoFTR(replace(ELOFTR_LITE, rescored=False, match=CoarseMatchConfig()))
    branch(net)
    for name, parameter in net.named_parameters():
        if name.endswith("aggregate.weight"):
            # A depthwise convolution over squares of cells starts as their mean.
            nn.init.constant_(parameter, 1.0 / parameter[0].numel())
        elif parameter.dim() == 4:
            nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
        elif parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    return net


def branch(net: ELoFTR) -> None:
    """Gives every RepVGG block its training form: three normalised branches, which export fuses."""
    for path, block in list(net.backbone.named_modules()):
        if isinstance(block, RepVGGBlock):
            conv = block.rbr_reparam
            parts = RepVGGBranches(conv.in_channels, conv.out_channels, conv.stride[0])
            holder = net.backbone.get_submodule(path.rpartition(".")[0])
            holder.register_module(path.rpartition(".")[2], parts)


def fuse(net: ELoFTR) -> None:
    """The reverse of `branch`: one convolution a block, which computes the same as the evaluation form's branches."""
    for path, block in list(net.backbone.named_modules()):
        if isinstance(block, RepVGGBranches):
            conv = block.rbr_dense.conv
            one = RepVGGBlock(conv.in_channels, conv.out_channels, conv.stride[0])
            weight, bias = block.fused()
            with torch.no_grad():
                one.rbr_reparam.weight.copy_(weight.to(torch.float32))
                cast(torch.Tensor, one.rbr_reparam.bias).copy_(bias.to(torch.float32))
            holder = net.backbone.get_submodule(path.rpartition(".")[0])
            holder.register_module(path.rpartition(".")[2], one)
