"""Checkpoint tensors into a network, with an account of every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from matchrt.errors import InternalError
from matchrt.export.keymap import Drop, Keep, KeyMap, Reject, Rename, renamed
from matchrt.export.report import FileEntry, LoadReport, NetworkEntry


def account(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    key_map: KeyMap,
    model: str,
    allow_missing: Sequence[str] = (),
) -> tuple[dict[str, Tensor], LoadReport]:
    """Maps `tensors` to the network's keys; `expected` are the network's keys and shapes. Raises nothing itself."""
    prefix = key_map.common_prefix(tensors)
    state: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    misfits: dict[str, str] = {}
    file: list[FileEntry] = []
    for key, tensor in tensors.items():
        shape = tuple(tensor.shape)
        target, entry = _fate(key, key[len(prefix) :], shape, key_map, expected)
        if target is not None and target in origin:
            entry = FileEntry(key, shape, "duplicated", f"fills {target}, which {origin[target]} fills already")
        elif target is not None and shape != expected[target]:
            misfits[target] = f"file has {list(shape)}"
            entry = FileEntry(key, shape, "shape-mismatched", f"the network has {list(expected[target])}")
        elif target is not None:
            state[target], origin[target] = tensor, key
        file.append(entry)
    network = tuple(_network_entry(k, s, origin, misfits, allow_missing) for k, s in expected.items())
    return state, LoadReport(model, prefix, tuple(file), network)


def _fate(
    key: str, name: str, shape: tuple[int, ...], key_map: KeyMap, expected: Mapping[str, tuple[int, ...]]
) -> tuple[str | None, FileEntry]:
    rules = key_map.claims(name)
    if len(rules) > 1:
        raise InternalError("keymap-ambiguous", f"'{name}' is claimed by {rules}.", "Report this as a bug.")
    if not rules:
        return None, FileEntry(key, shape, "unexpected", "no rule claims it")
    rule = rules[0]
    if isinstance(rule, Drop):
        return None, FileEntry(key, shape, "dropped", rule.reason)
    if isinstance(rule, Reject):
        return None, FileEntry(key, shape, "rejected", rule.reason)
    target = renamed(rule, name) if isinstance(rule, Rename) else name
    assert isinstance(rule, Keep | Rename)
    if target not in expected:
        return None, FileEntry(key, shape, "unexpected", "the network has no such tensor")
    return target, FileEntry(key, shape, "loaded", target)


def _network_entry(
    key: str,
    shape: tuple[int, ...],
    origin: Mapping[str, str],
    misfits: Mapping[str, str],
    allow_missing: Sequence[str],
) -> NetworkEntry:
    if key in origin:
        return NetworkEntry(key, shape, "loaded", origin[key])
    if key in misfits:
        return NetworkEntry(key, shape, "shape-mismatched", misfits[key])
    if any(fnmatchcase(key, pattern) for pattern in allow_missing):
        return NetworkEntry(key, shape, "allowed-missing", "keeps its initial value, as --allow-missing says")
    return NetworkEntry(key, shape, "missing")


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the network's persistent tensors."""
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def fill(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copies `state` into the network; half-precision values are widened, which loses nothing."""
    with torch.no_grad():
        own = network.state_dict()
        for key, tensor in state.items():
            own[key].copy_(tensor)
