"""Tensors of the network that are computed from several tensors of a checkpoint, each with a check of the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from matchrt.export.weights.report import Entry, Fate
from matchrt.families.keymap import Fuse, Fused, RejectedPartsError

# Relative to the largest output. A fusion whose result differs by more did not compute the same.
MAX_DIFFERENCE = 1e-5


@dataclass
class Group:
    """The tensors that a checkpoint holds for one `Fuse` rule.

    rule: the rule.
    parts: the tensors by the recipe's names.
    keys: their keys in the file.
    """

    rule: Fuse
    parts: dict[str, Tensor] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    def add(self, key: str, name: str, tensor: Tensor) -> None:
        """Adds a tensor of the checkpoint that the rule claims.

        key: its key in the file.
        name: the key without the file's prefix.
        """
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
    """Computes every group's tensors into `state` and `origin`.

    If a group cannot be fused, the entries of its tensors in `file` say why. Returns the largest relative difference
    that was measured; None if nothing was derived. Raises nothing for groups that do not fit.
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
    """A group cannot be fused. It carries the fate of its tensors, and the reason."""

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
    except RejectedPartsError as error:
        raise _UnfitError("rejected", f"not fused into {rule.target}: {error}") from error
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
