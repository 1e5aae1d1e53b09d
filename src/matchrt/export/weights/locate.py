"""Finds the network in a file, whatever stands beside it.

Training code saves more than a network: losses with buffers, a second network, a running average of the first. Wrappers
of torch add parts to names, before the network's own (`module.matcher.`) and between them (`backbone._orig_mod.`).

What is searched for is the prefix under which most tensors have the network's names and shapes. The rules for the rest:

- A tensor under the prefix belongs to the network. If no rule of the key map claims it, it stays an error, because a
  module that the network has and matchrt does not know would compute something.
- A tensor outside of the prefix is a neighbour. It is listed and not loaded.
- A tensor outside of the prefix is an error nevertheless if it has a name of the network and stands there alone or with
  few others: then it is more likely a damaged or misspelled key than a part of another network. `--prefix` says that it
  is none.
- Below the prefix, and so with an empty prefix too, only two kinds of tensors are neighbours: another whole network of
  the same form, in a module whose name the network does not have; and, with an empty prefix, modules whose name says
  that only training has them, such as `loss.pos_weight` or `ema.decay`. A module `head.` beside a bare network stays an
  error.

The network itself must be complete in every case. So a renamed or lost key is refused wherever it went.

If the file holds several networks of the same form, the plain one is taken, whose prefix the authors' own loader would
remove. A running average is taken on request only, or if there is nothing else. Which one is complete does not count:
otherwise one damaged key would silently change which network is loaded. Without a plain one, the user must choose.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from matchrt.errors import MatchRTError
from matchrt.export.weights.averaged import COUNTER, has_averaged_part, is_averaged
from matchrt.families.keymap import Constant, Drop, Fuse, KeyMap, Reject, Shape, matches

# Parts that wrappers put into names: DataParallel, torch.compile, FSDP, activation checkpointing, Fabric.
TRANSPARENT = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
# Modules that only training has.
_TRAINING = re.compile(r"(?:.*_)?(?:loss|losses|criterion|criteria|metric|metrics)(?:_.*)?", re.IGNORECASE)
# Places that hold so much of what the best one holds are networks between which one is chosen.
_RIVAL = 0.75
# So much of the last weights is enough not to take their average instead, although they are damaged.
_DAMAGED = 0.5
_WILD = re.compile(r"[*?\[]")
# A name has at most so many parts with its wrappers; longer names cost no more.
_TAIL = 32


@dataclass(frozen=True)
class Selection:
    """Which network of a file to take, if it holds several.

    prefix: what precedes its keys, with or without the last dot; None to find it.
    ema: whether to take the running average of the weights.
    """

    prefix: str | None = None
    ema: bool = False


@dataclass(frozen=True)
class Candidate:
    """A place of a file where tensors have the network's names.

    prefix: what precedes the names, with its dot; may be empty.
    named: number of different names of the network below it.
    matched: number of those whose tensors have the network's shapes.
    averaged: whether it is a running average of weights.
    """

    prefix: str
    named: int
    matched: int
    averaged: bool = False


@dataclass(frozen=True)
class Located:
    """Where the network is in a file.

    prefix: what precedes the network's keys.
    names: the network's names of the tensors that belong to it, by key of the file. Parts of wrappers are left out.
    beside: why each of the other tensors is none of the network's, by key.
    stray: why tensors outside of the prefix are errors, by key.
    averaged: whether the network is a running average.
    others: other networks of the same form in the file.
    """

    prefix: str
    names: Mapping[str, str]
    beside: Mapping[str, str] = field(default_factory=dict)
    stray: Mapping[str, str] = field(default_factory=dict)
    averaged: bool = False
    others: tuple[Candidate, ...] = ()


def locate(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    key_map: KeyMap,
    selection: Selection | None = None,
    source: str = "the file",
    strict: bool = True,
    known: Mapping[str, Shape | None] | None = None,
) -> Located:
    """Finds the network among the tensors of a file, by the rules that the module states.

    tensors: of the file, by key. expected: the network's tensors, by key. key_map: the model's rules.
    selection: what the user asked for; None to find the network.
    source: the file's name, for messages.
    strict: whether several networks between which the user must choose are an error; else the first is taken.
    known: the names that the network's tensors have in files, with their shapes if these are known; None for those that
        the key map gives.
    Errors: checkpoint-prefix (nothing is under the prefix asked for), checkpoint-no-average (there is no running
    average), checkpoint-ambiguous (several networks).
    """
    selection = selection or Selection()
    if known is None:
        known = key_map.names({key: tuple(tensor.shape) for key, tensor in expected.items()})
    search = _Search(tensors, known, key_map, len(expected))
    chosen = search.choose(selection, source, strict)
    if chosen is None:
        prefix = key_map.common_prefix(tensors)
        return Located(prefix, {key: canonical(key[len(prefix) :]) for key in tensors})
    others = tuple(c for c in search.networks() if not _inside(c.prefix, chosen.prefix))
    names, beside, stray = search.divide(chosen, others, selection.prefix is not None)
    return Located(chosen.prefix, names, beside, stray, chosen.averaged, others)


def canonical(name: str) -> str:
    """The name without the parts that wrappers add."""
    parts = name.split(".")
    return ".".join(part for part in parts if part not in TRANSPARENT) if TRANSPARENT.intersection(parts) else name


def normalised(prefix: str) -> str:
    """A prefix as the user gives it, with its dot at the end; an empty one stays empty."""
    stem = prefix.strip().rstrip(".")
    return f"{stem}." if stem else ""


def _inside(prefix: str, other: str) -> bool:
    """Whether the prefixes are the same, apart from parts of wrappers at the end of one of them."""
    short, long = sorted((prefix, other), key=len)
    return long.startswith(short) and not canonical(long[len(short) :].rstrip("."))


@dataclass
class _Place:
    """What is under a prefix: the number of keys with a name of the network, the names, and those whose shape fits."""

    keys: int = 0
    named: set[str] = field(default_factory=set)
    matched: set[str] = field(default_factory=set)

    def add(self, name: str, fits: bool) -> None:
        """Counts a tensor with a name of the network. fits: whether it has the network's shape."""
        self.keys += 1
        self.named.add(name)
        if fits:
            self.matched.add(name)


class _Search:
    """The places of a file where tensors have the network's names."""

    def __init__(
        self, tensors: Mapping[str, Tensor], known: Mapping[str, Shape | None], key_map: KeyMap, size: int
    ) -> None:
        self.tensors, self.key_map, self.known = tensors, key_map, known
        self.size = max(size, 1)
        self.totals = Counter(name.split(".")[0] for name in self.known)
        self.tops: dict[str, set[str]] = {}
        patterns = [(rule.pattern, type(rule)) for rule in key_map.rules if isinstance(rule, Constant | Reject | Drop)]
        self.exact = dict(entry for entry in patterns if not _WILD.search(entry[0]))
        self.wild = [entry for entry in patterns if _WILD.search(entry[0])]
        self.found = self._places()

    def _places(self) -> dict[str, Candidate]:
        """Every prefix before a name of the network, those with most matches first."""
        places: dict[str, _Place] = {}
        ends = {name.rpartition(".")[2] for name in self.known}
        for key, tensor in self.tensors.items():
            if key.rpartition(".")[2] not in ends:
                continue
            for prefix, name in splits(key):
                if name in self.known:
                    shape = self.known[name]
                    places.setdefault(prefix, _Place()).add(name, shape in (None, tuple(tensor.shape)))
        for prefix in list(places):
            # `_orig_mod.` and an empty prefix are the same place if all keys have both. Then the longer one is meant.
            for shorter in _without_wrappers(prefix):
                if shorter in places and places[shorter].keys == places[prefix].keys:
                    del places[shorter]
        self.tops = {prefix: {name.split(".")[0] for name in place.named} for prefix, place in places.items()}
        return {
            prefix: Candidate(prefix, len(place.named), len(place.matched), has_averaged_part(prefix, self.tensors))
            for prefix, place in sorted(places.items(), key=lambda item: -len(item[1].matched))
        }

    def _significant(self) -> list[Candidate]:
        """The places that may be a network. A prefix that nobody knows must hold an eighth of the network's tensors."""
        return [c for c in self.found.values() if self._plain(c) or c.named * 8 >= self.size]

    def _plain(self, candidate: Candidate) -> bool:
        """Whether the prefix is one that the authors' loaders remove."""
        return _of_words(candidate.prefix, (*self.key_map.prefixes, *(f"{part}." for part in TRANSPARENT)))

    def networks(self) -> list[Candidate]:
        """The places that hold about as much of the network as the best one, and averages, which may lack buffers.

        Raises nothing.
        """
        places = self._significant()
        best = max((_weight(c) for c in places), default=(0, 0))
        return [c for c in places if c.averaged or _share(c, best) >= _RIVAL]

    def choose(self, selection: Selection, source: str, strict: bool) -> Candidate | None:
        """The network to take; None if the file holds nothing of it."""
        if selection.prefix is not None:
            asked = self._asked_for(normalised(selection.prefix), source)
            if selection.ema and not asked.averaged:
                raise self._no_average(source)
            return asked
        places = self._significant()
        if selection.ema:
            places = [c for c in places if c.averaged]
            if not places and strict:
                raise self._no_average(source)
        if not places:
            return None
        best = max(map(_weight, places))
        last = [c for c in places if not c.averaged]
        if any(_share(c, best) >= _DAMAGED for c in last):
            places, best = last, max(map(_weight, last))
        rivals = [c for c in places if _share(c, best) >= _RIVAL]
        rivals = [c for c in rivals if self._plain(c)] or rivals
        # A backbone that training code names a second time is no second network.
        tops = set().union(*(self.tops[c.prefix] for c in rivals))
        rivals = [c for c in rivals if self.tops[c.prefix] == tops] or rivals
        # Of a file of another model, only a few tensors fit by chance. That is no reason to ask.
        if len(rivals) > 1 and strict and best[0] * 2 >= self.size:
            raise _several(source, rivals)
        return max(rivals, key=_weight)

    def _asked_for(self, prefix: str, source: str) -> Candidate:
        for candidate in self.found.values():
            if candidate.prefix == prefix:
                return candidate
        for candidate in self.found.values():
            if _inside(candidate.prefix, prefix):
                return candidate
        listed = _listed(self._significant())
        where = f"it has the network's names under {listed}" if listed else "nor elsewhere"
        raise MatchRTError(
            "checkpoint-prefix",
            f"'{source}' has no tensor of the network under the prefix '{prefix}'; {where}.",
            "Give one of these with --prefix, or leave it out." if listed else "Check file and model.",
        )

    def _no_average(self, source: str) -> MatchRTError:
        named = sorted({key.split(".")[0] for key in self.tensors if has_averaged_part(key, ())})
        said = f" What it holds under {', '.join(named)} does not have the network's names." if named else ""
        return MatchRTError(
            "checkpoint-no-average",
            f"'{source}' holds no running average (EMA) of the network's weights by the network's names.{said}",
            "Leave --ema out, or name the network with --prefix.",
        )

    def divide(
        self, chosen: Candidate, others: Iterable[Candidate], asked: bool
    ) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        """Names of the network's tensors; reasons for neighbours; reasons for tensors that are errors; all by key.

        asked: whether the user named the prefix.
        """
        names: dict[str, str] = {}
        beside: dict[str, str] = {}
        stray: dict[str, str] = {}
        tops = self._tops()
        inner = {
            canonical(other.prefix[len(chosen.prefix) :]).split(".")[0]
            for other in others
            if other.prefix.startswith(chosen.prefix)
        } - tops
        for key in self.tensors:
            if key.startswith(chosen.prefix):
                name = canonical(key[len(chosen.prefix) :])
                top = name.split(".")[0]
                if top in inner:
                    beside[key] = f"of another network, in '{top}'"
                elif not chosen.prefix and top not in tops and _is_of_training(top):
                    beside[key] = "of training only"
                else:
                    names[key] = name
            elif not asked and (suspected := self._stray_name(key)) is not None:
                stray[key] = (
                    f"has the name of the network's {suspected}, outside of the prefix '{chosen.prefix}'; if it is of "
                    f"something else, --prefix {chosen.prefix.rstrip('.')} says so"
                )
            else:
                beside[key] = "beside the network"
        return names, beside, stray

    def _tops(self) -> set[str]:
        """First parts of the names that the network's tensors have in files."""
        patterns = (rule.module if isinstance(rule, Fuse) else rule.pattern for rule in self.key_map.rules)
        return {name.split(".")[0] for name in (*self.known, *patterns)}

    def _stray_name(self, key: str) -> str | None:
        """The network's name that the key ends with, if so few others stand beside it that it is no network."""
        suspected = None
        for prefix, name in splits(key):
            place = self.found.get(prefix)
            if name in self.known and place is not None and place.named * 4 >= self._touched(prefix):
                return None
            if name in self.known or self._telling(prefix, name):
                suspected = suspected or name
                if place is not None and place.named * 8 >= self.size:
                    return None
        return suspected

    def _touched(self, prefix: str) -> int:
        """The number of names in those parts of the network that the tensors under the prefix belong to."""
        return sum(self.totals[top] for top in self.tops[prefix])

    def _telling(self, prefix: str, name: str) -> bool:
        """Whether a rule expects such a tensor in the network. `Drop` rules may also name what stands beside it."""
        kinds = (self.exact.get(name), *(kind for pattern, kind in self.wild if matches(pattern, name)))
        return any(kind is not None and (prefix != "" or kind is not Drop) for kind in kinds)


def splits(key: str) -> Iterable[tuple[str, str]]:
    """Every way to divide a key at a dot: what precedes, with the dot, and the rest without the parts of wrappers.

    The shortest prefix comes first. Of very long keys, only the last parts are tried.
    """
    at = 0
    for _ in range(max(0, key.count(".") - _TAIL)):
        at = key.index(".", at) + 1
    yield key[:at], canonical(key[at:])
    while (dot := key.find(".", at)) >= 0:
        at = dot + 1
        yield key[:at], canonical(key[at:])


def _without_wrappers(prefix: str) -> Iterable[str]:
    """The prefix without the last part of a wrapper, without the last two, and so on."""
    parts = prefix.split(".")[:-1]
    while parts and parts.pop() in TRANSPARENT:
        yield "".join(f"{part}." for part in parts)


def _of_words(prefix: str, words: Iterable[str]) -> bool:
    known = set(words)
    while prefix:
        word = next((word for word in known if prefix.startswith(word)), None)
        if word is None:
            return False
        prefix = prefix[len(word) :]
    return True


def _weight(candidate: Candidate) -> tuple[int, int]:
    return candidate.matched, candidate.named


def _share(candidate: Candidate, best: tuple[int, int]) -> float:
    """How much a place holds of what the best one holds. Names count where no shapes fit."""
    mine, theirs = (candidate.matched, best[0]) if best[0] else (candidate.named, best[1])
    return mine / max(theirs, 1)


def _is_of_training(top: str) -> bool:
    """Whether the first part of a name says that only training has the module."""
    return _TRAINING.fullmatch(top) is not None or top == COUNTER or is_averaged(top)


def _listed(candidates: Iterable[Candidate]) -> str:
    return ", ".join(f"'{c.prefix}' ({c.named} tensors)" for c in candidates)


def _several(source: str, rivals: list[Candidate]) -> MatchRTError:
    first = next((c for c in rivals if c.prefix), rivals[0])
    return MatchRTError(
        "checkpoint-ambiguous",
        f"'{source}' holds several networks that fit, under the prefixes {', '.join(repr(c.prefix) for c in rivals)}.",
        f"Say which one with --prefix, such as --prefix {first.prefix.rstrip('.')}.",
    )
