"""RepVGG (Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021): its blocks and their fusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-5


class _ConvNorm(nn.Module):
    """A convolution without bias and its BatchNorm, named as checkpoints name them."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class RepVGGBranches(nn.Module):
    """The training form of a block: 3x3, 1x1 and, where shapes allow, identity; each normalised, then summed.

    `[B,Cin,H,W] -> [B,Cout,H/stride,W/stride]`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.rbr_dense = _ConvNorm(in_channels, out_channels, 3, stride)
        self.rbr_1x1 = _ConvNorm(in_channels, out_channels, 1, stride)
        self.rbr_identity: nn.BatchNorm2d | None = None
        if in_channels == out_channels and stride == 1:
            self.rbr_identity = nn.BatchNorm2d(in_channels, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """`[B,Cin,H,W] -> [B,Cout,H/stride,W/stride]`."""
        summed = self.rbr_dense(x) + self.rbr_1x1(x)
        return F.relu(summed if self.rbr_identity is None else summed + self.rbr_identity(x))

    def fused(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one 3x3 convolution that computes the same (section 3.3 of the paper), in float64.

        Each BatchNorm is folded into its convolution. The 1x1 kernel becomes the middle of a 3x3 kernel, and the
        identity is a 3x3 kernel that is 1 in the middle of its own channel.
        """
        weight, bias = _folded(self.rbr_dense.conv.weight, self.rbr_dense.bn)
        point, point_bias = _folded(self.rbr_1x1.conv.weight, self.rbr_1x1.bn)
        weight, bias = weight + F.pad(point, (1, 1, 1, 1)), bias + point_bias
        if self.rbr_identity is not None:
            itself = torch.eye(weight.shape[0], dtype=torch.float64)[:, :, None, None]
            point, point_bias = _folded(itself, self.rbr_identity)
            weight, bias = weight + F.pad(point, (1, 1, 1, 1)), bias + point_bias
        return weight, bias


def _folded(kernel: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return kernel.double() * scale[:, None, None, None], norm.bias.double() - norm.running_mean.double() * scale


def fuse_repvgg(parts: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], float]:
    """The tensors `weight` and `bias` of a RepVGG block's one convolution, from those of `RepVGGBranches` by name.

    Also the difference of the two forms' outputs in float32, on noise, relative to the largest output: one convolution
    and ReLU against three normalised branches. Raises ValueError if the parts do not fit.
    """
    kernel = parts["rbr_dense.conv.weight"]
    if kernel.ndim != 4:
        raise ValueError(f"rbr_dense.conv.weight has the shape {list(kernel.shape)}, not that of a convolution")
    out_channels, in_channels = kernel.shape[:2]
    stride = 1 if "rbr_identity.weight" in parts else 2
    branches = RepVGGBranches(in_channels, out_channels, stride).eval()
    state = branches.state_dict()
    counters = {name: tensor for name, tensor in state.items() if name.endswith("num_batches_tracked")}
    try:
        branches.load_state_dict({**parts, **counters}, strict=True)
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from error
    with torch.inference_mode():
        weight, bias = (tensor.float() for tensor in branches.fused())
        noise = torch.randn(1, in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
        expected = branches(noise)
        actual = F.relu(F.conv2d(noise, weight, bias, stride, 1))
        difference = (actual - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
    return {"weight": weight.clone(), "bias": bias.clone()}, float(difference)


class RepVGGBlock(nn.Module):
    """The form that runs: one 3x3 convolution with bias, and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.rbr_reparam = nn.Conv2d(in_channels, out_channels, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B,Cin,H,W] -> [B,Cout,H/stride,W/stride]`."""
        return F.relu(self.rbr_reparam(x))


class RepVGG(nn.Module):
    """Grey image to features at 1/2, 1/4 and 1/8; the first stage is one block on the image itself."""

    def __init__(self, widths: tuple[int, int, int, int], blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.layer0 = RepVGGBlock(1, widths[0], 2)
        self.layer1 = _stage(widths[0], widths[1], blocks[1], 1)
        self.layer2 = _stage(widths[1], widths[2], blocks[2], 2)
        self.layer3 = _stage(widths[2], widths[3], blocks[3], 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`image [B,1,H,W]` in 0..1 -> features `[B,C1,H/2,W/2]`, `[B,C2,H/4,W/4]`, `[B,C3,H/8,W/8]`."""
        half = self.layer1(self.layer0(image))
        quarter = self.layer2(half)
        return half, quarter, self.layer3(quarter)


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = RepVGGBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(RepVGGBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))
