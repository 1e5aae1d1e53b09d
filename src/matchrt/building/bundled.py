"""Makes fp32 ONNX engines of a bundled model from the graphs in the package, without torch and without an export.

A dynamic engine is the bundled engine's own graph. A static one is the package's graph for any size, which masks
padding, with its size fixed. It is compared with the bundled engine in ONNX Runtime before it is kept; torch was asked
when the package's graphs were made.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt._util.digest import sha256_bytes, sha256_json
from matchrt._util.memory import require_memory
from matchrt._util.packages import packages_for
from matchrt._version import __version__
from matchrt.bench.difference import Difference, compare_matches
from matchrt.building.request import AFTER_THE_GRAPH, BuildRequest, Progress, file_name
from matchrt.building.self_test import make_self_test
from matchrt.building.textures import texture_pair
from matchrt.engines.build import Engine, GraphFacts, build_engine
from matchrt.engines.onnxruntime import OnnxRuntimeBuilder
from matchrt.errors import InternalError
from matchrt.export.contract import ExportOptions, input_contract
from matchrt.families.presets import configure
from matchrt.families.registry import get_spec
from matchrt.manifest import EngineManifest, InputContract, PassRecord, Profile
from matchrt.runtime.bundled import BUNDLED, any_size_path, bundled_path
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.opening import open_session
from matchrt.store import EngineStore, StoredEngine

Arrays = dict[str, npt.NDArray[Any]]
# What a request may say besides the model; everything else decides weights or graph, and needs an export.
_FREE = (*AFTER_THE_GRAPH, "height", "width", "profile")


def needs_export(request: BuildRequest) -> tuple[str, ...] | None:
    """The fields of a request for a bundled model that only an export from its weights can serve.

    Empty if the package's graphs can serve it; None for a model whose graphs the package does not have.
    """
    if request.model not in BUNDLED:
        return None
    blank = BuildRequest(request.model)
    return tuple(
        field.name
        for field in fields(request)
        if field.name not in _FREE and getattr(request, field.name) != getattr(blank, field.name)
    )


def bundled_engine(
    request: BuildRequest, store: EngineStore, tell: Progress, first: Callable[[], None] = lambda: None
) -> tuple[StoredEngine, bool]:
    """The fp32 ONNX engine of a request that `needs_export` gives no field of, and whether the store had it.

    first: called before the work if the store lacks the engine; what it raises ends the build.
    tell: called with the step that begins and the share (0..1) of the work done.
    Errors: size-*, parity, store-unwritable, package-missing.
    """
    source = read_engine(bundled_path(request.model))
    contract, stride = _contract(request), source.manifest.matching.coarse_stride
    size = contract.profile.optimum if contract.profile is not None else (contract.height or 0, contract.width or 0)
    require_memory(size, size, stride)
    key = _key(source.manifest, contract)
    cached = None if request.rebuild else store.find(request.model, key)
    if cached is not None:
        return cached, True
    first()
    tell("reading the package's graph", 0.0)
    data, records = (source.data, source.manifest.passes) if contract.profile else _static_graph(source, contract)
    facts = GraphFacts(
        model=source.manifest.model,
        family=source.manifest.family,
        precision="fp32",
        source=source.manifest.source,
        input=contract,
        matching=source.manifest.matching,
        passes=records,
        build_key=key,
        # The figures beside torch are of the bundled engine's own graph.
        checks=source.manifest.checks if contract.profile else {},
    )
    engine = build_engine(data, facts, OnnxRuntimeBuilder())
    if contract.profile is None:
        tell("comparing with the bundled engine", 0.4)
        engine = _compared(engine, source, store)
    tell("answering the self-test", 0.8)
    with closing(open_session(EngineFile(store.root, engine.data, engine.manifest))) as session:
        manifest = replace(engine.manifest, self_test=make_self_test(session))
    return store.put(engine.data, manifest, file_name(manifest, OnnxRuntimeBuilder.suffix)), False


def _contract(request: BuildRequest) -> InputContract:
    configured = configure(get_spec(request.model), request)
    options = ExportOptions(configured.height, configured.width, request.max_matches, request.profile)
    return input_contract(configured.spec.preprocess, options)


def _static_graph(source: EngineFile, contract: InputContract) -> tuple[bytes, tuple[PassRecord, ...]]:
    """The graph for one size, and what was done to the package's graph. Error: package-missing."""
    with packages_for("Building static engines"):
        import onnx

        from matchrt.export.fixed_sizes import fix_sizes
        from matchrt.export.shared_weights import take_shared
    assert contract.height is not None and contract.width is not None
    data = any_size_path(source.manifest.model).read_bytes()
    model = onnx.load_model_from_string(data)
    take_shared(model, onnx.load_model_from_string(source.data))
    origin = PassRecord("package-graph", True, f"the package's graph for any size, sha256 {sha256_bytes(data)[:16]}")
    model, records = fix_sizes(model, {"height": contract.height, "width": contract.width})
    return model.SerializeToString(deterministic=True), (origin, *records)


def _compared(engine: Engine, source: EngineFile, store: EngineStore) -> Engine:
    """The engine, with how its matches of a pair differ from the bundled engine's in its manifest. Error: parity.

    The pair fills the input. What padding does was compared with torch when the package's graph was made, since the
    bundled engine takes none.
    """
    contract, stride = engine.manifest.input, engine.manifest.matching.coarse_stride
    assert contract.height is not None and contract.width is not None
    size = (contract.height, contract.width)
    images = texture_pair(contract, stride, (size, size), seed=0)
    inputs: Arrays = {f"image{index}": image[None] for index, image in enumerate(images)}
    # The bundled engine's graph takes any size; its profile is what its manifest promises.
    wide = replace(source.manifest.input, profile=Profile(size, size, size))
    other = EngineFile(source.path, source.data, replace(source.manifest, input=wide, self_test=None))
    expected = _run(other, inputs)
    sizes: Arrays = {f"size{index}": np.array([size], np.int32) for index in (0, 1)}
    actual = _run(EngineFile(store.root, engine.data, engine.manifest), inputs | sizes)
    if reach := get_spec(engine.manifest.model).family.score_reach:
        expected["reach"] = np.array([reach], np.float32)
    difference = compare_matches(expected, actual, engine.manifest.matching.threshold)
    if not difference.same or difference.matches == 0:
        raise InternalError(
            "parity",
            f"The engine for {size[0]}x{size[1]} does not give the bundled engine's matches: {difference}.",
            "Report this as a bug, with the size.",
        )
    return replace(engine, manifest=replace(engine.manifest, checks=_checks(difference)))


def _run(file: EngineFile, inputs: Arrays) -> Arrays:
    with closing(open_session(file)) as session:
        # Copies: the arrays of a session are good until its next run.
        return {name: np.array(array) for name, array in session.run(inputs).items()}


def _checks(difference: Difference) -> dict[str, float]:
    """Figures beside the bundled engine in ONNX Runtime: none of torch, which is not asked here."""
    return {
        "bundled_matches": float(difference.matches),
        "bundled_max_pixels": difference.pixels,
        "bundled_max_score": difference.score,
    }


def _key(bundled: EngineManifest, contract: InputContract) -> str:
    """Digest of everything that decides the graph: the package's graphs are those of this version."""
    graph = "" if contract.profile is not None else sha256_bytes(any_size_path(bundled.model).read_bytes())
    return sha256_json(
        {"matchrt": __version__, "bundled": bundled.engine_sha256, "graph": graph, "input": asdict(contract)}
    )
