"""One forward pass with the losses, as one function that can be compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matchrt.models.loftr.network import LoFTR
from matchrt.models.loftr.resnet_fpn import run_backbone
from tools.train_lite.losses import coarse_loss, fine_loss
from tools.train_lite.pairs import STRIDE, Pairs, Truth


class Coarse:
    """The coarse loss; `compile_parts` replaces it by its compiled form."""

    def __init__(self) -> None:
        self.loss: Callable[[Tensor, Truth], Tensor] = coarse_loss


COARSE = Coarse()


def compile_parts(net: LoFTR) -> None:
    """Compiles backbone, encoder layers and coarse loss one by one.

    The layers share their code, so it takes far less time than the whole network at once, for nearly the same speed.
    """
    torch._dynamo.config.cache_size_limit = 128
    net.backbone.compile(dynamic=False)
    for layer in (*net.loftr_coarse.layers, *net.loftr_fine.layers):
        layer.compile(dynamic=False)
    COARSE.loss = torch.compile(coarse_loss, dynamic=False)


def losses(net: LoFTR, pairs: Pairs, index0: Tensor, valid: Tensor, amp: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Total, coarse and fine loss; index0, valid `[B,K]` from `sample_positives`.

    The network runs in bfloat16 on a GPU; the similarity, its softmax, the expectation and the losses in float32.
    """
    truth: Truth = pairs.truth
    device = pairs.image0.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=amp):
        (coarse0, fine0), (coarse1, fine1) = run_backbone(net.backbone, pairs.image0, pairs.image1)
        assert fine0 is not None and fine1 is not None
        tokens0, tokens1 = net.encode_coarse(coarse0, coarse1, pairs.mask0, pairs.mask1)
        index1 = truth.nearest0.gather(1, index0)
        width0, width1 = coarse0.shape[3], coarse1.shape[3]
        windows0, windows1 = net.fine_windows((fine0, fine1), (tokens0, tokens1), (index0, index1), (width0, width1))
        windows0, windows1 = net.loftr_fine(windows0, windows1)
    with torch.autocast(device, enabled=False):
        similarity = net.similarity(tokens0.float(), tokens1.float(), pairs.mask0, pairs.mask1)
        coarse = COARSE.loss(similarity, truth)
        expectation, deviation = net.fine_matching(windows0.float(), windows1.float())
        radius = net.config.fine_window // 2 * STRIDE // 4
        target = truth.offset.gather(1, index0[:, :, None].expand(-1, -1, 2)) / radius
        batch, count = index0.shape
        fine = fine_loss(expectation.view(batch, count, 2), deviation.view(batch, count), target, valid)
    return coarse + fine, coarse.detach(), fine.detach()
