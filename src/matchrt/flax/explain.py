"""Explains why weights do not fit, in messages that save the user a search."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from matchrt.errors import MatchRTError

TRANSFORMER = re.compile(r"^(?P<prefix>.*?)loftr_coarse\.layers\.(?P<layer>\d+)\.(?P<rest>.+)$")
LAYER_NAMES = "{q_proj,k_proj,v_proj,merge,mlp.0,mlp.2}.weight and {norm1,norm2}.{weight,bias}"
# Names that other converters expect -> LoFTR's names of the same modules.
_OTHER_NAMES = {
    "linear_q": "q_proj", "linear_k": "k_proj", "linear_v": "v_proj", "linear_out": "merge", "out_proj": "merge",
    "ffn.0": "mlp.0", "ffn.2": "mlp.2", "query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "merge",
    "Dense_0": "mlp.0", "Dense_1": "mlp.2",
}  # fmt: skip

Shapes = Mapping[str, tuple[int, ...]]


def prefixes(names: Iterable[str]) -> dict[str, int]:
    """What precedes `loftr_coarse.layers.N.`, with the number of tensors, the most frequent first."""
    found = Counter(match["prefix"] for match in map(TRANSFORMER.match, names) if match)
    return dict(found.most_common())


def no_transformer(source: str, names: Iterable[str], prefix: str | None = None) -> MatchRTError:
    """The error `flax-no-transformer` for names without LoFTR's transformer, or without it under `prefix`.

    source: the file's name, for the message.
    """
    every = list(names)
    known = prefixes(every)
    below = "" if prefix is None else f" under the prefix '{prefix}'"
    listed = ", ".join(f"'{name}' ({count} tensors)" for name, count in known.items())
    have = f"It has LoFTR's transformer under {listed}." if known else f"Its keys begin with {_beginnings(every)}."
    remedy = f"LoFTR's keys are [PREFIX]loftr_coarse.layers.N.{LAYER_NAMES}."
    if known:
        remedy = f"Leave --prefix out, or give one of these. {remedy}"
    return MatchRTError(
        "flax-no-transformer", f"'{source}' has no transformer keys{below}. {have}{_hints(every)}", remedy
    )


def _beginnings(names: list[str]) -> str:
    found = Counter(".".join(name.split(".")[:2]) for name in names).most_common(8)
    return ", ".join(f"'{name}.' ({count})" for name, count in found) or "nothing"


def _hints(names: list[str]) -> str:
    """A sentence about names of other converters among these keys; empty if there are none."""
    seen = [other for other in _OTHER_NAMES if any(f".{other}." in f".{name}." for name in names)]
    return "" if not seen else f" LoFTR names it otherwise: {', '.join(f'{o} is {_OTHER_NAMES[o]}' for o in seen)}."


def wrong_names(source: str, unexpected: Iterable[str]) -> MatchRTError | None:
    """The error `flax-names`, if some of the unexpected keys are names of other converters; else None."""
    every = list(unexpected)
    hints = _hints(every)
    if not hints:
        return None
    return MatchRTError(
        "flax-names",
        f"'{source}' has {len(every)} keys that LoFTR does not have, such as '{every[0]}'.{hints}",
        f"Use the authors' checkpoint as it is: its keys are [PREFIX]loftr_coarse.layers.N.{LAYER_NAMES}.",
    )


def explain_shapes(have: Shapes, want: Shapes) -> str | None:
    """Says which of width, heads, attention type or depth makes the difference between two transformers.

    have, want: shapes in torch's layout, by names such as `layers.0.q_proj.weight`. The result is None if they agree.
    """
    if dict(have) == dict(want):
        return None
    for explain in (_width, _heads, _attention, _depth):
        sentence = explain(have, want)
        if sentence is not None:
            return sentence
    odd = next(name for name in want if have.get(name) != want[name])
    return f"'{odd}' is {_shape(have.get(odd))}, not {_shape(want[odd])}"


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))


def _query(shapes: Shapes) -> tuple[int, ...]:
    return next((shape for name, shape in shapes.items() if name.endswith("q_proj.weight")), ())


def _width(have: Shapes, want: Shapes) -> str | None:
    ours, theirs = _query(want), _query(have)
    if len(theirs) != 2 or theirs[1] == ours[1]:
        return None
    return f"width: the file's transformer is {theirs[1]} channels wide (hidden_dim), this one {ours[1]}"


def _heads(have: Shapes, want: Shapes) -> str | None:
    for name in ("q_proj.weight", "k_proj.weight", "v_proj.weight"):
        found = next((shape for key, shape in have.items() if key.endswith(name)), None)
        wanted = next(shape for key, shape in want.items() if key.endswith(name))
        if found is not None and found != wanted:
            return (
                f"heads: the file's {name} is {list(found)}, not {list(wanted)}: its heads together are not as wide as "
                "the features, or queries and keys have different numbers of heads, which LoFTR's never do"
            )
    return None


def _attention(have: Shapes, want: Shapes) -> str | None:
    known = {name.split(".", 2)[2] for name in want}
    other = sorted({name.split(".", 2)[2] for name in have if name.count(".") >= 2} - known)
    if not other:
        return None
    return (
        f"attention type: the file's layers hold {', '.join(other[:4])}, which neither linear nor full attention of "
        "LoFTR has (no biases in its projections, no aggregation)"
    )


def _depth(have: Shapes, want: Shapes) -> str | None:
    ours, theirs = ({name.split(".")[1] for name in shapes} for shapes in (want, have))
    if ours == theirs:
        return None
    return f"depth: the file's transformer has {len(theirs)} layers, this one {len(ours)}"
