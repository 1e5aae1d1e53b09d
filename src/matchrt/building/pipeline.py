"""Builds an engine from a model's name or from an ONNX engine. Export and conversion meet only here.

Every engine is made from the model's fp32 ONNX engine, which the store keeps. So a second backend or precision of a
model needs no second export. If that ONNX engine is given as a file, or the package has the model's graphs, no torch is
needed either.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache, partial
from pathlib import Path

from matchrt._util import atomic
from matchrt._util.digest import sha256_bytes
from matchrt.building.bundled import bundled_engine, needs_export
from matchrt.building.calibration.pairs import choose_pairs
from matchrt.building.calibration.refusals import require_quantizable
from matchrt.building.calibration.vendor import require_built_products
from matchrt.building.convert import convert_engine
from matchrt.building.export import ExportedEngine, export_engine
from matchrt.building.frames.engine import frames_engine
from matchrt.building.graphs import GraphRequest, write_graph
from matchrt.building.refusals import require_possible
from matchrt.building.request import AFTER_THE_GRAPH, BuildRequest, BuildResult, Progress
from matchrt.building.source import require_source, source_path
from matchrt.building.split import build_parts, copy_parts, has_parts, require_parts
from matchrt.errors import MatchRTError
from matchrt.export.precision import QUANTIZED, require_precision
from matchrt.manifest import manifest_path
from matchrt.manifest.split import SplitManifest, read_split
from matchrt.runtime.backend import Builder, get_backend, require_builds
from matchrt.runtime.backends import DEFAULT_BACKEND
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.store import EngineStore, StoredEngine, open_store

__all__ = ["BuildRequest", "BuildResult", "build"]

# The share of the export in the whole work, for the progress bar.
_EXPORT_SHARE = 0.6
# The share of everything before the engine's parts, if they are built too.
_BEFORE_PARTS = 0.6
# The share of the export in that, if frames are written too.
_BEFORE_FRAMES = 0.8


def build(request: BuildRequest, store: EngineStore | None = None, progress: Progress | None = None) -> BuildResult:
    """Builds an engine, or finds the same engine in the store.

    store: where engines are kept; None for the default store.
    progress: called with the step that begins and the share (0..1) of the work done.
    Errors: those of `export_engine` and `convert_engine`; backend-unknown, build-option, build-source, package-*,
    output-unwritable, store-busy, store-unwritable, precision-refused, pairs-*, calibration-*.
    """
    told = progress or (lambda stage, done: None)
    store = store or open_store()
    require_builds(request.backend)
    builder = get_backend(request.backend).builder(request.builder)
    require_precision(request.precision)
    require_quantizable(request.precision, request.backend, request.builder.targets, request.calibration)
    require_possible(request, builder, store)
    # Asked once, when it is known that there is something to build.
    ask = cache(partial(require_built_products, request.precision, builder, request.builder.targets))
    start = time.perf_counter()
    whole_share = _BEFORE_PARTS if request.split else 1.0

    def tell(what: str, done: float) -> None:
        told(what, done * whole_share)

    same = (request.backend, request.precision) == (DEFAULT_BACKEND, "fp32")
    share = 1.0 if same else _EXPORT_SHARE
    first = share if request.frames is None else share * _BEFORE_FRAMES
    exported, file = _source(request, store, lambda what, done: tell(what, done * first), ask)
    if request.frames is not None:
        exported, file = _framed(
            request, exported, file, store, lambda what, done: tell(what, first + done * (share - first))
        )
    stored, cached = exported.stored, exported.cached
    if request.split:
        require_parts(stored.manifest, builder)
    graphs: list[bytes] = []
    seconds = {} if cached else {"export": time.perf_counter() - start}
    if not same:
        share = 0.0 if cached else share
        begun = time.perf_counter()
        stored, cached = convert_engine(
            file or read_engine(stored.path),
            request.precision,
            builder,
            store,
            lambda what, done: tell(what, share + done * (1 - share)),
            rebuild=request.rebuild,
            accept_loss=request.accept_accuracy_loss,
            calibration=request.calibration,
            judged_on=request.pairs,
            first=ask,
            written=graphs.append,
        )
        seconds |= {} if cached else {"build": time.perf_counter() - begun}
    parts = None
    if request.split:
        source = None if same else partial(_graph_again, request, file or exported.stored.path, builder, store)
        parts = _parts(request, stored, graphs, source, builder, told)
    output = _deliver(stored, request.output)
    told("found in the store" if cached else "done", 1.0)
    return BuildResult(
        output,
        stored.manifest,
        exported.weights,
        cached,
        {} if cached else seconds,
        exported.notes,
        exported.downloaded,
        parts,
    )


def _parts(
    request: BuildRequest,
    stored: StoredEngine,
    graphs: list[bytes],
    again: Callable[[], bytes] | None,
    builder: Builder,
    tell: Progress,
) -> SplitManifest:
    """The parts of a stored engine, from the store or built.

    graphs: the ONNX graph of the engine, if this build wrote it.
    again: writes it again; None if the engine is the graph.
    """
    if not request.rebuild and has_parts(stored):
        found = read_split(stored.path, stored.manifest)
        assert found is not None
        return found
    graph = graphs[0] if graphs else (stored.path.read_bytes() if again is None else again())
    if sha256_bytes(graph) != stored.manifest.onnx_sha256:
        raise MatchRTError(
            "split-graph",
            "The graph that this engine in the store was built from cannot be written again.",
            "Build engine and parts together, with --rebuild.",
        )
    return build_parts(
        stored, graph, builder, lambda what, done: tell(what, _BEFORE_PARTS + done * (1 - _BEFORE_PARTS))
    )


def _graph_again(request: BuildRequest, source: EngineFile | Path, builder: Builder, store: EngineStore) -> bytes:
    """The graph of a converted engine that the store has already: the same, unless times decided it."""
    file = source if isinstance(source, EngineFile) else read_engine(source)
    pairs = None
    if request.precision in QUANTIZED:
        pairs = choose_pairs(request.calibration.source, file.manifest.input, request.calibration.seed)
    wanted = GraphRequest(file, request.precision, builder, request.calibration, pairs)
    return write_graph(wanted, store, lambda what, done: None).data


def _source(
    request: BuildRequest, store: EngineStore, tell: Progress, ask: Callable[[], None]
) -> tuple[ExportedEngine, EngineFile | None]:
    """The fp32 ONNX engine to start from, and its contents.

    The contents are returned only if the user named a file, because that file had to be read for its check anyway. They
    may be gigabytes. ask: called before an export.
    """
    path = source_path(request.model, store)
    if path is not None:
        _require_bare(request)
        file = read_engine(path, store)
        require_source(file)
        return ExportedEngine(StoredEngine(file.path, file.manifest), None, cached=True), file
    if needs_export(request) == ():
        stored, cached = bundled_engine(request, store, tell, ask)
        return ExportedEngine(stored, None, cached), None
    return export_engine(request, store, tell, ask), None


def _framed(
    request: BuildRequest, exported: ExportedEngine, file: EngineFile | None, store: EngineStore, tell: Progress
) -> tuple[ExportedEngine, EngineFile | None]:
    """The same engine for frames, which is then what others are made from. Errors: those of `frames_engine`."""
    assert request.frames is not None
    source = file or read_engine(exported.stored.path)
    stored, cached = frames_engine(source, request.frames, store, tell, request.rebuild)
    return replace(exported, stored=stored, cached=cached and exported.cached), None


def _require_bare(request: BuildRequest) -> None:
    """Raises `build-source` for options that were decided when the given engine was built."""
    blank = BuildRequest(request.model)
    changed = [f.name for f in fields(request) if getattr(request, f.name) != getattr(blank, f.name)]
    given = [name for name in changed if name not in (*AFTER_THE_GRAPH, "family_options")] + list(
        request.family_options
    )
    if given:
        raise MatchRTError(
            "build-source",
            f"'{request.model}' is an engine, and {', '.join(given)} were decided when it was built.",
            "Leave these options out, or name the model instead of the file.",
        )


def _deliver(stored: StoredEngine, output: Path | None) -> Path:
    """The stored engine's path, or that of its copy at `output`.

    The manifest is written last, because an engine without a manifest is never accepted.
    """
    if output is None:
        return stored.path
    try:
        data = stored.path.read_bytes()
    except OSError as error:
        raise MatchRTError(
            "store-busy",
            f"'{stored.path}' cannot be read any more: {error.strerror}.",
            "Wait for the other build to end, then try again.",
        ) from error
    atomic.write_bytes(output, data)
    stored.manifest.write(manifest_path(output))
    copy_parts(stored, output)
    return output
