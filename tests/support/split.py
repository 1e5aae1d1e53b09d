"""Runs an engine's graph as a whole and in its two parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from matchrt.export.unbatch import unbatch
from matchrt.runtime.split.cut import IMAGE_INPUTS, cut_graph, feature_input

Arrays = dict[str, npt.NDArray[Any]]


def _session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    wanted = {value.name: inputs[value.name] for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, wanted), strict=True))


def whole_and_parts(model: onnx.ModelProto, inputs: Arrays) -> tuple[Arrays, Arrays, onnx.ModelProto]:
    """The outputs of a graph and of its parts, and the graph of the first part. A static graph is taken apart first."""
    whole = model.SerializeToString()
    apart = onnx.load_model_from_string(whole)
    unbatch(apart)
    cut = cut_graph(apart.SerializeToString())
    features, match = _session(cut.features), _session(cut.match)
    given = dict(inputs)
    for side, own in enumerate(IMAGE_INPUTS):
        of_one = {first: inputs[name] for first, name in zip(IMAGE_INPUTS[0], own, strict=True) if name in inputs}
        given |= {feature_input(side, name): array for name, array in _run(features, of_one).items()}
    return _run(_session(whole), inputs), _run(match, given), onnx.load_model_from_string(cut.features)


def require_same_bits(model: onnx.ModelProto, inputs: Arrays) -> onnx.ModelProto:
    """Asserts that the parts give the whole graph's bits, with matches among them. Returns the first part's graph."""
    whole, parts, features = whole_and_parts(model, inputs)
    assert whole["num_matches"].min() > 0
    for name, array in whole.items():
        assert np.array_equal(array, parts[name]), name
    return features
