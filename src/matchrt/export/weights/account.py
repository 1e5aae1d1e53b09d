"""Puts checkpoint tensors into a network, with an account of every one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from matchrt.errors import InternalError, MatchRTError
from matchrt.export.weights.fusion import Group, derive
from matchrt.export.weights.locate import Located, Selection, locate
from matchrt.export.weights.report import Entry, LoadReport
from matchrt.families.keymap import Constant, Drop, Fuse, KeyMap, Reject, Rename, Rule, renamed

# By name: a function that computes a constant of the network in the shape that it has in the file.
Constants = Mapping[str, Callable[[tuple[int, ...]], Tensor]]
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
_CONSTANT_TOLERANCE = 1e-5


def account(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    key_map: KeyMap,
    model: str,
    allow_missing: Sequence[str] = (),
    constants: Constants | None = None,
    selection: Selection | None = None,
    strict: bool = True,
    source: str = "the file",
) -> tuple[dict[str, Tensor], LoadReport]:
    """Maps the checkpoint's tensors to the network's keys, and reports the fate of every tensor on both sides.

    tensors: of the checkpoint, by its own keys.
    expected: the network's tensors by key; their values are not used, so they may be meta tensors.
    key_map: the model's rules.
    model: its name, for the report.
    allow_missing: patterns of network keys that the checkpoint may lack.
    constants: tensors that the network computes and that some files hold too.
    selection, strict, source: as in `locate`, which finds the network among the tensors.
    Errors: those of `locate`, allow-missing-unused, keymap-ambiguous. A tensor that does not fit is in the report and
    raises nothing.
    """
    located = locate(tensors, expected, key_map, selection, source, strict)
    state: dict[str, Tensor] = {}
    origin: dict[str, Entry] = {}
    file: dict[str, Entry] = {}
    groups: dict[str, Group] = {}
    for key, tensor in tensors.items():
        name = located.names.get(key)
        if name is None:
            file[key] = outside_entry(key, tensor, located)
            continue
        rule = _only_rule(name, key_map)
        if isinstance(rule, Fuse):
            groups.setdefault(rule.module, Group(rule)).add(key, name, tensor)
            file[key] = Entry(key, tuple(tensor.shape), "derived", f"into {rule.target}")
            continue
        entry, target = _claim(key, name, tensor, rule, constants or {})
        if target is not None:
            entry = _place(entry, tensor, target, expected, origin)
            if entry.fate == "loaded":
                state[target] = tensor
            if entry.fate != "duplicated":
                origin[target] = entry
        file[key] = entry
    difference = derive(groups.values(), expected, state, origin, file)
    network = tuple(_network_entry(key, tuple(t.shape), origin, allow_missing) for key, t in expected.items())
    _require_used(allow_missing, network)
    report = LoadReport(
        model,
        located.prefix,
        tuple(file.values()),
        network,
        difference=difference,
        averaged=located.averaged,
        others=located.others,
    )
    return state, report


def outside_entry(key: str, tensor: Tensor, located: Located) -> Entry:
    """The fate of a tensor of the file that is none of the network's. Raises KeyError for another tensor."""
    shape = tuple(tensor.shape)
    if key in located.stray:
        return Entry(key, shape, "unexpected", located.stray[key])
    return Entry(key, shape, "neighbour", located.beside[key])


def _only_rule(name: str, key_map: KeyMap) -> Rule | None:
    rules = key_map.claims(name)
    if len(rules) > 1:
        raise InternalError(
            "keymap-ambiguous", f"'{name}' is claimed by several rules: {rules}.", "Report this as a bug."
        )
    return rules[0] if rules else None


def _claim(key: str, name: str, tensor: Tensor, rule: Rule | None, constants: Constants) -> tuple[Entry, str | None]:
    """The fate by rule alone, and the network's key that the tensor is for, if there is one."""
    shape = tuple(tensor.shape)
    if rule is None:
        return Entry(key, shape, "unexpected", "no rule claims it"), None
    if isinstance(rule, Drop):
        return Entry(key, shape, "dropped", rule.reason), None
    if isinstance(rule, Reject):
        return Entry(key, shape, "rejected", rule.reason), None
    if isinstance(rule, Constant):
        return _compare_constant(key, tensor, rule, constants), None
    target = renamed(rule, name) if isinstance(rule, Rename) else name
    return Entry(key, shape, "loaded", target), target


def _compare_constant(key: str, tensor: Tensor, rule: Constant, constants: Constants) -> Entry:
    shape = tuple(tensor.shape)
    computed = constants[rule.name](shape)
    if tuple(computed.shape) == shape and torch.allclose(tensor.float(), computed, rtol=0, atol=_CONSTANT_TOLERANCE):
        return Entry(key, shape, "dropped", f"equals the {rule.name} that the network computes")
    return Entry(key, shape, "rejected", f"differs from this model's {rule.name}: it belongs to another variant")


def _place(
    entry: Entry, tensor: Tensor, target: str, expected: Mapping[str, Tensor], origin: Mapping[str, Entry]
) -> Entry:
    key, shape = entry.key, entry.shape
    if target not in expected:
        return Entry(key, shape, "unexpected", "the network has no such tensor")
    if target in origin:
        return Entry(key, shape, "duplicated", f"fills {target}, which {origin[target].key} fills already")
    wanted = expected[target]
    if shape != tuple(wanted.shape):
        return Entry(key, shape, "shape-mismatched", f"the network has {list(wanted.shape)}")
    kinds = FLOATS if wanted.is_floating_point() else INTEGERS
    if tensor.dtype not in kinds:
        return Entry(key, shape, "type-mismatched", f"{_type(tensor)}; the network has {_type(wanted)}")
    if tensor.dtype == wanted.dtype:
        return entry
    return Entry(key, shape, "loaded", f"{target} (converted from {_type(tensor)})")


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _network_entry(
    key: str, shape: tuple[int, ...], origin: Mapping[str, Entry], allow_missing: Sequence[str]
) -> Entry:
    if key in origin:
        source = origin[key]
        detail = f"{source.key} has {list(source.shape)}: {source.detail}"
        if source.fate in ("loaded", "derived"):
            detail = source.key if source.fate == "loaded" else source.detail
        return Entry(key, shape, source.fate, detail)
    if any(fnmatchcase(key, pattern) for pattern in allow_missing):
        return Entry(key, shape, "allowed-missing", "keeps an untrained value, as --allow-missing says")
    return Entry(key, shape, "missing")


def _require_used(allow_missing: Sequence[str], network: Sequence[Entry]) -> None:
    missing = [entry.key for entry in network if entry.fate == "allowed-missing"]
    for pattern in allow_missing:
        if not any(fnmatchcase(key, pattern) for key in missing):
            raise MatchRTError(
                "allow-missing-unused",
                f"--allow-missing '{pattern}' names no tensor that the checkpoint lacks.",
                "Correct the pattern or leave it out.",
            )


def fill(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts `state` into the network, in the network's types.

    Tensors of the right type and layout are used as they are, without a copy. Raises RuntimeError if keys or shapes do
    not fit.
    """
    own = network.state_dict()
    taken = {key: tensor.detach().to(own[key].dtype).contiguous() for key, tensor in state.items()}
    network.load_state_dict({**own, **taken}, strict=True, assign=True)
