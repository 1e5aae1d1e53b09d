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
    """Runs the standard passes.

    Large weights are set aside meanwhile, unless `parity` has to run the graph. Errors: those of `run_passes`.
    """
    weights = set_aside(model) if parity is None else {}
    model, records = run_passes(model, standard_passes(), parity)
    put_back(model, weights, ROOT)
    return model, records


def standard_passes() -> tuple[Pass, ...]:
    """The passes in the order in which they run.

    `stable-names` is the first, because it needs the exporter's metadata. `half-storage` is the last, so that constant
    folding works on float32 weights.
    """
    return (
        StableNames(),
        FoldConstants(),
        RemoveIdentities(),
        RemoveDeadNodes(),
        RequireSupported(),
        HalfStorage(),
    )
