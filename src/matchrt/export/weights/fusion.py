"""Tensors of the network that are computed from several tensors of a checkpoint, each with a proof that they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from matchrt.export.weights.report import Entry, Fate
from matchrt.families.keymap import Fuse
from matchrt.models.eloftr.repvgg import RepVGGBranches

# Relative to the largest output: a fusion that differs by more has not computed the same thing.
MAX_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Fused:
    """tensors: of the network's module, by name. difference: of its output from the parts', relative, measured."""

    tensors: Mapping[str, Tensor]
    difference: float


def fuse_repvgg(parts: Mapping[str, Tensor]) -> Fused:
    """A RepVGG block in training form to its single convolution. Raises ValueError where the parts do not fit.

    The difference is that of the two forms' outputs in float32, on noise: one convolution and ReLU against three
    normalised branches.
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
    return Fused({"weight": weight.clone(), "bias": bias.clone()}, float(difference))


RECIPES: Mapping[str, Callable[[Mapping[str, Tensor]], Fused]] = {"repvgg": fuse_repvgg}


@dataclass
class Group:
    """The tensors that a checkpoint holds of one `Fuse` rule: by the recipe's names, and their keys."""

    rule: Fuse
    parts: dict[str, Tensor] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    def add(self, key: str, name: str, tensor: Tensor) -> None:
        """Adds the checkpoint's tensor `key`, which is `name` without the file's prefix."""
        part = self.rule.part(name)
        assert part is not None
        self.parts[part] = tensor
        self.keys.append(key)


def derive(
    groups: Iterable[Group],
    expected: Mapping[str, Tensor],
    state: dict[str, Tensor],
    origin: dict[str, Entry],
    file: dict[str, Entry],
) -> float | None:
    """Computes every group's tensors into `state` and `origin`; in `file`, the parts of a group that fails say why.

    Returns the largest difference measured; None where nothing was derived.
    """
    worst: float | None = None
    for group in groups:
        try:
            fused = _fused(group, expected, origin)
        except _UnfitError as error:
            file.update({key: replace(file[key], fate=error.fate, detail=str(error)) for key in group.keys})
            continue
        worst = max(worst or 0.0, fused.difference)
        detail = f"fused from {len(group.keys)} tensors of {group.rule.module}, within {fused.difference:.1e}"
        for name, tensor in fused.tensors.items():
            target = f"{group.rule.target}.{name}"
            state[target] = tensor
            origin[target] = Entry(group.rule.module, tuple(tensor.shape), "derived", detail)
    return worst


class _UnfitError(Exception):
    """A group that cannot be fused: the fate of its parts, and why."""

    def __init__(self, fate: Fate, reason: str) -> None:
        super().__init__(reason)
        self.fate = fate


def _fused(group: Group, expected: Mapping[str, Tensor], origin: Mapping[str, Entry]) -> Fused:
    rule = group.rule
    if missing := [name for name, part in rule.parts if part not in group.parts]:
        raise _UnfitError("unexpected", f"not fused into {rule.target}: the file lacks {rule.module}.{missing[0]}")
    if odd := [name for name, tensor in group.parts.items() if not tensor.is_floating_point()]:
        raise _UnfitError("type-mismatched", f"not fused into {rule.target}: {odd[0]} is no floating-point tensor")
    try:
        fused = RECIPES[rule.recipe](group.parts)
    except ValueError as error:
        raise _UnfitError("shape-mismatched", f"not fused into {rule.target}: {error}") from error
    for name, tensor in fused.tensors.items():
        _require_place(f"{rule.target}.{name}", tensor, expected, origin)
    if not fused.difference <= MAX_DIFFERENCE:
        raise _UnfitError("rejected", f"fusing it would change {rule.target}'s output by {fused.difference:.1e}")
    return fused


def _require_place(target: str, tensor: Tensor, expected: Mapping[str, Tensor], origin: Mapping[str, Entry]) -> None:
    if target not in expected:
        raise _UnfitError("unexpected", f"the network has no {target}")
    if target in origin:
        raise _UnfitError("duplicated", f"would fill {target}, which {origin[target].key} fills already")
    if tensor.shape != expected[target].shape:
        raise _UnfitError("shape-mismatched", f"{target} is {list(expected[target].shape)}, not {list(tensor.shape)}")
