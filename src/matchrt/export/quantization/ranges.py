"""The ranges of activations: measured by running the fp32 graph on calibration pairs.

`max` covers all values. `percentile` and `entropy` leave out rare large values; their histograms and thresholds are
those of `onnxruntime.quantization.calibrate`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import onnx

from matchrt.errors import InternalError, MatchRTError

Method = Literal["max", "percentile", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)
# The share of a tensor's values that the range covers, in per cent: 1 value in 100,000 is clipped.
PERCENTILE = 99.999
# One run returns at most so many bytes of activations. If there are more, the graph runs several times.
_BUDGET = 1 << 29
_BINS = 2048
# The library tries every range of whole bins in Python; with more bins that takes minutes.
_ENTROPY_BINS = 1024
_SAMPLES = 1 << 19

Inputs = Mapping[str, npt.NDArray[Any]]
Collected = dict[str, tuple[float, float]]


class Collector(Protocol):
    """Gets the values of all runs, and then gives the ranges."""

    def see(self, values: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Takes in values `[...]` of tensors, by the tensors' names."""
        ...

    def ranges(self) -> Collected:
        """The low and the high end of each tensor's range, by its name."""
        ...


def check_method(name: str) -> Method:
    """Returns the name if it is one of the three methods. Error: `calibration-method`."""
    for known in METHODS:
        if name == known:
            return known
    raise MatchRTError(
        "calibration-method", f"There is no calibration method '{name}'.", f"Known: {', '.join(METHODS)}."
    )


def measure_ranges(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    inputs: Iterable[Inputs],
    method: Method,
    advance: Callable[[], None],
) -> Collected:
    """Ranges of these tensors of a plain fp32 graph over all inputs; `advance` is called after each of them.

    Error: `calibration-values` if a tensor holds NaN or infinity.
    """
    collector: Collector = _Extremes() if method == "max" else _Histograms(method)
    run = probe_values(model, tensors)
    for arrays in inputs:
        for values in run(arrays):
            _require_finite(values)
            collector.see(values)
        advance()
    return collector.ranges()


def tensor_shapes(model: onnx.ModelProto, tensors: Sequence[str], inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """The shapes of these tensors of a plain fp32 graph, by name, with these inputs. Raises nothing."""
    given = {name: tuple(array.shape) for name, array in inputs.items() if name in tensors}
    return given | {
        name: value.shape for values in probe_values(model, tensors)(inputs) for name, value in values.items()
    }


def probe_values(
    model: onnx.ModelProto, tensors: Sequence[str]
) -> Callable[[Inputs], Iterator[dict[str, npt.NDArray[np.float32]]]]:
    """A function that runs the graph and yields the values of these tensors, some at a time, within `_BUDGET`."""
    import onnxruntime

    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    given = {value.name for value in model.graph.input} | {value.name for value in model.graph.output}
    wanted = [name for name in tensors if name not in given]
    probed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Fusions remove tensors. The graph that is measured must have the tensors that are quantised.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    portion = 8

    def run(arrays: Inputs) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        nonlocal portion
        start = 0
        while start < len(wanted):
            names = wanted[start : start + portion]
            values = dict(zip(names, session.run(names, dict(arrays)), strict=True))
            start += len(names)
            each = sum(value.nbytes for value in values.values()) / len(names)
            portion = int(np.clip(_BUDGET / max(each, 1), 1, 64))
            yield values

    return run


def _require_finite(values: Mapping[str, npt.NDArray[np.float32]]) -> None:
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise InternalError(
                "calibration-values",
                f"{name} holds NaN or infinity on a calibration pair, so it has no range.",
                "Check the checkpoint, or keep that part in floating point with --keep-fp32.",
            )


class _Extremes:
    """Ranges from the smallest to the largest value."""

    def __init__(self) -> None:
        self._found: Collected = {}

    def see(self, values: Mapping[str, npt.NDArray[np.float32]]) -> None:
        for name, value in values.items():
            low, high = self._found.get(name, (0.0, 0.0))
            self._found[name] = min(low, float(value.min())), max(high, float(value.max()))

    def ranges(self) -> Collected:
        return dict(self._found)


class _Histograms:
    """Ranges by the library's thresholds, from histograms of the values."""

    def __init__(self, method: Method) -> None:
        from onnxruntime.quantization.calibrate import HistogramCollector

        bins = _BINS if method == "percentile" else _ENTROPY_BINS
        # method, symmetric, bins, levels, percentile, scenario
        self._collector = HistogramCollector(method, False, bins, 128, PERCENTILE, "same")

    def see(self, values: Mapping[str, npt.NDArray[np.float32]]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # the library prints
            self._collector.collect({name: _sampled(value) for name, value in values.items()})

    def ranges(self) -> Collected:
        with contextlib.redirect_stdout(io.StringIO()):
            found = self._collector.compute_collection_result()
        return {name: (min(float(entry[0]), 0.0), max(float(entry[1]), 0.0)) for name, entry in found.items()}


def _sampled(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Every n-th value of a large tensor: half a million values give nearly the same histogram as ten million."""
    flat = np.asarray(value, np.float32).ravel()
    # The step is odd: an even one would take the values of the same channels again and again.
    return flat[:: len(flat) // _SAMPLES | 1]
