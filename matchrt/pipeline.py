"""From a model's name to an engine: the one place where exporting and building meet. Needs the extra `export`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matchrt import atomic
from matchrt._version import __version__
from matchrt.digest import sha256_json
from matchrt.engines.build import GraphFacts, build_engine
from matchrt.engines.flavor import Flavor, get_flavor
from matchrt.errors import MatchRTError, missing_package
from matchrt.manifest import EngineManifest, InputContract, MatchContract, Profile, Source, manifest_path
from matchrt.memory import require_memory
from matchrt.store import EngineStore, StoredEngine, open_store

if TYPE_CHECKING:
    import onnx

    from matchrt.export.network import LoadedNetwork
    from matchrt.export.passes.base import ParityCheck
    from matchrt.export.to_onnx import ExportOptions

# Called with the stage that begins and the share of all work done before it.
Progress = Callable[[str, float], None]

PRECISION = "fp32"


@dataclass(frozen=True)
class BuildRequest:
    """What to build. height, width: None for the model's default; profile: build a dynamic engine instead.

    batch: pairs that one run of the engine matches; `Matcher` takes engines of batch 1.
    """

    model: str
    checkpoint: Path | None = None
    height: int | None = None
    width: int | None = None
    batch: int = 1
    max_matches: int = 2048
    threshold: float | None = None
    mutual: bool | None = None
    profile: Profile | None = None
    flavor: str = "onnxruntime"
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
    height = spec.height if request.height is None else request.height
    width = spec.width if request.width is None else request.width
    options = ExportOptions(height, width, request.max_matches, request.profile, request.batch)
    contract = input_contract(spec.preprocess, options)
    size = request.profile.optimum if request.profile is not None else (height, width)
    require_memory(size, size, spec.family.coarse_stride)
    flavor = get_flavor(request.flavor)
    if request.output is not None:
        atomic.require_writable(request.output)
    tell("reading the checkpoint", 0.0)
    loaded = load_network(
        spec,
        request.checkpoint,
        allow_missing=request.allow_missing,
        threshold=request.threshold,
        mutual=request.mutual,
        size=size,
    )
    matching = _match_contract(request, loaded)
    key = _build_key(request, loaded, contract, matching, flavor)
    cached = None if request.rebuild else store.find(spec.name, key)
    if cached is not None:
        tell("found in the store", 1.0)
        return BuildResult(_deliver(cached, request.output), cached.manifest, loaded.report.summary(), cached=True)
    model, facts = _export(request, loaded, options, contract, matching, key, tell)
    tell(f"building for {flavor.name}", 0.85)
    engine = build_engine(model, facts, flavor)
    tell("writing", 0.95)
    stored = store.put(engine.data, engine.manifest, _file_name(engine.manifest, flavor.suffix))
    output = _deliver(stored, request.output)
    tell("done", 1.0)
    return BuildResult(output, engine.manifest, loaded.report.summary(), cached=False)


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
    """The proven ONNX graph as bytes, and what the manifest says of it."""
    from matchrt.export.parity import prove_parity
    from matchrt.export.passes.base import run_passes
    from matchrt.export.passes.standard import standard_passes
    from matchrt.export.to_onnx import export_onnx

    tell("exporting to ONNX", 0.05)
    exported = export_onnx(loaded, options)
    tell("running graph passes", 0.6)
    check = _same_matches(contract, matching) if request.check_passes else None
    model, passes = run_passes(exported, standard_passes(), check)
    tell("comparing ONNX with torch", 0.7)
    difference = prove_parity(loaded, options, contract, model)
    missing = tuple(entry.key for entry in loaded.report.network if entry.fate == "allowed-missing")
    checkpoint = loaded.checkpoint
    source = Source(checkpoint.path.name, checkpoint.tensors_sha256, loaded.spec.licence, loaded.spec.origin, missing)
    facts = GraphFacts(
        model=loaded.spec.name,
        family=loaded.spec.family.name,
        precision=PRECISION,
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
    """Compares the matches of two graphs on a sample pair."""
    from matchrt.export.parity import require_parity, run_onnx, sample_inputs

    inputs = sample_inputs(contract, matching.coarse_stride)[0]

    def check(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        require_parity(run_onnx(before, inputs), run_onnx(after, inputs), matching.threshold, "A graph pass")

    return check


def _build_key(
    request: BuildRequest, loaded: LoadedNetwork, contract: InputContract, matching: MatchContract, flavor: Flavor
) -> str:
    """Digest of everything that decides the engine's bytes; names and places of files are not among it."""
    return sha256_json(
        {
            "matchrt": __version__,
            "model": loaded.spec.name,
            "weights": loaded.checkpoint.tensors_sha256,
            "allow_missing": sorted(request.allow_missing),
            "network": asdict(loaded.spec.family.config),
            "input": asdict(contract),
            "max_matches": matching.max_matches,
            "default_score": matching.default_score,
            "precision": PRECISION,
            "flavor": flavor.name,
            "runtime": flavor.identity(),
        }
    )


def _file_name(manifest: EngineManifest, suffix: str) -> str:
    contract = manifest.input
    size = "dynamic" if contract.profile is not None else f"{contract.height}x{contract.width}"
    size += f"-b{contract.batch}" if contract.batch > 1 else ""
    return f"{manifest.model}-{size}-{manifest.precision}{suffix}"


def _deliver(stored: StoredEngine, output: Path | None) -> Path:
    """The stored engine's path, or a copy at `output`; the manifest last, so that a lone engine is never accepted."""
    if output is None:
        return stored.path
    try:
        data = stored.path.read_bytes()
    except OSError as error:
        raise MatchRTError(
            "store-busy", f"'{stored.path}' vanished: {error.strerror}.", "Wait for the other build to end, try again."
        ) from error
    atomic.write_bytes(output, data)
    stored.manifest.write(manifest_path(output))
    return output
