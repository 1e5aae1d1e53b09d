"""Our DINOv2 against timm's, an independent implementation, with the same random weights under timm's own names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.oracles import oracle
from torch import Tensor

from matchrt.families.dinov2 import translate
from matchrt.models.roma.config import DINOv2Config
from matchrt.models.roma.dinov2 import DINOv2

CONFIG = DINOv2Config(dim=48, depth=3, heads=4, grid=6)
TOKENS = 1e-5  # absolute; the tokens are of unit variance


def _theirs(name: str) -> Any:
    """timm's architecture of that name, small: everything but the sizes is timm's own choice."""
    side = CONFIG.patch * CONFIG.grid
    network = oracle("timm").create_model(
        name, embed_dim=CONFIG.dim, depth=CONFIG.depth, num_heads=CONFIG.heads, img_size=side
    )
    generator = torch.Generator().manual_seed(5)
    state = {key: _values(key, value, generator) for key, value in network.state_dict().items()}
    network.load_state_dict(state, strict=True)
    return network.eval()


def _values(key: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Layer scales and norms about 1, so that every layer shows in the result; products keep the variance."""
    values = 2 * torch.rand(like.shape, generator=generator) - 1
    if key.endswith(("gamma", "norm1.weight", "norm2.weight", "norm.weight")):
        return 1 + 0.3 * values
    return values * (3 / values[0].numel()) ** 0.5 if like.ndim in {2, 4} else 0.3 * values


@pytest.mark.parametrize("name", ["vit_large_patch14_dinov2", "vit_small_patch14_dinov2"])
@torch.inference_mode()
def test_every_token_is_timms(name: str) -> None:
    theirs = _theirs(name)
    translated = translate(dict(theirs.state_dict()), CONFIG)
    assert translated.naming == "Facebook or timm" and not translated.derived
    ours = DINOv2(CONFIG)
    ours.load_state_dict(translated.tensors, strict=True)
    side = CONFIG.patch * CONFIG.grid
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(7))
    expected = theirs.forward_features(images)
    actual = ours.eval()(images, ours.position((CONFIG.grid, CONFIG.grid)))
    assert actual.shape == expected.shape == (2, 1 + CONFIG.grid**2, CONFIG.dim)
    assert float((actual - expected).abs().max()) <= TOKENS
    # Every layer shows: without the last block the tokens are others.
    ours.blocks[-1].ls1.gamma.zero_()
    assert float((ours(images, ours.pos_embed) - expected).abs().max()) > 100 * TOKENS
