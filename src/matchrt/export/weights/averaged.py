"""Names under which training code keeps a running average of a network's weights beside the network (EMA, SWA)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import Any

# Parts of names: `ema`, `ema_matcher`, `model_ema`, `modelEMA`, `averaged_model`, `swa_model`, `shadow`.
_AVERAGED = re.compile(
    r"(?:^|_|\W)(?:ema|ewa|swa|avg|average|averaged|averaging|polyak|shadow)(?:$|_|\W|(?=[A-Z]))|EMA|^ema(?=[A-Z])",
)
# The counter that torch.optim.swa_utils.AveragedModel keeps beside its `module.`.
COUNTER = "n_averaged"
# Where the training code puts the average into `state_dict`, and the last weights into another entry: the entries by
# which its files are known. Lightning's WeightAveraging, MMEngine's EMAHook.
_IN_STATE_DICT = (("current_model_state", "averaging_state"), ("ema_state_dict", "message_hub"))
_DEPTH = 4


def is_averaged(name: str) -> bool:
    """Whether one part of a dotted name says that what it holds is an average of weights."""
    return _AVERAGED.search(name) is not None


def has_averaged_part(prefix: str, keys: Container[str]) -> bool:
    """Whether tensors under `prefix` are an average of weights.

    A part of the prefix says so, or one of its parts `module` stands beside the counter of an `AveragedModel`.

    keys: of the whole file.
    """
    parts = prefix.split(".")[:-1]
    if any(is_averaged(part) for part in parts):
        return True
    return any(".".join((*parts[:at], COUNTER)) in keys for at, part in enumerate(parts) if part == "module")


def state_dict_is_averaged(entries: Collection[Any]) -> bool:
    """Whether the entry `state_dict` of a training checkpoint with these entries is the average of the weights."""
    return "state_dict" in entries and any(all(name in entries for name in names) for names in _IN_STATE_DICT)


def averaged_entry(loaded: Any, is_state: Callable[[Any], bool]) -> tuple[str, Mapping[str, Any]] | None:
    """The entry of a training checkpoint that holds averaged weights by name: its dotted path and its state dict.

    An entry counts if its own name says so, as `state_dict_ema`, or that of an entry around it, as in
    `callbacks.EMA.state_dict`. Of several, it is the one with most entries.

    loaded: what the file holds. is_state: whether a value is tensors by name.
    """
    if isinstance(loaded, Mapping) and state_dict_is_averaged(loaded) and is_state(loaded["state_dict"]):
        return "state_dict", loaded["state_dict"]
    found = [entry for entry in _entries(loaded, "", False, 0) if is_state(entry[1]) and len(entry[1]) > 1]
    return max(found, key=lambda entry: len(entry[1]), default=None)


def _entries(value: Any, path: str, averaged: bool, depth: int) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Every mapping at or below an entry whose name says that it is an average, with its path."""
    if not isinstance(value, Mapping) or depth > _DEPTH:
        return
    if averaged:
        yield path, value
    for key, inner in value.items():
        name = key if isinstance(key, str) else getattr(key, "__name__", str(key))
        yield from _entries(inner, f"{path}.{name}" if path else name, averaged or is_averaged(name), depth + 1)
