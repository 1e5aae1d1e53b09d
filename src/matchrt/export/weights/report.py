"""The fate of every tensor, on the checkpoint's side and on the network's side."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from matchrt._util.text import printable
from matchrt.errors import MatchRTError
from matchrt.export.weights.locate import Candidate

# Fates of a checkpoint's tensors: loaded, derived (the network's tensor is computed from it and others), dropped (for a
# reason), neighbour (beside the network), unexpected, duplicated, shape- or type-mismatched, rejected.
# Fates of a network's tensors: loaded, derived, supplemented, allowed-missing, missing, shape- or type-mismatched.
Fate = Literal[
    "loaded",
    "dropped",
    "derived",
    "neighbour",
    "supplemented",
    "allowed-missing",
    "missing",
    "unexpected",
    "duplicated",
    "shape-mismatched",
    "type-mismatched",
    "rejected",
]
GOOD: frozenset[str] = frozenset({"loaded", "dropped", "derived", "neighbour", "supplemented", "allowed-missing"})


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
    prefix: what precedes the network's keys in the file; it was left out.
    file: the checkpoint's tensors.
    network: the network's tensors.
    supplement: the tensors of a second file; empty for models that take none.
    difference: the largest difference between derived tensors' outputs and those of what they were derived from,
        relative to the largest output; None if nothing was derived.
    averaged: whether the network is a running average of weights (EMA, SWA).
    others: other networks of the same form that the file holds.
    """

    model: str
    prefix: str
    file: tuple[Entry, ...]
    network: tuple[Entry, ...]
    supplement: tuple[Entry, ...] = ()
    difference: float | None = None
    averaged: bool = False
    others: tuple[Candidate, ...] = ()

    @property
    def matched(self) -> int:
        """The number of the file's tensors that went into the network."""
        return sum(entry.fate in ("loaded", "derived") for entry in self.file)

    @property
    def neighbours(self) -> dict[str, int]:
        """The number of tensors beside the network, by the first two parts of their keys."""
        return dict(Counter(".".join(e.key.split(".")[:2]) for e in self.file if e.fate == "neighbour"))

    def notes(self) -> tuple[str, ...]:
        """Sentences about what else the file holds, and how to take it. Empty for a file of one network."""
        said = []
        if self.neighbours:
            listed = [f"{name} ({count})" for name, count in self.neighbours.items()]
            more = f" and {len(listed) - 8} more parts" if len(listed) > 8 else ""
            said.append(f"Beside the network, which is under '{self.prefix}': {', '.join(listed[:8])}{more}.")
        for other in self.others:
            option = "--ema" if other.averaged and not self.averaged else f"--prefix {other.prefix.rstrip('.')}"
            if not other.prefix:
                option = "--prefix ''"
            what = "A running average (EMA) of the network" if other.averaged else "Another network of this form"
            said.append(f"{what} is under '{other.prefix}'; {option} takes it.")
        if self.averaged:
            said.append(f"The weights under '{self.prefix}' are a running average.")
        return tuple(said)

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
        # A key is a line of its own, whatever the file's writer put into it.
        lines = [printable(f"  {e.fate}: {e.key} {list(e.shape)} {e.detail}".rstrip()) for e in self.problems]
        shown = lines[:20] + ([f"  … and {len(lines) - 20} more"] if len(lines) > 20 else [])
        shown += [f"  note: {note}" for note in self.notes()]
        remedy = (
            "Run `matchrt inspect` on the file to see which models it fits; "
            "--allow-missing PATTERN accepts named gaps in the network."
        )
        if all(entry.fate == "rejected" for entry in self.problems):
            remedy = "These weights are of another variant than the model; the message says of which."
        listed = "\n".join(shown)
        raise MatchRTError(
            "weights-unaccounted",
            f"'{source}' does not fit {self.model}: {len(lines)} tensors are unexplained ({self.summary()}).\n{listed}",
            remedy,
        )


def _listed(counts: dict[str, int]) -> str:
    fates = ", ".join(f"{count} {fate}" for fate, count in sorted(counts.items()))
    return f"{sum(counts.values())}: {fates}"
