"""Two graphs of one network in one folder, which hold its weights once.

The second graph lacks the weights that the first one has. Its metadata says under which name the first one has each.
"""

from __future__ import annotations

import json

import onnx

_SHARED = "matchrt.shared_weights"
# Smaller ones stay: their entries would be as large.
_MIN_BYTES = 512


def leave_out_shared(model: onnx.ModelProto, other: onnx.ModelProto) -> int:
    """Takes the weights that `other` has too off `model`, and returns how many bytes they are."""
    names = {_content(weight): weight.name for weight in other.graph.initializer}
    shared = {
        weight.name: names[_content(weight)]
        for weight in model.graph.initializer
        if len(weight.raw_data) >= _MIN_BYTES and _content(weight) in names
    }
    kept = [weight for weight in model.graph.initializer if weight.name not in shared]
    saved = sum(len(weight.raw_data) for weight in model.graph.initializer if weight.name in shared)
    copies = [onnx.TensorProto.FromString(weight.SerializeToString()) for weight in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    model.metadata_props.add(key=_SHARED, value=json.dumps(shared, sort_keys=True))
    return saved


def take_shared(model: onnx.ModelProto, other: onnx.ModelProto) -> None:
    """Puts the weights that were left out back into `model`. `other` is the graph that `leave_out_shared` was given."""
    weights = {weight.name: weight for weight in other.graph.initializer}
    entries = {entry.key: entry.value for entry in model.metadata_props}
    for name, source in json.loads(entries[_SHARED]).items():
        copy = model.graph.initializer.add()
        copy.CopyFrom(weights[source])
        copy.name = name
    kept = [(key, value) for key, value in entries.items() if key != _SHARED]
    del model.metadata_props[:]
    for key, value in kept:
        model.metadata_props.add(key=key, value=value)


def _content(weight: onnx.TensorProto) -> tuple[int, tuple[int, ...], bytes]:
    return weight.data_type, tuple(weight.dims), weight.raw_data
