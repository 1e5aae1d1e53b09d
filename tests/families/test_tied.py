"""Tensors that training makes equal by itself: the families say which, and small networks are trained to see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.roma import TINY as TINY_ROMA
from torch import Tensor, nn

from matchrt.export.weights import diagnose
from matchrt.export.weights.network import checkpoint_path
from matchrt.families.eloftr import ELOFTR_KEYS
from matchrt.families.keymap import KeyMap
from matchrt.families.loftr import COARSE_LOFTR_KEYS, LOFTR_KEYS
from matchrt.families.registry import get_spec
from matchrt.families.roma import ROMA_KEYS
from matchrt.families.xoftr import XOFTR_KEYS
from matchrt.models.eloftr.config import ELoFTRConfig
from matchrt.models.eloftr.network import ELoFTR
from matchrt.models.eloftr.repvgg import RepVGGBranches
from matchrt.models.loftr.config import LoFTRConfig, TransformerConfig
from matchrt.models.loftr.network import LoFTR
from matchrt.models.parts.config import CoarseMatchConfig
from matchrt.models.roma.network import RoMa
from matchrt.models.xoftr.config import XoFTRConfig
from matchrt.models.xoftr.network import XoFTR

MATCH = CoarseMatchConfig(threshold=0.0, border=1, mutual=False)
LITTLE_LOFTR = LoFTRConfig(
    initial_dim=16,
    block_dims=(16, 24, 32),
    coarse=TransformerConfig(d_model=32, n_heads=4, layers=("self", "cross") * 2),
    fine=TransformerConfig(d_model=16, n_heads=4, layers=("self", "cross")),
    match=MATCH,
)
LITTLE_COARSE = LoFTRConfig(
    initial_dim=8,
    block_dims=(8, 16, 32, 32),
    coarse=TransformerConfig(d_model=32, n_heads=1, layers=("self", "cross") * 2),
    fine=None,
    match=MATCH,
)
LITTLE_ELOFTR = ELoFTRConfig(
    widths=(16, 16, 24, 32), blocks=(1, 2, 3, 3), n_heads=2, layer_pairs=2, fine_regress=4, match=MATCH
)
LITTLE_XOFTR = XoFTRConfig(
    block_dims=(16, 28, 32),
    coarse=TransformerConfig(d_model=32, n_heads=4, layers=("self", "cross") * 2),
    match=MATCH,
    fine_threshold=0.0,
)
# Parameters that no operation reads.
UNREAD = {f"fine_process.cross_attn_{level}.cross_attn.temperature" for level in "mf"}
Loss = Callable[[], Tensor]


class _Branches(nn.Module):
    """EfficientLoFTR's backbone in training form."""

    def __init__(self, config: ELoFTRConfig) -> None:
        super().__init__()
        widths = config.widths
        self.layer0 = RepVGGBranches(1, widths[0], 2)
        for stage in (1, 2, 3):
            rest = (RepVGGBranches(widths[stage], widths[stage], 1) for _ in range(config.blocks[stage] - 1))
            first = RepVGGBranches(widths[stage - 1], widths[stage], 1 if stage == 1 else 2)
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = [self.layer0(image)]
        for stage in (1, 2, 3):
            features.append(self.get_submodule(f"layer{stage}")(features[-1]))
        return tuple(features[1:])


def _images(channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.rand(1, channels, height, width), torch.rand(1, channels, height, width)


def _drawn(values: Tensor) -> Tensor:
    """A loss whose gradient differs in every element."""
    return (values * torch.randn_like(values)).sum()


def _loftr(config: LoFTRConfig) -> tuple[nn.Module, Loss]:
    network = LoFTR(config)

    def loss() -> Tensor:
        image0, image1 = _images(1, 64, 96)
        (coarse0, _), (coarse1, _) = network.backbone(image0), network.backbone(image1)
        tokens = network.encode_coarse(coarse0, coarse1)
        matches = network(image0, image1, max_matches=32)
        return _drawn(tokens[0]) + _drawn(tokens[1]) + _drawn(matches.keypoints1)

    return network, loss


def _eloftr() -> tuple[nn.Module, Loss]:
    network = ELoFTR(LITTLE_ELOFTR)
    network.backbone = _Branches(LITTLE_ELOFTR)  # type: ignore[assignment]

    def loss() -> Tensor:
        matches = network(*_images(1, 64, 96), max_matches=32)
        return _drawn(matches.keypoints0) + _drawn(matches.keypoints1) + _drawn(matches.scores)

    return network, loss


def _xoftr() -> tuple[nn.Module, Loss]:
    network = XoFTR(LITTLE_XOFTR)

    def loss() -> Tensor:
        matches = network(*_images(1, 64, 96), max_matches=32)
        return _drawn(matches.keypoints0) + _drawn(matches.keypoints1) + _drawn(matches.scores)

    return network, loss


def _roma() -> tuple[nn.Module, Loss]:
    network = RoMa(TINY_ROMA)

    def loss() -> Tensor:
        flows = network.coarse_pass(torch.rand(2, 3, 112, 112), 1.0)
        parts = [part for flow in flows.values() for part in vars(flow).values() if isinstance(part, Tensor)]
        return torch.stack([_drawn(part) for part in parts if part.requires_grad]).sum()

    return network, loss


def _trained(network: nn.Module, loss: Loss, optimizer: type[torch.optim.Optimizer], steps: int = 4) -> set[str]:
    """Trains from torch's own initial values. Returns the names of the parameters that were trained."""
    descent = optimizer(network.parameters(), lr=1e-3, weight_decay=0.1)  # type: ignore[call-arg]
    network.train()
    for _ in range(steps):
        descent.zero_grad()
        loss().backward()
        descent.step()
    return {name for name, parameter in network.named_parameters() if parameter.grad is not None}


def _coarse_only(name: str) -> set[str]:
    """Parameters that the losses here do not reach: XoFTR's coarse matching chooses cells, and passes no gradient."""
    return {f"coarse_matching.final_proj.{part}" for part in ("weight", "bias")} if name == "xoftr" else set()


OPTIMIZERS = (torch.optim.SGD, torch.optim.AdamW)
NETWORKS: dict[str, tuple[Callable[[], tuple[nn.Module, Loss]], KeyMap, int]] = {
    # The number of sums whose biases are equal: of blocks with a convolution in the shortcut, or of RepVGG's blocks.
    "loftr": (lambda: _loftr(LITTLE_LOFTR), LOFTR_KEYS, 2),
    "coarse-loftr": (lambda: _loftr(LITTLE_COARSE), COARSE_LOFTR_KEYS, 3),
    "eloftr": (_eloftr, ELOFTR_KEYS, 9),
    "roma": (_roma, ROMA_KEYS, 0),
    "xoftr": (_xoftr, XOFTR_KEYS, 2),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_training_makes_equal_is_declared(
    monkeypatch: pytest.MonkeyPatch, name: str, optimizer: type[torch.optim.Optimizer]
) -> None:
    monkeypatch.setattr(diagnose, "_DISTINCT", 4)  # small networks have small tensors
    torch.manual_seed(0)
    make, key_map, sums = NETWORKS[name]
    network, loss = make()
    trained = _trained(network, loss, optimizer)
    assert trained == set(dict(network.named_parameters())) - UNREAD - _coarse_only(name)
    equal = diagnose._equal(network.state_dict())
    found = [{key_map.sum_of(key) for key in group} for group in equal]
    assert all(len(places) == 1 and None not in places for places in found), equal
    assert len(equal) == sums


def test_copies_between_sums_are_not_declared() -> None:
    one, other = (LOFTR_KEYS.sum_of(f"backbone.layer{stage}.0.bn2.bias") for stage in (2, 3))
    assert one is not None and one != other
    assert one == LOFTR_KEYS.sum_of("backbone.layer2.0.downsample.1.bias")
    for name in ("backbone.layer2.0.bn1.bias", "backbone.layer2.0.bn2.weight", "backbone.bn1.bias", "bn2.bias"):
        assert LOFTR_KEYS.sum_of(name) is None


def test_hugging_faces_names_of_the_branches() -> None:
    blocks = ("stages.0.blocks.0", "stages.1.blocks.1", "stages.3.blocks.13")
    sums = []
    for block in blocks:
        names = [
            f"efficientloftr.backbone.{block}.{branch}.bias" for branch in ("conv1.norm", "conv2.norm", "identity")
        ]
        found = {ELOFTR_KEYS.sum_of(name) for name in names[: 2 if block == blocks[0] else 3]}
        assert len(found) == 1 and None not in found
        sums += found
    assert len(set(sums)) == len(blocks)


def test_genuine_weights_are_not_accused(shared: Path) -> None:
    bundled = checkpoint_path(get_spec("loftr-lite"), None)
    found = diagnose.diagnose(bundled, "loftr-lite")
    assert found.explained and not found.repeated and len(found.tied) == 2
    for name in ("LoFTR_teacher.pt", "LoFTR_no_teacher.pt"):
        found = diagnose.diagnose(shared / "weights" / "kolkir_coarse_loftr" / name, "coarse-loftr")
        assert found.explained and not found.repeated and len(found.tied) == 3


@pytest.mark.parametrize("name", ["eloftr_outdoor", "hf_efficientloftr"])
def test_branches_of_full_size_are_not_accused_and_copies_are(shared: Path, tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}
    first: dict[object, str] = {}
    for entry in json.loads((shared / "manifests" / f"{name}.json").read_text())["tensors"]:
        key = entry["key"]
        drawn = torch.rand(entry["shape"]) + ("var" in key) - 0.5
        state[key] = drawn if entry["dtype"] == "float32" else torch.tensor(1)
        place = ELOFTR_KEYS.sum_of(key.removeprefix("matcher."))
        if place is not None:
            state[key] = state[first.setdefault(place, key)].clone()
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    found = diagnose.diagnose(tmp_path / "x.ckpt", "eloftr")
    assert found.explained and not found.repeated and len(found.tied) == len(first) == 21
    one, other = [key for key in state if key.endswith(("norm1.bias", "aggregation.norm.bias"))][:2]
    state[other] = state[one].clone()
    torch.save({"state_dict": state}, tmp_path / "y.ckpt")
    found = diagnose.diagnose(tmp_path / "y.ckpt", "eloftr")
    assert found.state == "repeated" and found.repeated == ((one, other),)
