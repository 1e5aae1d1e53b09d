"""Describes a checkpoint."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matchrt.export.weights.read import StoredCheckpoint, read_stored, to_torch

if TYPE_CHECKING:
    from matchrt.export.weights.report import LoadReport


@dataclass(frozen=True)
class Part:
    """The tensors of a checkpoint under one prefix.

    name: the first two steps of the keys.
    tensors: their number.
    elements: the number of values in them.
    """

    name: str
    tensors: int
    elements: int


def checkpoint_parts(checkpoint: StoredCheckpoint, prefix: str) -> list[Part]:
    """The tensors by the first two steps of their keys, in the order of the file. Raises nothing.

    prefix: what precedes the network's keys; it is left out.
    """
    tensors: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    for key, tensor in checkpoint.tensors.items():
        name = ".".join(key.removeprefix(prefix).split(".")[:2])
        tensors[name] += 1
        elements[name] += math.prod(tensor.shape)
    return [Part(name, tensors[name], elements[name]) for name in tensors]


def inspect_checkpoint(path: Path) -> dict[str, Any]:
    """Everything about a checkpoint as JSON values.

    `models` lists the known models that it fits completely. The networks are torch's, so without torch `models`,
    `closest` and `account` are None, and `lacks` names the package. `tensors_sha256` is the digest of the network's
    tensors, as a build from the file states it; without torch, of all. Errors: those of `read_stored`.
    """
    stored = read_stored(path)
    fits = _fits(stored)
    return {
        "kind": "checkpoint",
        "path": str(path),
        "bytes": path.stat().st_size,
        "format": stored.format,
        "wrapper": stored.wrapper,
        "ignored": list(stored.ignored),
        "put_aside": [vars(entry) for entry in stored.put_aside],
        "prefix": fits["prefix"],
        "tensors": len(stored.tensors),
        "elements": stored.elements,
        "dtypes": dict(Counter(tensor.element.name for tensor in stored.tensors.values())),
        "sha256": stored.file_sha256,
        "tensors_sha256": stored.tensors_sha256,
        "metadata": dict(stored.metadata),
        "parts": [vars(part) for part in checkpoint_parts(stored, fits["prefix"])],
        **fits,
    }


def _fits(stored: StoredCheckpoint) -> dict[str, Any]:
    """The models that the checkpoint fits, and the account for the closest one."""
    try:
        from matchrt.export.weights.network import fitting_models, notes, own_part
        from matchrt.families.registry import get_spec
    except ModuleNotFoundError as error:
        nothing = dict.fromkeys(("models", "closest", "account"))
        return {"prefix": "", **nothing, "problems": [], "notes": [], "lacks": str(error.name)}
    checkpoint = to_torch(stored)
    reports = fitting_models(checkpoint)
    closest, best = next(iter(reports.items()))
    return {
        "prefix": best.prefix,
        "tensors_sha256": own_part(checkpoint, best.file).tensors_sha256,
        "models": [name for name, report in reports.items() if report.complete],
        "closest": closest,
        "account": best.summary(),
        "notes": list(notes(get_spec(closest), checkpoint, best)),
        "problems": _problems(best),
        "lacks": None,
    }


def _problems(report: LoadReport) -> list[dict[str, Any]]:
    return [{"fate": e.fate, "key": e.key, "shape": list(e.shape), "detail": e.detail} for e in report.problems[:50]]
