"""Tensors of the network that are computed from several tensors of a checkpoint, each with a proof that they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from matchrt.export.weights.report import Entry, Fate
from matchrt.families.keymap import Fuse, Fused

# Relative to the largest output: a fusion that differs by more has not computed the same thing.
MAX_DIFFERENCE = 1e-5


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
        fused = rule.recipe(group.parts)
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
