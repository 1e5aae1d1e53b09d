"""Random weights that match: confident, distinct features, so that parity tests compare hundreds of matches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matchrt.families.loftr import COARSE_LOFTR
from matchrt.models.loftr.config import LoFTRConfig
from matchrt.models.loftr.network import LoFTR


def sharp_state(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A state dict of random values; BatchNorm statistics too, so that folding them is tested.

    Small coarse features beside large norm2 outputs give tokens of nearly equal length, hence a confidence matrix that
    is neither flat nor ruled by a few tokens.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: torch.Size, middle: float, spread: float) -> Tensor:
        return middle + spread * (2 * torch.rand(shape, generator=generator) - 1)

    state = {}
    for key, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            state[key] = torch.zeros_like(tensor)
        elif key.endswith("running_var"):
            state[key] = uniform(tensor.shape, 1.0, 0.1)
        elif "norm2.weight" in key and "loftr_coarse" in key:
            state[key] = uniform(tensor.shape, 2.0, 0.2)
        elif tensor.ndim == 0:  # a temperature, which has a value before the training
            state[key] = tensor.detach().clone()
        elif tensor.ndim == 1:
            state[key] = uniform(tensor.shape, 1.0 if key.endswith("weight") else 0.0, 0.1)
        else:
            gain = (
                0.2
                if key.endswith(f"layer{len(_stages(network))}_outconv.weight")
                else 1.4
                if tensor.ndim == 4
                else 1.0
            )
            state[key] = uniform(tensor.shape, 0.0, gain * (3.0 / tensor[0].numel()) ** 0.5)
    return state


def _stages(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_modules() if name.startswith("backbone.layer") and name.count(".") == 1
            and name[-1].isdigit() and "conv" not in name]  # fmt: skip


def random_network(config: LoFTRConfig, seed: int = 0) -> LoFTR:
    """A network in evaluation mode with `sharp_state`."""
    network = LoFTR(config)
    network.load_state_dict(sharp_state(network, seed), strict=True)
    return network.eval()


def coarse_loftr_state(seed: int = 0) -> dict[str, Tensor]:
    """A checkpoint's tensors for the model `coarse-loftr`, its unused pyramid included."""
    state = sharp_state(LoFTR(COARSE_LOFTR), seed)
    for name in ("layer3_outconv", "layer2_outconv"):
        state[f"backbone.{name}.weight"] = torch.zeros(32, 16 if "2" in name else 32, 1, 1)
        state[f"backbone.{name}2.0.weight"] = torch.zeros(32, 32, 3, 3)
    return state
