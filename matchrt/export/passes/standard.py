"""The list of passes that every exported graph goes through."""

from __future__ import annotations

from matchrt.export.passes.base import Pass
from matchrt.export.passes.fold import FoldConstants, RemoveDeadNodes, RemoveIdentities
from matchrt.export.passes.half_storage import HalfStorage
from matchrt.export.passes.stable_names import StableNames
from matchrt.export.passes.supported import RequireSupported


def standard_passes() -> tuple[Pass, ...]:
    """In order: names first, while the exporter's metadata is there; storage last, so that folding sees floats."""
    return (StableNames(), FoldConstants(), RemoveIdentities(), RemoveDeadNodes(), RequireSupported(), HalfStorage())
