"""`matchrt inspect` of an ONNX graph."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.table import Table

from matchrt._util.onnx_wire import MOST_SHOWN
from matchrt.cli.output import facts, megabytes, stdout

_SHOWN_FILES = 5


def print_onnx(found: dict[str, Any], operators: bool) -> None:
    """Prints what `export.weights.inspect.inspect_onnx` found. operators: print every operator by element type too."""
    values = {
        key: ", ".join(f"{v['name']} {v['dtype']} {v['shape']}" for v in found[key]) for key in ("inputs", "outputs")
    }
    most = ", ".join(f"{name} {count}" for name, count in list(found["operators"].items())[:12])
    facts(
        [
            ("ONNX", found["path"]),
            ("opset", found["opset"]),
            ("inputs", values["inputs"]),
            ("outputs", values["outputs"]),
            ("nodes", f"{found['nodes']}: {most}"),
            ("weights", found["weights"]),
            *_outside(found["external"]),
            ("size", f"{found['bytes'] / 1e6:.2f} MB"),
            ("sha256", found["sha256"]),
        ]
    )
    print_graph(found, operators)


def _outside(tensors: list[dict[str, str]]) -> list[tuple[str, str]]:
    """A row about tensors in other files; none if there are none."""
    if not tensors:
        return []
    files = ", ".join(sorted({tensor["location"] for tensor in tensors})[:_SHOWN_FILES]) or "files without a name"
    more = " or more" if len(tensors) >= MOST_SHOWN else ""
    return [("EXTERNAL", f"{len(tensors)}{more} tensors are in other files, which the sha256 does not cover: {files}")]


def print_graph(found: dict[str, Any], operators: bool) -> None:
    """Prints nodes and weights by part and element type. operators: print every operator by element type too."""
    table = Table("part", "nodes", "weights")
    for name, part in found["parts"].items():
        weights = ", ".join(f"{kind} {megabytes(size)}" for kind, size in part["weight_bytes"].items())
        table.add_row(name, counts(part["nodes"]), weights)
    total: Counter[str] = Counter()
    for part in found["parts"].values():
        total.update(part["nodes"])
    table.add_row("all", counts(total), "", style="bold")
    stdout().print(table)
    if not operators:
        return
    table = Table("operator", "nodes by element type")
    for name in found["operators"]:
        table.add_row(name, counts(found["operator_types"][name]))
    stdout().print(table)


def counts(found: dict[str, int]) -> str:
    """Counts as text, such as `float32 12, int64 3`, the most frequent first."""
    return ", ".join(f"{name} {count}" for name, count in Counter(found).most_common())
