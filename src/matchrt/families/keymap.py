"""The key map: declarative rules from a checkpoint's keys to the network's keys.

A pattern is a dotted key in which `*` stands for one part and a final `**` for one or more parts. Exactly one rule must
claim each key of the file. If two rules claim the same key, the map is wrong.
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
    """The network has the tensor under the same key.

    pattern: the keys that the rule claims.
    """

    pattern: str


@dataclass(frozen=True)
class Rename:
    """The network has the tensor under a key with another beginning.

    pattern: the keys that the rule claims.
    target: replaces the part of the pattern before its first `*`.
    """

    pattern: str
    target: str


@dataclass(frozen=True)
class Drop:
    """The network does not need the tensor.

    pattern: the keys that the rule claims.
    reason: why the tensor is not needed, for the report.
    """

    pattern: str
    reason: str


@dataclass(frozen=True)
class Constant:
    """The tensor is a constant that the network computes itself. The file's values must be the same.

    pattern: the keys that the rule claims.
    name: the name of the constant in `Family.constants`. If variants differ in it, the file's values tell them apart.
    """

    pattern: str
    name: str


@dataclass(frozen=True)
class Reject:
    """The tensor shows that the checkpoint is of another variant.

    pattern: the keys that the rule claims.
    reason: which variant the checkpoint is of, for the message.
    """

    pattern: str
    reason: str


@dataclass(frozen=True)
class Fused:
    """The result of a fusion.

    tensors: of the network's module, by name below it.
    difference: measured difference of its output from that of the parts, relative to the largest output.
    """

    tensors: Mapping[str, Tensor]
    difference: float


class RejectedPartsError(ValueError):
    """The parts have values that show another variant of the network."""


# Computes the network's tensors from the parts, by the recipe's names. Raises ValueError if the parts do not fit, and
# RejectedPartsError if their values say that they are another network's.
Recipe = Callable[[Mapping[str, "Tensor"]], Fused]


@dataclass(frozen=True)
class Fuse:
    """The tensors of a module of the network are computed from the tensors of a module of the file.

    module: the module in the file.
    parts: the tensors that are needed: (name below the module, the recipe's name of the tensor).
    target: the module in the network.
    recipe: computes the tensors from the parts, and measures the difference in output.
    """

    module: str
    parts: tuple[tuple[str, str], ...]
    target: str
    recipe: Recipe

    def part(self, key: str) -> str | None:
        """The recipe's name of the file's tensor `key`; None if it is not a part."""
        if not key.startswith(f"{self.module}."):
            return None
        return dict(self.parts).get(key[len(self.module) + 1 :])


@dataclass(frozen=True)
class Tied:
    """Tensors that are equal to the last bit in honest files.

    Such are the biases of the last norms of branches that meet in a sum: they begin at zero and get the same gradients.
    Constants of several layers are others.

    patterns: one for each of the tensors; `*` stands for the same part in all of them.
    """

    patterns: tuple[str, ...]

    def place(self, name: str) -> tuple[str, ...] | None:
        """What `*` stands for, which is the same for tensors of one sum; None if no pattern fits the name."""
        names = name.split(".")
        for pattern in self.patterns:
            parts = pattern.split(".")
            if len(parts) == len(names) and all(p in ("*", n) for p, n in zip(parts, names, strict=True)):
                return tuple(n for p, n in zip(parts, names, strict=True) if p == "*")
        return None


Shape = tuple[int, ...]
Rule = Keep | Rename | Drop | Constant | Reject | Fuse


@dataclass(frozen=True)
class KeyMap:
    """The rules of a model's key map.

    rules: as the module describes them.
    prefixes: beginnings that may precede the names in the authors' own files or because of torch's wrappers, such as
        `matcher.` and `module.`. Among several networks in a file, the one under such a prefix is the plain one.
    tied: which tensors of a file training keeps equal, by their names without prefix.
    """

    rules: tuple[Rule, ...]
    prefixes: tuple[str, ...] = ("module.", "_orig_mod.", "matcher.", "model.")
    tied: tuple[Tied, ...] = ()

    def common_prefix(self, keys: Iterable[str]) -> str:
        """The longest sequence of known prefixes that all keys share."""
        names = list(keys)
        prefix = ""
        while names:
            found = next((p for p in self.prefixes if all(n.startswith(prefix + p) for n in names)), None)
            if found is None:
                break
            prefix += found
        return prefix

    def names(self, expected: Mapping[str, Shape]) -> dict[str, Shape | None]:
        """The names that files may have for the network's tensors, without prefix, and the shapes that they then have.

        expected: shapes of the network's tensors by key. A shape is None for a part of a fusion: only the recipe knows.
        """
        found: dict[str, Shape | None] = {}
        for rule in self.rules:
            if isinstance(rule, Fuse):
                if any(key.startswith(f"{rule.target}.") for key in expected):
                    found.update({f"{rule.module}.{name}": None for name, _ in rule.parts})
            elif isinstance(rule, Keep):
                found.update({key: shape for key, shape in expected.items() if matches(rule.pattern, key)})
            elif isinstance(rule, Rename):
                fixed = rule.pattern.split("*", 1)[0]
                for key, shape in expected.items():
                    if key.startswith(rule.target) and matches(rule.pattern, fixed + key[len(rule.target) :]):
                        found[fixed + key[len(rule.target) :]] = shape
        return found

    def sum_of(self, name: str) -> tuple[Tied, tuple[str, ...]] | None:
        """The sum that the tensor of that name is added to; the same for tensors that training keeps equal."""
        for tied in self.tied:
            if (place := tied.place(name)) is not None:
                return tied, place
        return None

    def claims(self, key: str) -> list[Rule]:
        """The rules that claim a key, whose prefix is removed."""
        return [rule for rule in self.rules if claims(rule, key)]


def claims(rule: Rule, key: str) -> bool:
    """Whether the rule claims the key."""
    return rule.part(key) is not None if isinstance(rule, Fuse) else matches(rule.pattern, key)


def matches(pattern: str, key: str) -> bool:
    """Whether the dotted `pattern` fits `key`."""
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
    """The network's key: the part of the pattern before its first `*` is replaced by the target."""
    fixed = rule.pattern.split("*", 1)[0]
    return rule.target + key[len(fixed) :]
