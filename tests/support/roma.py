"""A RoMa of a few thousand parameters with the structure of the published one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from matchrt.families import registry
from matchrt.families.definition import ModelSpec
from matchrt.families.roma import ROMA_FAMILY, RoMaFamily
from matchrt.models.roma.config import DINOv2Config, GPConfig, MatchDecoderConfig, RefinerConfig, RoMaConfig
from matchrt.models.roma.network import RoMa

TINY = RoMaConfig(
    dinov2=DINOv2Config(dim=32, depth=2, heads=2, grid=37),
    vgg=((8, 8), (12, 12), (16,) * 2, (24,) * 2),
    gp=GPConfig(dim=16),
    match_decoder=MatchDecoderConfig(depth=1, heads=4, anchors=16),
    refiners=(
        RefinerConfig(16, 32, 8, 7),
        RefinerConfig(8, 24, 8, 3),
        RefinerConfig(4, 16, 8, 2),
        RefinerConfig(2, 12, 8, 0),
        RefinerConfig(1, 9, 6, 0),
    ),
    refiner_blocks=1,
    imagenet=False,
    scale_rule="relative",
    volume_pixels=150,  # of 112 pixels and more, both ways of correlating are used
)


def _tiny(spec: ModelSpec) -> ModelSpec:
    return replace(spec, family=RoMaFamily(replace(TINY, black=spec.family.config.black)))


TINY_FAMILY = replace(ROMA_FAMILY, models=tuple(map(_tiny, ROMA_FAMILY.models)))


def register_tiny(patch: pytest.MonkeyPatch) -> None:
    """The registry with a small RoMa, for what looks models up by name."""
    patch.setattr(registry, "FAMILIES", {**registry.FAMILIES, "roma": "support.roma:TINY_FAMILY"})


def roma_state(config: RoMaConfig = TINY, seed: int = 0) -> dict[str, Tensor]:
    """Random values under the network's keys, statistics of norms too; refiners move the flow by a little."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in RoMa(config).state_dict().items()}
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        values = 2 * torch.rand(shape, generator=generator) - 1
        if key.endswith("running_var") or (len(shape) == 1 and key.endswith(("weight", "gamma"))):
            state[key] = 1 + 0.1 * values
        elif len(shape) < 2 or key.endswith(("pos_embed", "cls_token")):
            state[key] = 0.1 * values
        else:
            gain = 4.0 if "to_out" in key else 0.3 if "out_conv" in key else 1.4
            state[key] = gain * values * (3 / max(1, values[0].numel())) ** 0.5
    return state


def tiny_roma(config: RoMaConfig = TINY, seed: int = 0) -> RoMa:
    """The network in evaluation mode."""
    network = RoMa(config)
    network.load_state_dict(roma_state(config, seed), strict=True)
    return network.eval()


def roma_files(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the two files: RoMa's checkpoint, and DINOv2's with its mask token."""
    dinov2 = {key.removeprefix("dinov2."): value for key, value in state.items() if key.startswith("dinov2.")}
    own = {key: value for key, value in state.items() if not key.startswith("dinov2.")}
    dim = dinov2["cls_token"].shape[2]
    return own, {**dinov2, "mask_token": torch.zeros(1, dim)}
