"""What makes networks faster leaves their results alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.weights import random_network

from matchrt.families.loftr import COARSE_LOFTR
from matchrt.models.loftr.config import LOFTR_LITE, LoFTRConfig
from matchrt.models.loftr.deployed import deployed
from matchrt.models.loftr.network import LoFTR
from matchrt.models.parts.grey_convolution import GreyConvolution


@pytest.mark.parametrize("side", [3, 7])
def test_a_grey_convolution_is_the_convolution(side: int) -> None:
    torch.manual_seed(1)
    conv = torch.nn.Conv2d(1, 6, side, 2, side // 2)
    image = torch.rand(2, 1, 24, 40)
    assert torch.allclose(GreyConvolution(conv)(image), conv(image), atol=1e-6)


def test_other_convolutions_are_no_grey_ones() -> None:
    with pytest.raises(ValueError, match="one channel with stride 2"):
        GreyConvolution(torch.nn.Conv2d(1, 6, 5, 2, 2))


@pytest.mark.parametrize("config", [LOFTR_LITE, COARSE_LOFTR], ids=["fine", "coarse"])
def test_deployed_networks_give_the_same_features(config: LoFTRConfig) -> None:
    network = random_network(replace(config, block_dims=(*config.block_dims[:-2], 50, config.block_dims[-1])))
    changed = deployed(network)
    assert isinstance(changed, LoFTR)
    assert changed.backbone.block_dims[-2] == 64
    image = torch.rand(2, 1, 64, 96, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        for expected, actual in zip(network.backbone(image), changed.backbone(image), strict=True):
            if expected is not None:
                assert torch.allclose(actual, expected, atol=1e-5 * float(expected.abs().max()))
    assert network.backbone.conv1.weight.shape[1] == 1
