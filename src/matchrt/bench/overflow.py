"""Finds where a graph that computes in fp16 leaves the range of fp16."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from matchrt.bench.gate import EMULATION, Verdict
from matchrt.bench.judging import stacked
from matchrt.bench.pairs import JudgedPair
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.options import MatcherOptions

if TYPE_CHECKING:
    import onnx


def with_reason(verdict: Verdict, file: EngineFile, model: onnx.ModelProto, pair: JudgedPair) -> Verdict:
    """The verdict of an emulated graph with the reason of its failure, if `first_overflow` finds one."""
    if not verdict.failures or verdict.where != EMULATION:
        return verdict
    return replace(verdict, reason=first_overflow(file, model, pair))


def first_overflow(file: EngineFile, model: onnx.ModelProto, pair: JudgedPair) -> str | None:
    """Names the first node whose result is infinite or NaN in fp16 on a pair, in a sentence; None if there is none.

    file: the engine whose manifest says how images become inputs. model: the graph in fp16, which is emulated.
    Errors: image-*.
    """
    from matchrt.export.precision.emulation import emulate
    from matchrt.export.quantization.ranges import probe_values

    emulated = emulate(model)
    one = PairAdapter(file.manifest, MatcherOptions(apply_exif=False, fit_frames=True)).inputs(pair.image0, pair.image1)
    inputs = stacked([one], file.manifest.input.batch)
    for values in probe_values(emulated, _results(emulated))(inputs):
        for name, value in values.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                return f"The first result beyond the range of fp16 is that of {name.removesuffix('/exact')}."
    return None


def _results(model: onnx.ModelProto) -> list[str]:
    """The tensors that emulation rounds to fp16, in order of computation."""
    return [node.output[0] for node in model.graph.node if node.name.endswith("/widen")]
