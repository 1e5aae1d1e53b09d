"""The names of nodes and weights say where in the network they are: `loftr_coarse.layers.3/MatMul_0`."""

from __future__ import annotations

import re

OTHER = "(other)"
# Names that an exporter or a pass made without a module: `val_1301/Cast_0`, `_empty_…/Shape_0`.
_MADE = re.compile(r"_.*|[^.]*_\d+")


def part_of(name: str) -> str:
    """The first two steps of the path, such as `loftr_coarse.layers`; OTHER for names that belong to no module.

    A node's name has a slash after its module, a weight's name a dot before its last step.
    """
    path, slash, _ = name.partition("/")
    if _MADE.fullmatch(path) or not (slash or "." in path):
        return OTHER
    return ".".join(path.split(".")[:2]) or OTHER
