"""The coarse match decoder: a transformer that classifies each patch into anchors of the other image (RoMa, 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matchrt.models.parts.stored import stored
from matchrt.models.roma.config import MatchDecoderConfig
from matchrt.models.roma.grid import pixel_grid
from matchrt.models.roma.transformer import Block


class MatchDecoder(nn.Module):
    """A transformer without position encoding, so that it favours no place. It gives anchor logits and a certainty."""

    def __init__(self, dim: int, config: MatchDecoderConfig) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(dim, config.heads, 4, 1e-5, False, False) for _ in range(config.depth)))
        self.to_out: nn.Linear | TwoHeads = nn.Linear(dim, config.anchors**2 + 1)

    def forward(self, posterior: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior `[B,N,D]`, features `[B,N,C]` -> anchor logits `[B,N,A]`, certainty logit `[B,N,1]`."""
        x = self.blocks(torch.cat([posterior, features], dim=2))
        if isinstance(self.to_out, TwoHeads):
            return self.to_out(x)
        out = self.to_out(x)
        return out[..., :-1], out[..., -1:]


class TwoHeads(nn.Module):
    """The last layer as two products: 4097 columns fill no tile of a tensor core, and the last would be cut off again.

    linear: the layer, whose last row gives the certainty. Its weights are shared, not copied.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.anchors = _rows_of(linear, slice(None, -1))
        self.certainty = _rows_of(linear, slice(-1, None))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[B,N,C]` -> anchor logits `[B,N,A]`, certainty logit `[B,N,1]`."""
        return self.anchors(x), self.certainty(x)


def _rows_of(linear: nn.Linear, outputs: slice) -> nn.Linear:
    weight, bias = linear.weight.detach()[outputs], linear.bias.detach()[outputs]
    with torch.device("meta"):
        part = nn.Linear(weight.shape[1], weight.shape[0])
    part.weight, part.bias = nn.Parameter(weight), nn.Parameter(bias)
    return part


def anchors_to_flow(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits `[B,h*w,A]` of the anchors to normalised positions `[B,2,h,w]` in the other image.

    The probability-weighted mean of the best anchor and its four neighbours in the list of anchors, as in the official
    code: at the edges the list's ends are repeated and rows run over. Only ratios of the five probabilities count, so
    the softmax over all anchors is never computed: what is left are five exponentials of values <= 0.
    """
    count = logits.shape[2]
    side = round(count**0.5)
    best = logits.argmax(dim=2)
    offsets = (-1, 0, 1, -side, side)
    index = torch.stack([(best + offset).clamp(0, count - 1) for offset in offsets], dim=2)
    values = logits.gather(2, index).float()
    weights = (values - values[..., 1:2]).exp()
    places = pixel_grid(side, side, logits.device).flatten(2)[0].transpose(0, 1)
    near = places.index_select(0, index.flatten()).reshape(*index.shape, 2)
    flow = (weights[..., None] * near).sum(dim=2) / weights.sum(dim=2, keepdim=True)
    return stored(flow).transpose(1, 2).reshape(-1, 2, height, width)
