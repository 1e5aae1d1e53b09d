"""Names of nodes and weights say where in the network they are: `loftr_coarse.layers.3/MatMul_0`."""

from __future__ import annotations

import re

OTHER = "(other)"
# What an exporter or a pass made without a module: `val_1301/Cast_0`, `_empty_…/Shape_0`.
_MADE = re.compile(r"_.*|[^.]*_\d+")


def part_of(name: str) -> str:
    """The first two steps of the path: `loftr_coarse.layers`; OTHER for what belongs to no module.

    Nodes have a slash after their module, weights a dot before their last step.
    """
    path, slash, _ = name.partition("/")
    if _MADE.fullmatch(path) or not (slash or "." in path):
        return OTHER
    return ".".join(path.split(".")[:2]) or OTHER
