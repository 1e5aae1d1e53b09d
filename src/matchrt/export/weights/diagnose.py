"""Says what is in a checkpoint, what a model makes of it, and what to do about the rest."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from matchrt.export.weights.locate import Selection, canonical
from matchrt.export.weights.network import (
    account_files,
    expected_tensors,
    fitting_models,
    notes,
    own_part,
    read_selected,
)
from matchrt.export.weights.read import Checkpoint, read_checkpoint
from matchrt.export.weights.report import GOOD, Entry, LoadReport
from matchrt.export.weights.second_file import second_file_of
from matchrt.families.definition import ModelSpec
from matchrt.families.registry import get_spec
from matchrt.families.second_file import SecondFile

# Tensors with fewer values may be equal by chance.
_DISTINCT = 16
_NEAR_MISSES = 50
_ALIKE = 0.75

State = Literal["complete", "second-file-needed", "another-model", "another-variant", "incomplete", "repeated"]


@dataclass(frozen=True)
class PartFates:
    """How many tensors of one part of the network, or of a file, have which fate.

    name: the first two steps of the keys, without numbers of blocks.
    fates: number of tensors by fate.
    """

    name: str
    fates: Mapping[str, int]

    @property
    def total(self) -> int:
        """The number of all tensors of the part."""
        return sum(self.fates.values())

    @property
    def explained(self) -> int:
        """The number of tensors with a good fate."""
        return sum(count for fate, count in self.fates.items() if fate in GOOD)


@dataclass(frozen=True)
class NearMiss:
    """An unexpected tensor of the file and a missing one of the network that may be the same.

    file: the key in the file.
    network: the key in the network.
    rule: what would map the one to the other, for people.
    """

    file: str
    network: str
    rule: str


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    model: name of the model.
    path: of the checkpoint.
    checkpoint: what the file holds, without the tensors beside the network.
    report: the fate of every tensor.
    network_parts: fates by part of the network.
    file_parts: fates by part of the checkpoint.
    neighbour_parts: fates by part of what stands in the checkpoint beside the network.
    second_parts: fates by part of the second file; empty without one.
    near_misses: tensors that might be mapped by another rule.
    conflicts: tensors of other shapes or types, or that fill a place twice.
    repeated: groups of tensors of a file with the same values, which training does not make equal.
    tied: groups of tensors with the same values that training keeps equal, because they are added to the same sum.
    fits: models whose every tensor the file holds.
    closest: the model that most of the file's tensors fit by name and shape.
    state: `complete`; `second-file-needed`; `another-model` (the file fits one of `fits`); `another-variant` (a tensor
        shows that the weights are of a variant that the model is not); `incomplete`; or `repeated`.
    verdict: the result in a sentence.
    notes: sentences about what else the file holds, and how to take it.
    next_command: the command to run next.
    second: what the second file holds; None without one.
    """

    model: str
    path: Path
    checkpoint: Checkpoint
    report: LoadReport
    network_parts: tuple[PartFates, ...]
    file_parts: tuple[PartFates, ...]
    neighbour_parts: tuple[PartFates, ...]
    second_parts: tuple[PartFates, ...]
    near_misses: tuple[NearMiss, ...]
    conflicts: tuple[Entry, ...]
    repeated: tuple[tuple[str, ...], ...]
    tied: tuple[tuple[str, ...], ...]
    fits: tuple[str, ...]
    closest: str
    state: State
    verdict: str
    notes: tuple[str, ...]
    next_command: str
    second: Checkpoint | None = field(default=None)

    @property
    def explained(self) -> bool:
        """Whether every tensor of every side has a good fate and nothing is repeated."""
        return self.state == "complete"


def diagnose(path: Path, model: str, second_file: Path | None = None, selection: Selection | None = None) -> Diagnosis:
    """Accounts for a checkpoint as the model would load it, and says what is wrong and what to do.

    path: of the checkpoint.
    model: its name.
    second_file: for models that take one. Without it, the part of the network that it fills is not counted as missing.
    selection: which network of the checkpoint to take, if it holds several.
    Errors: those of `read_checkpoint` and `locate`, model-unknown.
    """
    spec = get_spec(model)
    whole, left = read_selected(path, selection)
    second = None if second_file is None else read_checkpoint(second_file)
    lacking = second_file_of(spec) if second is None else None
    _, report = account_files(spec, expected_tensors(spec), whole, second, selection=left)
    checkpoint = own_part(whole, report.file)
    second = None if second is None else own_part(second, report.supplement)
    others = fitting_models(whole, left)
    fits = tuple(name for name, other in others.items() if other.complete)
    repeated, tied = _repeated(spec, report.prefix, checkpoint, second)
    state = _state(spec, report, fits, repeated, lacking)
    closest = next(iter(others))
    options = _options(spec, selection, second_file)
    verdict, command = _verdict(state, spec, checkpoint, report, fits or (closest,), options)
    network = [entry for entry in report.file if entry.fate != "neighbour"]
    return Diagnosis(
        model=spec.name,
        path=path,
        checkpoint=checkpoint,
        report=report,
        network_parts=_parts(report.network, ""),
        file_parts=_parts(network, report.prefix),
        neighbour_parts=_parts((entry for entry in report.file if entry.fate == "neighbour"), ""),
        second_parts=_parts(report.supplement, ""),
        near_misses=tuple(near_misses(report)),
        conflicts=tuple(
            e
            for e in (*report.file, *report.supplement)
            if e.fate in ("shape-mismatched", "type-mismatched", "duplicated", "rejected")
        ),
        repeated=repeated,
        tied=tied,
        fits=fits,
        closest=closest,
        state=state,
        verdict=verdict,
        notes=notes(spec, whole, report),
        next_command=command,
        second=second,
    )


def _options(spec: ModelSpec, selection: Selection | None, second_file: Path | None) -> str:
    """The options of this call that the next command needs too, each after a space."""
    said = ""
    if selection is not None and selection.prefix is not None:
        said += f" --prefix {selection.prefix or chr(39) * 2}"
    said += " --ema" if selection is not None and selection.ema else ""
    second = second_file_of(spec)
    if second is not None and second_file is not None:
        said += f" {second.option} {second_file}"
    return said


def _state(
    spec: ModelSpec, report: LoadReport, fits: Sequence[str], repeated: Sequence[object], lacking: SecondFile | None
) -> State:
    """The state. lacking: the second file that the model takes and that was not given; None otherwise."""
    problems = [e for e in report.problems if lacking is None or not e.key.startswith(lacking.module)]
    if problems:
        if fits and spec.name not in fits:
            return "another-model"
        return "another-variant" if all(e.fate == "rejected" for e in problems) else "incomplete"
    if repeated:
        return "repeated"
    return "complete" if lacking is None else "second-file-needed"


def _verdict(
    state: State,
    spec: ModelSpec,
    checkpoint: Checkpoint,
    report: LoadReport,
    others: Sequence[str],
    options: str,
) -> tuple[str, str]:
    """A sentence and the next command. options: of this call that the command needs too."""
    path, name = checkpoint.path, spec.name
    second = second_file_of(spec)
    if state == "complete":
        return (
            f"Every tensor is explained: {report.summary()}.",
            f"matchrt build {name} --checkpoint {path}{options}",
        )
    if state == "second-file-needed" and second is not None:
        return (
            f"Every tensor of this file is explained ({len(report.file)} of {len(report.file)}); {second.absence} and "
            f"comes from {second.origin}.",
            f"matchrt diagnose {path} --model {name}{options} {second.option} {second.example}",
        )
    if state == "another-variant":
        found = next(e for e in report.file if e.fate == "rejected")
        return f"This is not a checkpoint of {name}: {found.key} {_is(found.detail)}.", f"matchrt inspect {path}"
    if state == "another-model":
        return (
            f"This is not a checkpoint of {name}: it is one of {', '.join(others)}, whose every tensor it holds.",
            f"matchrt diagnose {path} --model {others[0]}",
        )
    if state == "repeated":
        return (
            "Names and shapes fit, but several tensors have the same values: somebody filled gaps with copies.",
            f"matchrt inspect {path}",
        )
    missing = sum(e.fate == "missing" for e in report.network)
    unexpected = sum(e.fate == "unexpected" for e in report.file)
    return (
        f"Not a complete checkpoint of {name}: {missing} tensors of the network are missing, {unexpected} of the file "
        f"are unexpected; the closest model is {others[0]}.",
        f"matchrt diagnose {path} --model {others[0]}" if others[0] != name else f"matchrt inspect {path}",
    )


def _is(detail: str) -> str:
    """What is said of a tensor, as the rest of a sentence about it."""
    return detail if detail.startswith("differs") else f"is {detail}"


def _parts(entries: Iterable[Entry], prefix: str) -> tuple[PartFates, ...]:
    """By the first two parts of the keys, in order; numbered blocks count as one part."""
    found: dict[str, dict[str, int]] = {}
    for entry in entries:
        key = entry.key.removeprefix(prefix)
        names = [part for part in canonical(key).split(".") if not part.isdigit()]
        fates = found.setdefault(".".join(names[:2]), {})
        fates[entry.fate] = fates.get(entry.fate, 0) + 1
    return tuple(PartFates(name, fates) for name, fates in found.items())


def near_misses(report: LoadReport) -> list[NearMiss]:
    """Pairs of an unexpected tensor of the file and a missing one of the network that may be the same. Raises nothing.

    These are suggestions. Nothing is ever loaded because names or shapes are alike.
    """
    missing = [e for e in report.network if e.fate == "missing"]
    by_shape: dict[tuple[int, ...], list[Entry]] = {}
    for entry in missing:
        by_shape.setdefault(tuple(sorted(entry.shape)), []).append(entry)
    found: list[NearMiss] = []
    for entry in (*report.file, *report.supplement):
        # A misspelled prefix makes a neighbour of a tensor of the network.
        if not missing or entry.fate not in ("unexpected", "neighbour") or len(found) >= _NEAR_MISSES:
            continue
        candidates = by_shape.get(tuple(sorted(entry.shape)), [])
        if (miss := _nearest(entry, report.prefix, candidates)) is not None:
            found.append(miss)
    return found


def _nearest(entry: Entry, prefix: str, candidates: Sequence[Entry]) -> NearMiss | None:
    name = entry.key.removeprefix(prefix)
    for candidate in candidates:
        if name.endswith("." + candidate.key):
            return NearMiss(entry.key, candidate.key, f"strip the prefix '{name[: -len(candidate.key)]}'")
    close = difflib.get_close_matches(name, [c.key for c in candidates], n=1, cutoff=_ALIKE)
    if not close:
        return None
    target = next(c for c in candidates if c.key == close[0])
    if target.shape != entry.shape:
        return NearMiss(entry.key, target.key, f"transpose {list(entry.shape)} to {list(target.shape)}")
    return NearMiss(entry.key, target.key, f"rename {_changed(name, target.key)}")


def _changed(name: str, target: str) -> str:
    """The dotted parts in which two names differ."""
    ours, theirs = name.split("."), target.split(".")
    if len(ours) != len(theirs):
        return f"'{name}' to '{target}'"
    return ", ".join(f"'{a}' to '{b}'" for a, b in zip(ours, theirs, strict=True) if a != b)


Groups = tuple[tuple[str, ...], ...]


def _repeated(spec: ModelSpec, prefix: str, checkpoint: Checkpoint, second: Checkpoint | None) -> tuple[Groups, Groups]:
    """Groups of keys whose tensors have the same values: those that are copies, and those that training keeps equal.

    A tensor that both files hold, under different names, is a copy too.
    """
    every: dict[str, Tensor] = dict(checkpoint.tensors)
    if second is not None:
        every.update({f"{second.path.name}: {key}": value for key, value in second.tensors.items()})
    copies: list[tuple[str, ...]] = []
    tied: list[tuple[str, ...]] = []
    for group in _equal(every):
        sums = {spec.key_map.sum_of(canonical(key.removeprefix(prefix))) or key for key in group}
        (copies if len(sums) > 1 else tied).append(group)
    return tuple(copies), tuple(tied)


def _equal(tensors: Mapping[str, Tensor]) -> Groups:
    """Groups of keys whose tensors have the same shape and values. Tensors of a single repeated value do not count."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for key, tensor in tensors.items():
        flat = tensor.detach().reshape(-1)
        if len(flat) < _DISTINCT or bool((flat == flat[0]).all()):
            continue
        # Most tensors already differ in their first values, so only candidates are read in full.
        groups.setdefault((tuple(tensor.shape), tensor.dtype, flat[:_DISTINCT].double().numpy().tobytes()), []).append(
            key
        )
    result: list[tuple[str, ...]] = []
    for keys in groups.values():
        if len(keys) < 2:
            continue
        equal: dict[str, list[str]] = {}
        for key in keys:
            data = tensors[key].detach().double().contiguous().numpy().tobytes()
            equal.setdefault(hashlib.sha256(data).hexdigest(), []).append(key)
        result += [tuple(same) for same in equal.values() if len(same) > 1]
    return tuple(result)
