"""Prints, as JSON, the names and argument names of the classes of a TensorRT module that matchrt uses.

    python tools/tensorrt_api/describe.py tensorrt_rtx > tests/data/tensorrt_api/tensorrt_rtx-1.7.1.116.json

Names only: they are what the stub of the tests and matchrt's own calls are checked against.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from typing import Any

CLASSES = (
    "Builder", "BuilderFlag", "ComputeCapability", "CudaGraphStrategy", "DataType",
    "DynamicShapesKernelSpecializationStrategy", "EngineInspector", "EngineInvalidityDiagnostics", "EngineValidity",
    "ExecutionContextAllocationStrategy", "HardwareCompatibilityLevel", "IBuilderConfig", "ICudaEngine",
    "IExecutionContext", "IHostMemory", "ILogger", "INetworkDefinition", "IOptimizationProfile", "IProgressMonitor",
    "IRuntimeCache", "IRuntimeConfig", "ITensor", "ITimingCache", "LayerInformationFormat", "MemoryPoolType",
    "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError", "ProfilingVerbosity", "Runtime", "TensorIOMode",
)  # fmt: skip
# Layers are made by the ONNX parser: these many functions nobody calls.
_SKIPPED = re.compile(r"_|add_(?!optimization_profile)")

Signatures = list[list[str]]
Members = dict[str, "Signatures | str | dict[str, Any]"]


def describe(module: Any) -> dict[str, Any]:
    """`{"module", "version", "classes": {class: {member: what it is}}}`; see `member`."""
    found = {name: getattr(module, name) for name in CLASSES if hasattr(module, name)}
    classes = {name: members(value) for name, value in found.items()}
    return {"module": module.__name__.split("_bindings")[0], "version": module.__version__, "classes": classes}


def members(kind: type) -> Members:
    """The public members of a class and its constructor."""
    names = [name for name in dir(kind) if not _SKIPPED.match(name)]
    if not hasattr(kind, "__members__"):
        names.append("__init__")
    return {name: member(inspect.getattr_static(kind, name), name, kind) for name in sorted(names)}


def member(value: Any, name: str, owner: type) -> Signatures | str | dict[str, Any]:
    """A list of signatures (lists of argument names, `=` after those that may be left out), `property`, `settable`,
    `value` for an enumeration's member, or the members of a class inside the class."""
    if isinstance(value, property):
        return "property" if value.fset is None else "settable"
    if isinstance(value, type):
        return members(value)
    if name in getattr(owner, "__members__", {}):
        return "value"
    return signatures(name, getattr(value, "__doc__", None) or getattr(getattr(owner, name), "__doc__", None) or "")


def signatures(name: str, doc: str) -> Signatures:
    """Reads what pybind11 writes at the head of a docstring: one signature, or a numbered list of them."""
    numbered = re.findall(rf"^\d+\. {re.escape(name)}\((.*)\) -> ", doc, re.M)
    plain = re.match(rf"{re.escape(name)}\((.*)\) -> ", doc)
    return [arguments(text) for text in (numbered or ([plain[1]] if plain else []))]


def arguments(text: str) -> list[str]:
    """`self: A, x: dict[int, str], y: int = 3` -> `["x", "y="]`."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "([{<") - (character in ")]}>" and text[index - 1] != "-")
        if character == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    given = [part.strip() for part in parts if part.strip()]
    named = [re.split(r"[:=]", part)[0].strip() + ("=" if re.search(r"[^=]=[^=]", part) else "") for part in given]
    return [name for name in named if name not in ("self", "*", "/")]


def main() -> None:
    """One JSON document, one class a line, so that differences between versions read well."""
    found = describe(importlib.import_module(sys.argv[1]))
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found["classes"].items()]
    head = f'"module": {json.dumps(found["module"])}, "version": {json.dumps(found["version"])}'
    print(f'{{{head}, "classes": {{\n' + ",\n".join(lines) + "\n}}")


if __name__ == "__main__":
    main()
