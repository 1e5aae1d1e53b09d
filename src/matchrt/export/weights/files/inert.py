"""What stands for objects of foreign classes: a name, what was put into it, and nothing that runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matchrt.export.weights.files.names import Name, is_refused
from matchrt.export.weights.files.problems import shown


@dataclass(frozen=True)
class PutAside:
    """Objects of one foreign class, or results of one foreign function, that a file holds beside the weights.

    name: of the class or function, as the file has it.
    objects: their number.
    """

    name: str
    objects: int

    def __str__(self) -> str:
        return f"{self.name}, {self.objects} object{'' if self.objects == 1 else 's'}"


def tell_aside(entries: Sequence[PutAside], limit: int = 12) -> str:
    """What was put aside in one line; empty if there is nothing."""
    more = [f"and {len(entries) - limit} more"] if len(entries) > limit else []
    return "; ".join([*map(str, entries[:limit]), *more])


class Inert:
    """An object of a foreign class. Two of them are never equal.

    name: of the class.
    items: what a dict of a foreign class holds.
    state: the object's attributes as the pickle has them; None without any.
    """

    __slots__ = ("items", "name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: dict[Any, Any] = {}
        self.state: Any = None

    @property
    def is_module(self) -> bool:
        """Whether this was a torch module, which has parameters and submodules among its attributes."""
        return isinstance(self.state, dict) and {"_parameters", "_modules"} <= self.state.keys()


class Aside:
    """Counts what is put aside, and collects the names that no checkpoint has a use for."""

    def __init__(self) -> None:
        self._named: Counter[str] = Counter()
        self._made: Counter[str] = Counter()
        self._refused: dict[str, None] = {}

    def names(self, name: Name) -> None:
        """A foreign class or function was named. Python's own types, which configurations name, are not counted."""
        if name.module not in ("builtins", "typing"):
            self._named[shown(name)] += 1
        if is_refused(name):
            self.refuse(name)

    def makes(self, name: object) -> Inert:
        """An object of a foreign class was asked for: its placeholder. A function may be named here only by a text."""
        self._made[shown(name)] += 1
        return Inert(shown(name))

    def refuse(self, name: Name) -> None:
        """No checkpoint has a use for this."""
        self._refused[shown(name)] = None

    @property
    def refused(self) -> list[str]:
        """The names that no checkpoint has a use for, in the order of the file."""
        return list(self._refused)

    def listed(self) -> tuple[PutAside, ...]:
        """Everything that was put aside, by name. A class that is only named counts as one object each time."""
        names = sorted({*self._named, *self._made})
        return tuple(PutAside(name, self._made[name] or self._named[name]) for name in names)
