"""An fp32 ONNX engine to one of another precision or flavour. Needs no torch: this part runs on the robot too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from matchrt._version import __version__
from matchrt.digest import sha256_json
from matchrt.engines.build import GraphFacts, build_engine
from matchrt.engines.flavor import Flavor
from matchrt.errors import MatchRTError, missing_package
from matchrt.manifest import EngineManifest
from matchrt.request import Progress, file_name
from matchrt.runtime.engine_file import EngineFile
from matchrt.store import EngineStore, StoredEngine

if TYPE_CHECKING:
    import onnx


def require_source(file: EngineFile) -> None:
    """Raises `build-source` where other engines cannot be made from this one."""
    manifest = file.manifest
    if manifest.flavor != "onnxruntime" or manifest.precision != "fp32":
        raise MatchRTError(
            "build-source",
            f"'{file.path}' is a {manifest.precision} engine of flavour {manifest.flavor}; engines are made from fp32 "
            "ones of flavour onnxruntime.",
            f"Build that first: matchrt build {manifest.model}.",
        )


def convert_engine(
    file: EngineFile,
    precision: str,
    flavor: Flavor,
    store: EngineStore,
    tell: Progress,
    *,
    rebuild: bool = False,
    accept_loss: bool = False,
) -> tuple[StoredEngine, bool]:
    """The engine in that precision for that flavour, and whether the store had it already.

    accept_loss: build even where the precision loses too many matches. Errors: precision-*, onnx-rejected,
    engine-rejected, device-missing, store-unwritable.
    """
    _refuse_tf32(file.manifest, flavor)
    key = _convert_key(file.manifest, precision, flavor, accept_loss)
    cached = None if rebuild else store.find(file.manifest.model, key)
    if cached is not None:
        return cached, True
    model, facts = _written(file, precision, key, tell, accept_loss)
    building = f"building for {flavor.name}"
    tell(building, 0.2)
    engine = build_engine(model, facts, flavor, lambda what, done: tell(f"{building}: {what}", 0.2 + 0.75 * done))
    tell("writing", 0.95)
    return store.put(engine.data, engine.manifest, file_name(engine.manifest, flavor.suffix)), False


def _refuse_tf32(manifest: EngineManifest, flavor: Flavor) -> None:
    """RoMa solves a system of condition 1e4: with TF32's 11 bits nothing of the solution is left."""
    options = getattr(flavor, "options", None)
    if manifest.family == "roma" and options is not None and options.tf32:
        raise MatchRTError(
            "build-option",
            f"{manifest.model} solves a linear system that needs float32 products; TF32 leaves no digit of it.",
            "Leave --tf32 out.",
        )


def _written(file: EngineFile, precision: str, key: str, tell: Progress, accept_loss: bool) -> tuple[bytes, GraphFacts]:
    """The graph in that precision, gated on matches where it is not fp32, and what the manifest says of it."""
    manifest = file.manifest
    facts = GraphFacts(
        model=manifest.model,
        family=manifest.family,
        precision=precision,
        source=manifest.source,
        input=manifest.input,
        matching=manifest.matching,
        passes=manifest.passes,
        build_key=key,
        checks=manifest.checks,
    )
    if precision == "fp32":
        return file.data, facts
    tell(f"writing {precision} into the graph", 0.0)
    try:
        import onnx

        from matchrt.export.precision import apply

        reference = onnx.load_model_from_string(file.data)
        model, records = apply(reference, precision, manifest.family)
        tell(f"comparing the matches of {precision} with those of fp32", 0.05)
        checks = {**manifest.checks, **_gated(reference, model, facts, accept_loss)}
    except ModuleNotFoundError as error:
        raise missing_package(str(error.name), "export", f"Building {precision} engines") from error
    facts = replace(facts, checks=checks, passes=(*manifest.passes, *records))
    return model.SerializeToString(deterministic=True), facts


def _gated(
    reference: onnx.ModelProto, lowered: onnx.ModelProto, facts: GraphFacts, accept_loss: bool
) -> dict[str, float]:
    """The figures of the gate. Errors, unless the loss is accepted: precision-gate, precision-gate-empty."""
    from matchrt.export.precision.gate import gate, sample_pairs

    matching = facts.matching
    scores = (matching.threshold, matching.default_score)
    result = gate(reference, lowered, sample_pairs(facts.input, matching.coarse_stride), scores, facts.precision)
    return (result if accept_loss else result.require()).checks()


def _convert_key(manifest: EngineManifest, precision: str, flavor: Flavor, accept_loss: bool) -> str:
    return sha256_json(
        {
            "matchrt": __version__,
            "onnx": manifest.onnx_sha256,
            "manifest": manifest.build_key,
            "precision": precision,
            # An engine whose loss somebody accepted is not what others get who have not.
            "accepted_loss": accept_loss,
            "flavor": flavor.name,
            "runtime": flavor.identity(),
        }
    )
