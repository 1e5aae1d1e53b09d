"""Finds the network's tensors among everything that a training checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.export.weights.averaged import averaged_entry
from matchrt.export.weights.files.inert import Inert
from matchrt.export.weights.files.names import Name
from matchrt.export.weights.files.problems import DamagedError, listed, shown
from matchrt.export.weights.files.records import OddTensor, TensorRecord

# Where frameworks put the network inside a training checkpoint, in order of preference.
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")

_DEEPEST = 8
_BESIDE = int | float | str | bytes | bool | Inert | Name | None


@dataclass(frozen=True)
class Unwrapped:
    """The network's tensors.

    tensors: by the file's own keys. If the file has a state dict for each of several modules, none under a known name,
        these are their keys after the names of the entries, as in `student.backbone.conv1.weight`.
    wrapper: the entry that they were found under; None if they are at the top.
    ignored: the other entries.
    averaged: whether the entry holds a running average of weights, which was asked for.
    """

    tensors: Mapping[str, TensorRecord | OddTensor]
    wrapper: str | None
    ignored: tuple[str, ...]
    averaged: bool = False


def unwrap(loaded: Any, path: Path, averaged: bool = False, depth: int = 0) -> Unwrapped:
    """Finds the state dict in what a pickle holds.

    averaged: whether to take the entry that holds a running average of the weights, if there is one.
    Errors: checkpoint-empty, checkpoint-unsafe (a whole module). Raises DamagedError.
    """
    entries = _entries(loaded)
    if averaged and entries and (average := averaged_entry(entries, _contents, _is_state, _shown_key)) is not None:
        name, state = average
        below = unwrap(state, path)
        return Unwrapped(below.tensors, name, (*below.ignored, *_others(entries, name)), averaged=True)
    if entries is None:
        raise _no_state(loaded, path)
    if _is_state(entries):
        tensors = {key: value for key, value in entries.items() if isinstance(value, TensorRecord | OddTensor)}
        if odd := next((key for key in tensors if not _is_text(key)), None):
            raise DamagedError(f"a tensor's key is no text that can be written ({shown(odd)})")
        return Unwrapped(tensors, None, tuple(shown(key) for key in entries if key not in tensors))
    inside = {key: found for key, value in entries.items() if (found := _entries(value)) is not None}
    states = [key for key, found in inside.items() if isinstance(key, str) and _is_state(found)]
    chosen = next((name for name in WRAPPERS if name in states), states[0] if len(states) == 1 else None)
    nested = next((name for name in WRAPPERS if name in inside), None)
    if chosen is None and nested is not None and not states and depth < _DEEPEST:
        below = unwrap(inside[nested], path, depth=depth + 1)
        return Unwrapped(below.tensors, f"{nested}.{below.wrapper}", (*below.ignored, *_others(entries, nested)))
    if chosen is None and states:
        return _joined(entries, states, path)
    if chosen is None:
        raise _no_known_name(entries, path)
    below = unwrap(inside[chosen], path)
    return Unwrapped(below.tensors, shown(chosen), (*below.ignored, *_others(entries, chosen)))


def _joined(entries: Mapping[Any, Any], states: list[str], path: Path) -> Unwrapped:
    """Several state dicts as one, as the module that holds them all would name the tensors: `student.`, `teacher.`."""
    tensors = {
        f"{name}.{key}": tensor for name in states for key, tensor in unwrap(entries[name], path).tensors.items()
    }
    if odd := next((name for name in states if not _is_text(name)), None):
        raise DamagedError(f"an entry's name is no text that can be written ({shown(odd)})")
    return Unwrapped(tensors, None, tuple(_shown_key(key) for key in entries if key not in states))


def _entries(value: Any) -> dict[Any, Any] | None:
    """What a dict holds, or one of a foreign class; None for anything else."""
    if isinstance(value, Inert) and not value.is_module:
        value = value.items or None
    return value if isinstance(value, dict) else None


def _contents(value: Any) -> dict[Any, Any] | None:
    """What a dict holds, or the attributes of an object of a foreign class; None for anything else."""
    found = _entries(value)
    if found is None and isinstance(value, Inert) and not value.is_module and isinstance(value.state, dict):
        return value.state
    return found


def _others(entries: Mapping[Any, Any], name: str) -> list[str]:
    return [_shown_key(key) for key in entries if key != name]


def _shown_key(key: Any) -> str:
    return shown(key.name if isinstance(key, Inert) else key)


def _is_text(key: str) -> bool:
    """Whether the key can be written as UTF-8, which half of a pair of surrogates cannot."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_state(entries: Mapping[Any, Any]) -> bool:
    """Whether this is tensors by name. Numbers, texts and foreign objects may be among them, such as a step count."""
    if not all(isinstance(key, str) for key in entries):
        return False
    tensors = sum(isinstance(entry, TensorRecord | OddTensor) for entry in entries.values())
    beside = sum(isinstance(entry, _BESIDE) and not _entries(entry) for entry in entries.values())
    return tensors > 0 and tensors + beside == len(entries)


def _no_state(loaded: Any, path: Path) -> MatchRTError:
    if isinstance(loaded, Inert) and loaded.is_module:
        return _whole_module(loaded, path)
    kind = loaded.name if isinstance(loaded, Inert) else type(loaded).__name__
    kind = {"TensorRecord": "tensor", "OddTensor": "tensor"}.get(kind, kind)
    return MatchRTError(
        "checkpoint-empty",
        f"'{path}' holds a {kind}, not a state dict.",
        "Save the network's state_dict() and use that.",
    )


def _whole_module(module: Inert, path: Path) -> MatchRTError:
    return MatchRTError(
        "checkpoint-unsafe",
        f"'{path}' holds a whole module ({module.name}) and no state dict: only its own code, run while it is read, "
        "could rebuild it. Nothing of it was run.",
        "If you trust it, save the weights alone where that code is installed: "
        "torch.save(torch.load(FILE, weights_only=False).state_dict(), 'weights.pt'). Then name that file.",
    )


def _no_known_name(entries: Mapping[Any, Any], path: Path) -> MatchRTError:
    if any(isinstance(value, Inert) and value.name.startswith("numpy.") for value in entries.values()):
        return MatchRTError(
            "checkpoint-empty",
            f"'{path}' holds arrays of NumPy under {listed([_shown_key(key) for key in entries])}, and no tensors.",
            "Save tensors: torch.save({key: torch.from_numpy(array) for key, array in arrays.items()}, 'weights.pt').",
        )
    modules = [value for value in entries.values() if isinstance(value, Inert) and value.is_module]
    if modules:
        return _whole_module(modules[0], path)
    found = listed([_shown_key(key) for key in entries], 8)
    return MatchRTError(
        "checkpoint-empty",
        f"'{path}' has no state dict under a known name; it holds only {found}.",
        f"Save the one you mean under one of: {', '.join(WRAPPERS)}.",
    )
