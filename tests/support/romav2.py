"""RoMa v2 for tests: the tensors of the published file, and a network of a few thousand parameters."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from matchrt.families import registry
from matchrt.families.definition import ModelSpec
from matchrt.families.romav2 import BLOCKS, ROMAV2_FAMILY, RoMaV2Family, romav2_keys
from matchrt.models.roma.config import RefinerConfig
from matchrt.models.romav2.config import DINOv3Config, HeadConfig, MultiViewConfig, RoMaV2Config
from matchrt.models.romav2.network import RoMaV2
from matchrt.models.romav2.rotary import periods
from support.eloftr import manifest_state

TINY = RoMaV2Config(
    dinov3=DINOv3Config(dim=64, depth=3, heads=1, taps=(1, 2), mlp_ratio=2),
    multi_view=MultiViewConfig(dim=64, depth=2, heads=1, mlp_ratio=2),
    head=HeadConfig(levels=(16, 16, 24, 24), width=16, last=(16, 8)),
    frequencies=32,
    vgg=((8, 8), (12, 12), (16,) * 2),
    refiners=(RefinerConfig(4, 16, 15, 3), RefinerConfig(2, 12, 7, 1), RefinerConfig(1, 12, 8, 0)),
    refiner_blocks=2,
    volume_pixels=500,  # of 96 pixels and more, both ways of correlating are used
)
TINY_SPEC = replace(ROMAV2_FAMILY.models[0], family=RoMaV2Family(TINY), key_map=romav2_keys(TINY))
TINY_FAMILY = replace(ROMAV2_FAMILY, models=(TINY_SPEC,))
# Tensors of the file that the network does not have; the family's key map says why.
_UNUSED = re.compile(r"f\.blocks\.(18|19|2\d)\.|f\.mask_token|matcher\.(temp|scale)$|.*(periods|bias_mask)$")


def register_tiny(patch: pytest.MonkeyPatch) -> None:
    """The registry with a small RoMa v2, for what looks models up by name."""
    patch.setattr(registry, "FAMILIES", {**registry.FAMILIES, "romav2": "support.romav2:TINY_FAMILY"})


def published_state(shared: Path) -> dict[str, Tensor]:
    """The network's tensors in the seeded checkpoint, masks applied: the key map's work, done independently."""
    state = manifest_state(shared, "romav2")
    masked = {key: value * state[f"{key}_mask"] if f"{key}_mask" in state else value for key, value in state.items()}
    return {key: value for key, value in masked.items() if not _UNUSED.match(key)}


def romav2_state(config: RoMaV2Config = TINY, seed: int = 0) -> dict[str, Tensor]:
    """Random values under the network's keys, statistics of norms too; the first warp is spread over the image."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in RoMaV2(config).state_dict().items()}
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        values = 2 * torch.rand(shape, generator=generator) - 1
        if key.endswith("running_var") or (len(shape) == 1 and key.endswith(("weight", "gamma"))):
            state[key] = 1 + 0.1 * values
        elif key == "matcher.omega":
            state[key] = 10 * values
        elif len(shape) < 2 or key.endswith(("cls_token", "storage_tokens")):
            state[key] = 0.1 * values
        else:
            gain = 0.25 if "output_conv2.2" in key else 1.0 if "_head" in key or len(shape) == 2 else 1.4
            state[key] = gain * values * (3 / max(1, values[0].numel())) ** 0.5
    return state


def romav2_file(state: dict[str, Tensor], spec: ModelSpec = TINY_SPEC) -> dict[str, Tensor]:
    """The tensors of the file, with those that the network does not have, in the published file's types."""
    config = spec.family.config
    dim = config.dinov3.dim
    file = dict(state)
    mask = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(dim)
    for block in range(BLOCKS):
        if block >= config.dinov3.depth:
            copies = {key: value for key, value in state.items() if key.startswith("f.blocks.0.")}
            file.update({f"f.blocks.{block}.{key[11:]}": value.flip(0) + block for key, value in copies.items()})
        file[f"f.blocks.{block}.attn.qkv.bias_mask"] = mask.clone()
    file["f.mask_token"] = torch.zeros(1, dim)
    file["f.rope_embed.periods"] = periods(dim // config.dinov3.heads)
    file = {key: value.bfloat16() if key.startswith("f.") else value for key, value in file.items()}
    view = config.multi_view
    file["matcher.mv_vit.rope_embed.periods"] = periods(view.dim // view.heads)
    file["matcher.temp"], file["matcher.scale"] = torch.tensor(0.1), torch.tensor(1)
    return file


def tiny_romav2(config: RoMaV2Config = TINY, seed: int = 0) -> RoMaV2:
    """The network in evaluation mode."""
    network = RoMaV2(config)
    network.load_state_dict(romav2_state(config, seed), strict=True)
    return network.eval()
