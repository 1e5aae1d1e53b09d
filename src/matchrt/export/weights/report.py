"""The fate of every tensor, on the checkpoint's side and on the network's side."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from matchrt.errors import MatchRTError

# Fates of a checkpoint's tensors: loaded, derived (the network's tensor is computed from it and others), dropped (for a
# reason), unexpected, duplicated, shape- or type-mismatched, rejected.
# Fates of a network's tensors: loaded, derived, supplemented, allowed-missing, missing, shape- or type-mismatched.
Fate = Literal[
    "loaded",
    "dropped",
    "derived",
    "supplemented",
    "allowed-missing",
    "missing",
    "unexpected",
    "duplicated",
    "shape-mismatched",
    "type-mismatched",
    "rejected",
]
GOOD: frozenset[str] = frozenset({"loaded", "dropped", "derived", "supplemented", "allowed-missing"})


@dataclass(frozen=True)
class Entry:
    """A tensor of the checkpoint and what became of it, or a tensor of the network and where it came from.

    key: of the tensor, on its own side.
    shape: in elements.
    fate: what became of it.
    detail: for people: where it went or came from, or what is wrong.
    """

    key: str
    shape: tuple[int, ...]
    fate: Fate
    detail: str = ""


@dataclass(frozen=True)
class LoadReport:
    """Both sides of a load, every tensor once.

    model: name of the model.
    prefix: what all keys of the file begin with; it was left out.
    file: the checkpoint's tensors.
    network: the network's tensors.
    supplement: the tensors of a second file; empty for models that take none.
    difference: the largest difference between derived tensors' outputs and those of what they were derived from,
        relative to the largest output; None if nothing was derived.
    """

    model: str
    prefix: str
    file: tuple[Entry, ...]
    network: tuple[Entry, ...]
    supplement: tuple[Entry, ...] = ()
    difference: float | None = None

    @property
    def problems(self) -> tuple[Entry, ...]:
        """Every entry without a good fate."""
        return tuple(entry for entry in (*self.file, *self.supplement, *self.network) if entry.fate not in GOOD)

    @property
    def complete(self) -> bool:
        """Whether every tensor of both sides has a good fate."""
        return not self.problems

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of tensors by fate, for each side."""
        return {
            "file": dict(Counter(entry.fate for entry in self.file)),
            "network": dict(Counter(entry.fate for entry in self.network)),
            **({"supplement": dict(Counter(e.fate for e in self.supplement))} if self.supplement else {}),
        }

    def summary(self) -> str:
        """One line with the counts of both sides, never only a percentage."""
        counts = self.counts()
        second = f"; second file {_listed(counts['supplement'])}" if self.supplement else ""
        fused = "" if self.difference is None else f"; derived to within {self.difference:.1e}"
        return f"checkpoint {_listed(counts['file'])}{second}; network {_listed(counts['network'])}{fused}"

    def require_complete(self, source: str) -> None:
        """Raises `weights-unaccounted` with a list of what is unexplained.

        source: the checkpoint's path, for the message.
        """
        if self.complete:
            return
        lines = [f"  {e.fate}: {e.key} {list(e.shape)} {e.detail}".rstrip() for e in self.problems]
        shown = "\n".join(lines[:20]) + (f"\n  … and {len(lines) - 20} more" if len(lines) > 20 else "")
        raise MatchRTError(
            "weights-unaccounted",
            f"'{source}' does not fit {self.model}: {len(lines)} tensors are unexplained ({self.summary()}).\n{shown}",
            "Run `matchrt inspect` on the file to see which models it fits; "
            "--allow-missing PATTERN accepts named gaps in the network.",
        )


def _listed(counts: dict[str, int]) -> str:
    fates = ", ".join(f"{count} {fate}" for fate, count in sorted(counts.items()))
    return f"{sum(counts.values())}: {fates}"
