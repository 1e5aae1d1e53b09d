"""Names under which training code keeps a running average of a network's weights beside the network (EMA, SWA)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterator, Mapping
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

Entry = tuple[str, Mapping[Any, Any]]


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


def averaged_entry(
    loaded: Mapping[Any, Any],
    entries_of: Callable[[Any], Mapping[Any, Any] | None],
    is_state: Callable[[Mapping[Any, Any]], bool],
    shown: Callable[[Any], str],
) -> Entry | None:
    """The entry of a training checkpoint that holds averaged weights by name: its dotted path and its state dict.

    An entry counts if its own name says so, as `state_dict_ema`, or that of an entry around it, as in
    `callbacks.EMA.state_dict`. Of several, it is the one with most entries.

    loaded: the entries of the file. entries_of: what an entry holds by name; None if it is no mapping.
    is_state: whether this is tensors by name. shown: a name as text.
    """
    state = entries_of(loaded["state_dict"]) if state_dict_is_averaged(loaded) else None
    if state is not None and is_state(state):
        return "state_dict", state

    seen: set[tuple[int, bool]] = set()  # objects may hold each other

    def below(entries: Mapping[Any, Any], path: str, averaged: bool, depth: int) -> Iterator[Entry]:
        for key, value in entries.items():
            name = shown(key)
            found = entries_of(value) if depth < _DEPTH else None
            inside, whole = averaged or is_averaged(name), f"{path}{name}"
            if found is not None and (id(found), inside) not in seen:
                seen.add((id(found), inside))
                if inside and is_state(found):
                    yield whole, found
                yield from below(found, f"{whole}.", inside, depth + 1)

    average = max(below(loaded, "", False, 0), key=lambda entry: len(entry[1]), default=None)
    return average if average is not None and len(average[1]) > 1 else None
