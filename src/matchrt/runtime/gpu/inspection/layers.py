"""Turns what TensorRT's EngineInspector says into layers: a pure function of its JSON.

The JSON has no published schema and differs between versions, so this accepts several forms: `{"Layers": [...]}` or the
list alone; layers as objects (verbosity DETAILED) or as bare names (LAYER_NAMES_ONLY); types under `Format/Datatype`
(`Row major linear FP16 format`, `Half`) or under `DataType`. TensorRT 11 has `I/O Tensors` where 10 has `Bindings`;
neither is needed, because the manifest lists the engine's tensors.

Error: `inspector-format`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matchrt._util.module_path import part_of
from matchrt.errors import InternalError

UNKNOWN = "unknown"
_FLOATS = ("fp32", "tf32", "fp16", "bf16", "fp8", "fp4")
_TYPES = {
    "fp32": "fp32", "float": "fp32", "float32": "fp32", "fp16": "fp16", "half": "fp16", "float16": "fp16",
    "bf16": "bf16", "bfloat16": "bf16", "fp8": "fp8", "fp4": "fp4", "int64": "int64", "int32": "int32",
    "int8": "int8", "uint8": "uint8", "int4": "int4", "bool": "bool",
}  # fmt: skip
_TYPE_KEYS = ("Format/Datatype", "DataType", "Datatype", "Type", "Format")
_SEPARATORS = re.compile(r"[\x1e\x1f]")
_OUR_NODE = re.compile(r"[A-Za-z_][\w.]*/[A-Za-z]+_\d+")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class LayerTensor:
    """An input or output of a layer.

    name: TensorRT's name of it.
    dtype: fp32, fp16, int8 ..., or `unknown`.
    shape: in elements; None if TensorRT does not give it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Layer:
    """One layer of an engine: one kernel, or a few that TensorRT fused.

    name: TensorRT's name of it.
    kind: TensorRT's type of layer, or `unknown`.
    inputs: tensors that it reads.
    outputs: tensors that it writes.
    nodes: the graph's nodes that went into it; empty for what TensorRT added, such as copies.
    tactic: the kernel that TensorRT chose; None if it does not say so.
    """

    name: str
    kind: str
    inputs: tuple[LayerTensor, ...] = ()
    outputs: tuple[LayerTensor, ...] = ()
    nodes: tuple[str, ...] = ()
    tactic: str | None = None

    @property
    def precision(self) -> str:
        """The floating-point types that it reads and writes, as `fp16` or `fp16+fp32`; without any, its integer types.

        This is not the type that it computes in: a product of fp16 values may be summed in fp32. Raises nothing.
        """
        types = {tensor.dtype for tensor in (*self.inputs, *self.outputs)}
        floats = sorted(types & set(_FLOATS))
        others = sorted(types - set(_FLOATS) - {UNKNOWN, "bool"})
        quantised = [name for name in others if name in ("int8", "int4")] if floats else others
        return "+".join(floats + quantised) or UNKNOWN

    @property
    def parts(self) -> tuple[str, ...]:
        """The modules of the network that it computes, two levels deep: `loftr_coarse.layers`. Raises nothing."""
        return tuple(dict.fromkeys(part_of(node) for node in self.nodes))


def parse_layers(text: str) -> tuple[Layer, ...]:
    """The layers in the inspector's JSON, in the order of execution. Error: inspector-format."""
    try:
        # Names may hold the control characters that separate metadata.
        raw = json.loads(text, strict=False)
    except ValueError as error:
        raise _unreadable(f"it is no JSON: {error}") from error
    found = raw.get("Layers", raw.get("layers")) if isinstance(raw, dict) else raw
    if not isinstance(found, list):
        raise _unreadable("it has no list of layers")
    return tuple(_layer(entry) for entry in found)


def parse_type(text: str) -> str:
    """The short name of a type in TensorRT's words: `Row major linear FP16 format` -> `fp16`; otherwise `unknown`.

    Raises nothing.
    """
    words = re.findall(r"[a-z]+[0-9]*", text.lower())
    return next((_TYPES[word] for word in words if word in _TYPES), UNKNOWN)


def _layer(entry: Any) -> Layer:
    if isinstance(entry, str):
        return Layer(entry, UNKNOWN, nodes=_nodes_of_name(entry))
    if not isinstance(entry, dict):
        raise _unreadable(f"a layer is {type(entry).__name__}")
    name = str(entry.get("Name", "unnamed"))
    tactic = entry.get("TacticName") or entry.get("TacticValue")
    return Layer(
        name=name,
        kind=str(entry.get("LayerType") or entry.get("ParameterType") or UNKNOWN),
        inputs=_tensors(entry.get("Inputs")),
        outputs=_tensors(entry.get("Outputs")),
        nodes=_nodes(entry.get("Metadata")) or _nodes_of_name(name),
        tactic=None if tactic is None else str(tactic),
    )


def _tensors(found: Any) -> tuple[LayerTensor, ...]:
    return tuple(_tensor(entry) for entry in found) if isinstance(found, list) else ()


def _tensor(entry: Any) -> LayerTensor:
    if not isinstance(entry, dict):
        return LayerTensor(str(entry), UNKNOWN, None)
    shape = entry.get("Dimensions")
    sides = tuple(int(side) for side in shape) if isinstance(shape, list) else None
    return LayerTensor(str(entry.get("Name", "")), _type(entry), sides)


def _type(entry: Mapping[str, Any]) -> str:
    types = (parse_type(str(entry[key])) for key in _TYPE_KEYS if key in entry)
    return next((found for found in types if found != UNKNOWN), UNKNOWN)


def _nodes(metadata: Any) -> tuple[str, ...]:
    """`[ONNX Layer: a]` entries, in brackets of their own or between separators; each node once."""
    pieces = _SEPARATORS.split(str(metadata or ""))
    return tuple(dict.fromkeys(node for piece in pieces for node in _ONNX_LAYER.findall(piece)))


def _nodes_of_name(name: str) -> tuple[str, ...]:
    """The graph's nodes in a layer's name, however joined: `a/Conv_0 + a/Relu_0`, `{ForeignNode[a/Add_0...b/Mul_1]}`.

    A range gives the nodes at its ends. A copy names the node that it serves, but computes none.
    """
    return () if "Reformat" in name else tuple(dict.fromkeys(_OUR_NODE.findall(name)))


def _unreadable(why: str) -> InternalError:
    return InternalError(
        "inspector-format",
        f"What TensorRT's EngineInspector says of the engine cannot be read: {why}.",
        "Report it with the TensorRT version; `matchrt inspect` without --layers works.",
    )
