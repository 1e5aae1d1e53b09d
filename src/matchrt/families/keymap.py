"""Declarative rules from a checkpoint's keys to the network's keys.

A pattern is a dotted key in which `*` stands for one part and a final `**` for any number of them. Every key of the
file must be claimed by exactly one rule; two rules that claim the same key are a mistake in the map, not a choice.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Keep:
    """The network has the tensor under the same key."""

    pattern: str


@dataclass(frozen=True)
class Rename:
    """The network has the tensor under another beginning: `pattern`'s fixed part becomes `target`."""

    pattern: str
    target: str


@dataclass(frozen=True)
class Drop:
    """The tensor is not needed, for a reason that the report gives."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class Constant:
    """The tensor is a constant of the network, which computes it; the file's values must be the same.

    name: what to look up among the network's constants. Files that hold it tell variants apart that differ in it.
    """

    pattern: str
    name: str


@dataclass(frozen=True)
class Reject:
    """The tensor shows that the checkpoint is of a variant that this model is not."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class Fused:
    """tensors: of the network's module, by name. difference: of its output from the parts', relative, measured."""

    tensors: Mapping[str, Tensor]
    difference: float


# Parts by the recipe's names to the network's tensors. Raises ValueError where the parts do not fit together.
Recipe = Callable[[Mapping[str, "Tensor"]], Fused]


@dataclass(frozen=True)
class Fuse:
    """The tensors of one module of the file together give the tensors of one module of the network.

    module: in the file. parts: (name below it, the recipe's name of that tensor), every one of which is needed.
    target: the network's module. recipe: computes its tensors from the parts, and measures that they do the same.
    """

    module: str
    parts: tuple[tuple[str, str], ...]
    target: str
    recipe: Recipe

    def part(self, key: str) -> str | None:
        """The recipe's name of the file's tensor `key`; None where it is not a part."""
        if not key.startswith(f"{self.module}."):
            return None
        return dict(self.parts).get(key[len(self.module) + 1 :])


Rule = Keep | Rename | Drop | Constant | Reject | Fuse


@dataclass(frozen=True)
class KeyMap:
    """prefixes: wrappers that may stand before every key (peeled while all keys share one). rules: see the module."""

    rules: tuple[Rule, ...]
    prefixes: tuple[str, ...] = ("module.", "_orig_mod.", "matcher.", "model.")

    def common_prefix(self, keys: Iterable[str]) -> str:
        """The longest run of known prefixes that all keys share."""
        names = list(keys)
        prefix = ""
        while names:
            found = next((p for p in self.prefixes if all(n.startswith(prefix + p) for n in names)), None)
            if found is None:
                break
            prefix += found
        return prefix

    def claims(self, key: str) -> list[Rule]:
        """The rules that claim a key (its prefix removed)."""
        return [rule for rule in self.rules if claims(rule, key)]


def claims(rule: Rule, key: str) -> bool:
    """Whether the rule is for the key."""
    return rule.part(key) is not None if isinstance(rule, Fuse) else matches(rule.pattern, key)


def matches(pattern: str, key: str) -> bool:
    """Whether the dotted `pattern` describes `key`."""
    parts, names = pattern.split("."), key.split(".")
    if parts[-1] == "**":
        parts = parts[:-1]
        if len(names) <= len(parts):
            return False
        names = names[: len(parts)]
    return len(parts) == len(names) and all(
        part == "*" or fnmatch.fnmatchcase(name, part) for part, name in zip(parts, names, strict=True)
    )


def renamed(rule: Rename, key: str) -> str:
    """The network's key: the fixed beginning of the pattern replaced by the target."""
    fixed = rule.pattern.split("*", 1)[0]
    return rule.target + key[len(fixed) :]
