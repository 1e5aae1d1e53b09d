"""The list of passes that every exported graph goes through."""

from __future__ import annotations

import onnx

from matchrt.export.passes.aside import put_back, set_aside
from matchrt.export.passes.base import ParityCheck, Pass, run_passes
from matchrt.export.passes.fold import FoldConstants, RemoveDeadNodes, RemoveIdentities
from matchrt.export.passes.half_storage import HalfStorage
from matchrt.export.passes.stable_names import ROOT, StableNames
from matchrt.export.passes.supported import RequireSupported
from matchrt.manifest import PassRecord


def run_standard(
    model: onnx.ModelProto, parity: ParityCheck | None = None
) -> tuple[onnx.ModelProto, tuple[PassRecord, ...]]:
    """The graph after all of them. Large weights are out of their way, unless the graph has to run between passes."""
    weights = set_aside(model) if parity is None else {}
    model, records = run_passes(model, standard_passes(), parity)
    put_back(model, weights, ROOT)
    return model, records


def standard_passes() -> tuple[Pass, ...]:
    """In order: names first, while the exporter's metadata is there; storage last, so that folding sees floats."""
    return (StableNames(), FoldConstants(), RemoveIdentities(), RemoveDeadNodes(), RequireSupported(), HalfStorage())
