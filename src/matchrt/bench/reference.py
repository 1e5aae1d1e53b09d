"""Finding the engine that a variant is compared with."""

from __future__ import annotations

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.runtime.backends import DEFAULT_BACKEND
from matchrt.runtime.bundled import BUNDLED
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.store import EngineStore


def find_reference(manifest: EngineManifest, store: EngineStore, named: str = "fp32") -> EngineFile:
    """The engine that `--reference` names.

    manifest: the variant's. named: a path, a model's name, or `fp32` for the engine that the variant was made from;
    that is an fp32 ONNX engine with the same weights, input and matching.
    Errors: reference-missing, and those of `read_engine`.
    """
    if named != "fp32":
        return read_engine(named, store)
    if manifest.model in BUNDLED:
        bundled = read_engine(manifest.model, store, DEFAULT_BACKEND)
        if _same(bundled.manifest, manifest):
            return bundled
    for stored in store.engines(manifest.model):
        if _same(stored.manifest, manifest):
            return read_engine(stored.path, store)
    raise MatchRTError(
        "reference-missing",
        f"The store has no fp32 engine of {manifest.model} with the same weights, input and matching.",
        "Name the .onnx engine that this one was built from with --reference, or build that one again.",
    )


def _same(fp32: EngineManifest, variant: EngineManifest) -> bool:
    return (fp32.backend, fp32.precision) == (DEFAULT_BACKEND, "fp32") and (
        (fp32.source.tensors_sha256, fp32.input, fp32.matching)
        == (variant.source.tensors_sha256, variant.input, variant.matching)
    )
