"""From a model's name to an engine: the one place where exporting and building meet. Needs the extra `export`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matchrt import atomic
from matchrt._version import __version__
from matchrt.digest import sha256_json
from matchrt.engines.build import Engine, GraphFacts, build_engine
from matchrt.engines.flavor import get_flavor
from matchrt.engines.store import EngineStore, open_store
from matchrt.errors import InternalError, missing_package
from matchrt.manifest import EngineManifest, InputContract, MatchContract, Profile, Source, manifest_path

if TYPE_CHECKING:
    import onnx

    from matchrt.export.network import LoadedNetwork
    from matchrt.export.to_onnx import ExportOptions

# Called with the stage that begins and the share of all work done before it.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class BuildRequest:
    """What to build. height, width: None for the model's default; profile: build a dynamic engine instead."""

    model: str
    checkpoint: Path | None = None
    height: int | None = None
    width: int | None = None
    max_matches: int = 2048
    threshold: float | None = None
    mutual: bool | None = None
    profile: Profile | None = None
    flavor: str = "onnxruntime"
    precision: str = "fp32"
    allow_missing: tuple[str, ...] = ()
    output: Path | None = None
    rebuild: bool = False
    check_passes: bool = False


@dataclass(frozen=True)
class BuildResult:
    """The engine file, its manifest, the weights' account in one line, and whether it was in the store already."""

    path: Path
    manifest: EngineManifest
    weights: str
    cached: bool


def build(request: BuildRequest, store: EngineStore | None = None, progress: Progress | None = None) -> BuildResult:
    """Loads, exports, checks and builds, or finds the same thing in the store.

    Errors: those of reading the checkpoint, `weights-unaccounted`, `size-*`, `parity`, `engine-rejected`,
    `output-unwritable`, `store-unwritable`.
    """
    tell = progress or (lambda stage, done: None)
    store = store or open_store()
    try:
        from matchrt.export.network import load_network
        from matchrt.export.specs import get_spec
        from matchrt.export.to_onnx import ExportOptions, input_contract
    except ModuleNotFoundError as error:
        raise missing_package(str(error.name), "export", "Building engines") from error

    spec = get_spec(request.model)
    options = ExportOptions(
        request.height or spec.height, request.width or spec.width, request.max_matches, request.profile
    )
    contract = input_contract(spec.channels, spec.divisor, options)
    flavor = get_flavor(request.flavor)
    tell("reading the checkpoint", 0.0)
    loaded = load_network(
        spec,
        request.checkpoint,
        allow_missing=request.allow_missing,
        threshold=request.threshold,
        mutual=request.mutual,
    )
    key = _build_key(request, loaded, contract, flavor.identity())
    cached = None if request.rebuild else store.find(spec.name, key)
    if cached is not None:
        tell("found in the store", 1.0)
        path = _copy_out(cached.path.read_bytes(), cached.manifest, request.output) or cached.path
        return BuildResult(path, cached.manifest, loaded.report.summary(), cached=True)
    engine = _build_new(request, loaded, options, contract, key, tell)
    tell("writing", 0.95)
    if request.output is not None:
        output = _copy_out(engine.data, engine.manifest, request.output)
        assert output is not None
    else:
        output = store.put(engine, _file_name(engine.manifest, flavor.suffix)).path
    tell("done", 1.0)
    return BuildResult(output, engine.manifest, loaded.report.summary(), cached=False)


def _build_new(
    request: BuildRequest,
    loaded: LoadedNetwork,
    options: ExportOptions,
    contract: InputContract,
    key: str,
    tell: Progress,
) -> Engine:
    from matchrt.export.engine_graph import LoFTRGraph
    from matchrt.export.parity import require_parity, run_onnx, run_torch, sample_inputs
    from matchrt.export.passes.base import run_passes
    from matchrt.export.passes.standard import standard_passes
    from matchrt.export.to_onnx import export_onnx

    network = loaded.network.config
    inputs = sample_inputs(contract, network.coarse_stride)

    def same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        require_parity(run_onnx(before, inputs), run_onnx(after, inputs), network.match.threshold, "A graph pass")

    tell("exporting to ONNX", 0.05)
    exported = export_onnx(loaded, options)
    tell("running graph passes", 0.6)
    model, passes = run_passes(exported, standard_passes(), same if request.check_passes else None)
    tell("comparing ONNX with torch", 0.7)
    expected = run_torch(LoFTRGraph(loaded.network, options.max_matches), inputs)
    difference = require_parity(expected, run_onnx(model, inputs), network.match.threshold, "Exporting")
    tell(f"building for {request.flavor}", 0.85)
    source = Source(
        loaded.checkpoint.path.name, loaded.checkpoint.tensors_sha256, loaded.spec.licence, loaded.spec.origin
    )
    facts = GraphFacts(
        model=loaded.spec.name,
        family=loaded.spec.family,
        precision=request.precision,
        source=source,
        input=contract,
        matching=MatchContract(
            options.max_matches,
            network.match.threshold,
            network.match.border,
            network.match.mutual,
            network.coarse_stride,
        ),
        passes=passes,
        build_key=key,
        checks={
            "parity_matches": float(difference.matches),
            "parity_max_pixels": difference.pixels,
            "parity_max_score": difference.score,
        },
    )
    return build_engine(model.SerializeToString(deterministic=True), facts, get_flavor(request.flavor))


def _build_key(request: BuildRequest, loaded: LoadedNetwork, contract: InputContract, identity: str) -> str:
    """Digest of everything that decides the engine's bytes; names and places of files are not among it."""
    return sha256_json(
        {
            "matchrt": __version__,
            "model": loaded.spec.name,
            "weights": loaded.checkpoint.tensors_sha256,
            "allow_missing": sorted(request.allow_missing),
            "network": asdict(loaded.network.config),
            "input": asdict(contract),
            "max_matches": request.max_matches,
            "precision": request.precision,
            "flavor": request.flavor,
            "runtime": identity,
        }
    )


def _file_name(manifest: EngineManifest, suffix: str) -> str:
    contract = manifest.input
    size = "dynamic" if contract.profile is not None else f"{contract.height}x{contract.width}"
    return f"{manifest.model}-{size}-{manifest.precision}{suffix}"


def _copy_out(data: bytes, manifest: EngineManifest, output: Path | None) -> Path | None:
    """Writes an engine and its manifest to `output`; the manifest last, so that a lone engine is never accepted."""
    if output is None:
        return None
    if len(data) != manifest.engine_bytes:
        raise InternalError("engine-digest", f"The engine for '{output}' changed while copying.", "Build it again.")
    atomic.write_bytes(output, data)
    manifest.write(manifest_path(output))
    return output
