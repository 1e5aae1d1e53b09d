"""Exports a checkpoint to a proven fp32 ONNX engine in the store. All other engines of the model are made from it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from matchrt._util.digest import sha256_json
from matchrt._util.memory import require_memory
from matchrt._util.packages import packages_for
from matchrt._version import __version__
from matchrt.building.bundled import needs_export
from matchrt.building.request import BuildRequest, Progress, file_name
from matchrt.building.self_test import make_self_test
from matchrt.downloads.find import checkpoint_of, second_downloaded
from matchrt.downloads.folder import WeightsFolder
from matchrt.engines.build import GraphFacts, build_engine
from matchrt.engines.onnxruntime import OnnxRuntimeBuilder
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.export.weights.files.inert import tell_aside
from matchrt.export.weights.files.opening import require_regular
from matchrt.families.presets import configure
from matchrt.families.registry import get_spec
from matchrt.manifest import InputContract, MatchContract, Source
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.opening import open_session
from matchrt.store import EngineStore, StoredEngine

if TYPE_CHECKING:
    import onnx

    from matchrt.export.passes.base import ParityCheck
    from matchrt.export.weights.network import LoadedNetwork


@dataclass(frozen=True)
class ExportedEngine:
    """An fp32 ONNX engine in the store.

    stored: the engine's file and manifest.
    weights: the account of the weights, and what was put aside, in one line; None for an engine that the user gave.
    cached: whether the store had the engine already.
    notes: sentences about what else the checkpoint holds than the network.
    downloaded: the files of weights that nobody named, and that were found among the store's downloaded ones.
    """

    stored: StoredEngine
    weights: str | None
    cached: bool
    notes: tuple[str, ...] = ()
    downloaded: tuple[Path, ...] = ()


def export_engine(
    request: BuildRequest, store: EngineStore, tell: Progress, first: Callable[[], None] = lambda: None
) -> ExportedEngine:
    """Loads every tensor, exports, and proves the export against torch; or finds the same engine in the store.

    first: called before the export if the store lacks the engine; what it raises ends the build.
    tell: called with the step that begins and the share (0..1) of the work done.
    Errors: those of `load_network`, size-*, parity, engine-rejected, store-unwritable,
    package-missing, option-model, preset-unknown.
    """
    for file in (request.checkpoint, request.second_file):
        if file is not None and file.exists():  # the second one is read after a network of a gigabyte was made
            require_regular(file)
    configured = configure(get_spec(request.model), request)
    spec, size = configured.spec, (configured.height, configured.width)
    options = ExportOptions(
        *size, request.max_matches, request.profile, request.batch, spec.family.coarse, request.dense, request.any_batch
    )
    contract = input_contract(spec.preprocess, options)
    size = request.profile.optimum if request.profile is not None else size
    require_memory(size, size, spec.family.at(*size).coarse_stride)
    # Last, so that nobody installs a gigabyte to be told of a wrong option.
    asked = needs_export(request)
    what = (
        f"Building {request.model} with another {' and '.join(asked)}" if asked else "Building engines from checkpoints"
    )
    with packages_for(what):
        from matchrt.export.weights.locate import Selection
        from matchrt.export.weights.network import load_network
    tell("reading the checkpoint", 0.0)
    folder = WeightsFolder(store.weights)
    checkpoint = request.checkpoint or checkpoint_of(spec, folder)
    second_file = request.second_file or second_downloaded(spec, folder)
    loaded = load_network(
        spec,
        checkpoint,
        second_file=second_file,
        sha256=request.sha256,
        selection=Selection(request.prefix, request.ema),
        allow_missing=request.allow_missing,
        threshold=request.threshold,
        mutual=configured.mutual,
        size=size,
    )
    found = tuple(path for path in (checkpoint, second_file) if path is not None and path.parent == store.weights)
    matching = _match_contract(request, loaded)
    key = _export_key(request, loaded, contract, matching)
    cached = None if request.rebuild else store.find(spec.name, key)
    if cached is not None:
        return ExportedEngine(cached, _account(loaded), True, loaded.notes, found)
    first()
    model, facts = _export(request, loaded, options, contract, matching, key, tell)
    engine = build_engine(model, facts, OnnxRuntimeBuilder())
    tell("answering the self-test", 0.95)
    with closing(open_session(EngineFile(store.root, engine.data, engine.manifest))) as session:
        manifest = replace(engine.manifest, self_test=make_self_test(session))
    stored = store.put(engine.data, manifest, file_name(manifest, OnnxRuntimeBuilder.suffix))
    return ExportedEngine(stored, _account(loaded), False, loaded.notes, found)


def _account(loaded: LoadedNetwork) -> str:
    """What became of the tensors, and what was put aside, in one line."""
    files = [loaded.checkpoint] if loaded.supplement is None else [loaded.checkpoint, loaded.supplement]
    aside = tell_aside([entry for file in files for entry in file.put_aside])
    return loaded.report.summary() + (f"; put aside: {aside}" if aside else "")


def _match_contract(request: BuildRequest, loaded: LoadedNetwork) -> MatchContract:
    default_score = loaded.spec.default_score if request.threshold is None else request.threshold
    return loaded.spec.family.match_contract(request.max_matches, default_score)


def _export(
    request: BuildRequest,
    loaded: LoadedNetwork,
    options: ExportOptions,
    contract: InputContract,
    matching: MatchContract,
    key: str,
    tell: Progress,
) -> tuple[bytes, GraphFacts]:
    """The proven ONNX graph as bytes, and the facts about it for the manifest. Errors: parity, parity-empty."""
    from matchrt.building.parity import prove_parity
    from matchrt.export.passes.standard import run_standard
    from matchrt.export.to_onnx import drop_dense, export_onnx

    tell("exporting to ONNX", 0.1)
    exported = export_onnx(loaded, options)
    tell("running graph passes", 0.7)
    check = _same_matches(contract, matching) if request.check_passes else None
    model, passes = run_standard(exported, check)
    tell("comparing ONNX with torch", 0.75)
    difference = prove_parity(loaded, options, contract, model)
    if not options.dense:
        drop_dense(model)
    missing = tuple(entry.key for entry in loaded.report.network if entry.fate == "allowed-missing")
    checkpoint = loaded.checkpoint
    name = checkpoint.path.name
    if loaded.supplement is not None:
        name = f"{name} and {loaded.supplement.path.name}"
    source = Source(name, loaded.weights_sha256, loaded.spec.licence, loaded.spec.origin, missing)
    facts = GraphFacts(
        model=loaded.spec.name,
        family=loaded.spec.family.name,
        precision="fp32",
        source=source,
        input=contract,
        matching=matching,
        passes=passes,
        build_key=key,
        checks={
            "parity_matches": float(difference.matches),
            "parity_max_pixels": difference.pixels,
            "parity_max_score": difference.score,
            "parity_ties": float(difference.ties),
        },
    )
    return model.SerializeToString(deterministic=True), facts


def _same_matches(contract: InputContract, matching: MatchContract) -> ParityCheck:
    """A check that two graphs give the same matches on a sample pair."""
    from matchrt.building.parity import require_parity, run_onnx, sample_inputs

    inputs = sample_inputs(contract, matching.coarse_stride)[0]

    def check(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        require_parity(run_onnx(before, inputs), run_onnx(after, inputs), matching.threshold, "A graph pass")

    return check


def _export_key(request: BuildRequest, loaded: LoadedNetwork, contract: InputContract, matching: MatchContract) -> str:
    """Digest of everything that decides the graph. Names and folders of files do not."""
    return sha256_json(
        {
            "matchrt": __version__,
            "model": loaded.spec.name,
            "weights": loaded.weights_sha256,
            "allow_missing": sorted(request.allow_missing),
            "network": asdict(loaded.spec.family.config),
            "input": asdict(contract),
            "dense": request.dense,
            "max_matches": matching.max_matches,
            "default_score": matching.default_score,
        }
    )
