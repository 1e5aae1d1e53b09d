"""Other forms of RoMa's stages, which compute the same and may run faster, for `roma_stages.py` and `roma_whole.py`.

A form is a function that changes a deployed network in place, and the stages that it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.roma.network import RoMa
from matchrt.models.roma.spd_solve import REACH, newton_schulz_scales

Undo = Callable[[], None] | None


@dataclass(frozen=True)
class Variant:
    """One other form.

    change: changes a deployed network, and returns what undoes changes outside of it, if there are any.
    stages: beginnings of the names of the stages that it changes.
    what: what it changes.
    """

    change: Callable[[RoMa], Undo]
    stages: tuple[str, ...]
    what: str


def dense_blocks(network: RoMa) -> None:
    """Scale 1: each 1x1 convolution and the depthwise 5x5 behind it become one dense 5x5 of 32 channels.

    Nothing is between the two. The bias of the 1x1 is not seen outside of the image, where the depthwise convolution
    reads zeros: it becomes the weight of a channel that is 1 inside.
    """
    refiner = network.decoder.conv_refiner["1"]
    blocks = [refiner.block1, *refiner.hidden_blocks]
    channels = blocks[0][0].out_channels
    total = -(-(channels + 1) // 32) * 32
    first = nn.Conv2d(channels, total, 5, padding=2)
    layers: list[nn.Module] = []
    with torch.no_grad():
        depthwise = blocks[0][0]
        first.weight.zero_()
        first.bias.zero_()
        for channel in range(channels):
            first.weight[channel, channel] = depthwise.weight[channel, 0]
        first.bias[:channels], first.bias[channels] = depthwise.bias, 1.0
        layers += [first, nn.ReLU()]
        for before, after in pairwise(blocks):
            mix, spread = before[3], after[0]
            dense = nn.Conv2d(total, total, 5, padding=2)
            dense.weight.zero_()
            dense.bias.zero_()
            dense.weight[:channels, :channels] = mix.weight * spread.weight
            dense.weight[:channels, channels] = mix.bias[:, None, None] * spread.weight[:, 0]
            dense.bias[:channels], dense.bias[channels] = spread.bias, 1.0
            layers += [dense, nn.ReLU()]
        out = nn.Conv2d(total, 3, 1)
        out.weight.copy_(F.pad(refiner.out_conv.weight, (0, 0, 0, 0, 0, total - channels)))
        out.bias.copy_(refiner.out_conv.bias)
    refiner.block1, refiner.hidden_blocks = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])
    refiner.out_conv = out


class Stencil(nn.Module):
    """A depthwise 5x5 on rows: 25 slices of a padded map, times weights, added up; channels stay side by side."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.taps = nn.Parameter(conv.weight.detach()[:, 0].flatten(1).transpose(0, 1).contiguous())
        self.bias = nn.Parameter(conv.bias.detach())  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """`[B,H,W,C] -> [B,H,W,C]`."""
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 2, 2, 2, 2))
        total = self.bias.to(x.dtype)
        for index in range(25):
            row, column = divmod(index, 5)
            total = total + padded[:, row : row + height, column : column + width] * self.taps[index]
        return total


class StencilBlocks(nn.Module):
    """A refiner's blocks as stencils and products of rows."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.stencils = nn.ModuleList(Stencil(block[0]) for block in blocks)
        self.mixes = nn.ModuleList(_linear(block[3]) for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        """`[B,C,H,W] -> [B,C,H,W]`."""
        x = x.permute(0, 2, 3, 1)
        for stencil, mix in zip(self.stencils, self.mixes, strict=True):
            x = mix(F.relu(stencil(x)))
        return x.permute(0, 3, 1, 2)


def _linear(conv: nn.Module) -> nn.Module:
    if not isinstance(conv, nn.Conv2d):
        return nn.Identity()
    linear = nn.Linear(conv.in_channels, conv.out_channels)
    linear.weight, linear.bias = nn.Parameter(conv.weight.detach().flatten(1)), nn.Parameter(conv.bias.detach())
    return linear


def stencils(network: RoMa) -> None:
    """The refiners' depthwise convolutions as stencils on rows."""
    for refiner in network.decoder.conv_refiner.values():
        refiner.hidden_blocks = nn.Sequential(StencilBlocks(list(refiner.hidden_blocks)))


class PerImage(nn.Module):
    """Blocks that run for one direction after the other, whose maps are half as large and may stay in the cache."""

    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        """`[B,C,H,W] -> [B,C,H,W]`."""
        return torch.cat([self.blocks(part) for part in x.split(1)])


def per_image(network: RoMa) -> None:
    """The refiners' blocks for one direction after the other."""
    for refiner in network.decoder.conv_refiner.values():
        refiner.hidden_blocks = PerImage(refiner.hidden_blocks)


def depthwise(make: Callable[[nn.Conv2d], nn.Module]) -> Callable[[RoMa], None]:
    """Every depthwise convolution of the hidden blocks, made anew."""

    def change(network: RoMa) -> None:
        for refiner in network.decoder.conv_refiner.values():
            for block in refiner.hidden_blocks:
                block[0] = make(block[0])

    return change


@torch.no_grad()
def _seven(conv: nn.Conv2d) -> nn.Module:
    """A kernel of 7x7 with a border of zeros."""
    made = nn.Conv2d(conv.in_channels, conv.out_channels, 7, padding=3, groups=conv.groups)
    made.weight.copy_(F.pad(conv.weight, (1, 1, 1, 1)))
    made.bias.copy_(conv.bias)  # type: ignore[union-attr,arg-type]
    return made


@torch.no_grad()
def _transposed(conv: nn.Conv2d) -> nn.Module:
    """A transposed convolution with the kernel turned around."""
    made = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 5, padding=2, groups=conv.groups)
    made.weight.copy_(conv.weight.flip(2, 3))
    made.bias.copy_(conv.bias)  # type: ignore[union-attr,arg-type]
    return made


@torch.no_grad()
def _padded_before(conv: nn.Conv2d) -> nn.Module:
    """Padding by itself."""
    made = nn.Conv2d(conv.in_channels, conv.out_channels, 5, groups=conv.groups)
    made.weight.copy_(conv.weight)
    made.bias.copy_(conv.bias)  # type: ignore[union-attr,arg-type]
    return nn.Sequential(nn.ZeroPad2d(2), made)


def half_output(network: RoMa) -> None:
    """The refiners' last layer in half precision, with its result in float32: no copy of the maps in float32."""
    for refiner in network.decoder.conv_refiner.values():
        refiner.hidden_blocks.append(refiner.out_conv)
        refiner.out_conv = nn.Identity()


def folded_scales(network: RoMa) -> None:
    """DINOv2: layer scales are folded into the products before them."""
    for block in network.dinov2.blocks:
        for layer, scale in ((block.attn.proj, block.ls1), (block.mlp.fc2, block.ls2)):
            gamma = scale.gamma.detach()
            layer.weight = nn.Parameter(layer.weight.detach() * gamma[:, None])
            layer.bias = nn.Parameter(layer.bias.detach() * gamma)
        block.ls1 = block.ls2 = nn.Identity()


def flat_tokens(network: RoMa) -> None:
    """DINOv2: 1664 tokens instead of 1601, so that rows fill tiles; the added keys are masked out."""
    model = network.dinov2

    def padded(image: Tensor, position: Tensor) -> Tensor:
        tokens = model.patch_embed(image)
        x = torch.cat([model.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + position
        count = x.shape[1]
        total = -(-count // 64) * 64
        mask = torch.zeros(1, 1, 1, total)
        mask[..., count:] = -30000.0
        for block in model.blocks:
            block.attn.mask = mask
        return model.norm(model.blocks(F.pad(x, (0, 0, 0, total - count))))[:, :count]

    model.forward = padded
    for block in model.blocks:
        block.attn.forward = _masked(block.attn)


def _masked(attention: nn.Module) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        qkv = attention.qkv(x).reshape(batch, tokens, 3, attention.heads, channels // attention.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, attention.mask, scale=attention.scale)
        return attention.proj(attended.transpose(1, 2).reshape(batch, tokens, channels))

    return forward


def carried_inverse(matrix: Tensor, floor: float, ceiling: float, polish: int = 1) -> Tensor:
    """`invert_spd` with one product a step: the residual is squared along with the inverse, in one product of both.

    polish: steps at the end that compute the residual anew.
    """
    eye = torch.eye(matrix.shape[-1], device=matrix.device, dtype=matrix.dtype)
    start = REACH / ceiling
    first, *rest = newton_schulz_scales(floor, ceiling)
    residual = eye - start * matrix
    inverse = (first * start) * (eye + residual)
    residual = (1 - first) * eye + first * (residual @ residual)
    size = matrix.shape[-1]
    for scale in rest[: len(rest) - polish]:
        both = torch.cat([inverse, residual], dim=1) @ residual
        inverse = scale * (inverse + both[:, :size])
        residual = (1 - scale) * eye + scale * both[:, size:]
    for scale in rest[len(rest) - polish :]:
        inverse = inverse @ (scale * (2.0 * eye - matrix @ inverse))
    return inverse


def process(block: int, carried: bool) -> Callable[[RoMa], Undo]:
    """The Gaussian process with larger blocks, or with inverses of one product a step."""

    def change(network: RoMa) -> Undo:
        from matchrt.models.roma import gaussian_process, spd_solve

        del network
        before = gaussian_process.BLOCK, spd_solve.invert_spd
        gaussian_process.BLOCK = block
        if carried:
            spd_solve.invert_spd = carried_inverse

        def undo() -> None:
            gaussian_process.BLOCK, spd_solve.invert_spd = before

        return undo

    return change


def planes_input(network: RoMa) -> None:
    """The input of the refiners' convolutions is joined as planes: each part is transposed by itself."""
    for refiner in network.decoder.conv_refiner.values():
        refiner.inputs = _planes(refiner)


def _planes(refiner: nn.Module) -> Callable[..., Tensor]:
    def inputs(features0, features1, flow, scale_factor):  # type: ignore[no-untyped-def]
        batch, _, height, width = flow.shape
        count = refiner.config.features
        rows, warped = features0.rows[..., :count], refiner.sample(features1, flow)[..., :count]
        parts = [rows, warped, refiner.embedding(flow, scale_factor).to(rows.dtype)]
        if refiner.correlation is not None:
            window = refiner.correlation(features0, features1, flow)
            parts.append(F.pad(window, (0, refiner.padding)).to(rows.dtype))
        planes = [part.transpose(1, 2).reshape(batch, -1, height, width) for part in parts]
        return torch.cat(planes, dim=1)

    return inputs


VARIANTS = {
    "dense1": Variant(dense_blocks, ("refiner1",), "scale 1: 1x1 and depthwise 5x5 as one dense 5x5"),
    "dw-rows": Variant(stencils, ("blocks",), "depthwise 5x5 as 25 slices of rows, 1x1 as products of rows"),
    "dw-image": Variant(per_image, ("blocks",), "one direction after the other"),
    "dw-7": Variant(depthwise(_seven), ("blocks",), "depthwise 7x7 with a border of zeros"),
    "dw-back": Variant(depthwise(_transposed), ("blocks",), "depthwise transposed 5x5"),
    "dw-pad": Variant(depthwise(_padded_before), ("blocks",), "padding as an operator of its own"),
    "half-out": Variant(half_output, ("refiner",), "the refiners' last layer in half precision"),
    "planes": Variant(planes_input, ("refiner",), "the refiners' input joined as planes"),
    "folded": Variant(folded_scales, ("dinov2",), "layer scales in the weights"),
    "tokens64": Variant(flat_tokens, ("dinov2",), "a multiple of 64 tokens"),
    "gp160c": Variant(process(160, True), ("gp", "coarse-match"), "Gaussian process: one product a step"),
    "gp320": Variant(process(320, False), ("gp",), "Gaussian process: blocks of 320 rows"),
    "gp320c": Variant(process(320, True), ("gp",), "Gaussian process: blocks of 320 rows, one product a step"),
}
