"""The two parts of an engine as engine files: those that were built, or parts of an ONNX engine's own graph.

Errors: split-missing (the engine was built without its parts, and only ONNX graphs can be cut here), split-graph (no
part of the graph depends on one image alone, or the engine takes images in a way that parts do not have),
manifest-invalid, engine-digest.
"""

from __future__ import annotations

from matchrt._util.digest import sha256_bytes
from matchrt._util.onnx_parts import take_apart, type_of
from matchrt._util.reading import read_regular
from matchrt._util.text import printable
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, TensorSpec
from matchrt.manifest.split import FEATURES, MATCH, PartFacts, SplitManifest, part_path, read_split
from matchrt.runtime.backend import get_backend
from matchrt.runtime.backends import DEFAULT_BACKEND, built_for
from matchrt.runtime.engine_checks import UNTOLD, require_digest
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.split.cut import CutGraph, cut_graph, feature_input

# Without one of these, features are no more than the image.
_PRODUCTS = ("Conv", "ConvInteger", "Gemm", "MatMul", "MatMulInteger", "QLinearConv", "QLinearMatMul")
# NumPy's names of ONNX's element types.
_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}


def require_splittable(manifest: EngineManifest) -> None:
    """Raises `split-graph` for an engine whose inputs cannot be taken apart by images."""
    contract = manifest.input
    reason = None
    if contract.frames is not None:
        reason = "takes frames, which it resizes in pairs"
    elif contract.batch != 1 or contract.any_batch:
        reason = "matches several pairs in a run"
    if reason is not None:
        raise _no_parts(manifest, f"it {reason}")


def require_engine_files(backend: str) -> None:
    """Raises `split-graph` for a backend that runs weights, and has no engine file that could be cut."""
    if get_backend(backend).takes_weights:
        raise MatchRTError(
            "split-graph",
            f"Backend {backend} runs weights as a whole network.",
            "Match whole pairs, or use an engine for backend onnxruntime.",
        )


def open_parts(file: EngineFile) -> tuple[EngineFile, EngineFile]:
    """The parts of an engine: features of one image, and matching of two. Errors: those of the module."""
    manifest = file.manifest
    require_splittable(manifest)
    built = read_split(file.path, manifest)
    if built is not None:
        _require_fitting(file, built)
        return _read(file, FEATURES, built.features), _read(file, MATCH, built.match)
    if built_for(manifest.backend) != DEFAULT_BACKEND:
        raise MatchRTError(
            "split-missing",
            f"'{file.path}' was built without its parts.",
            f"Build them: matchrt build {manifest.model} --backend {manifest.backend} --split, with its other options.",
        )
    return _in_memory(file, cut_engine(file.data, manifest))


def cut_engine(data: bytes, manifest: EngineManifest) -> CutGraph:
    """The parts of an engine's ONNX graph. Error: split-graph."""
    require_splittable(manifest)
    try:
        cut = cut_graph(data)
    except ValueError as error:
        raise _no_parts(manifest, str(error)) from error
    if not any(node.op[0] in _PRODUCTS for node in take_apart(cut.features).nodes):
        raise _no_parts(manifest, "both images go through its first products together")
    return cut


def _in_memory(file: EngineFile, cut: CutGraph) -> tuple[EngineFile, EngineFile]:
    """The parts of an ONNX engine as engine files that stand on no disk."""
    features, match = (
        EngineFile(part_path(file.path, part), data, _facts(data).manifest(file.manifest))
        for part, data in ((FEATURES, cut.features), (MATCH, cut.match))
    )
    return features, match


def _require_fitting(file: EngineFile, built: SplitManifest) -> None:
    """Raises `manifest-invalid` for parts of different builds: one does not give what the other one takes."""
    whole, features, match = file.manifest, built.features, built.match
    given = {spec.name: spec for spec in whole.inputs}
    maps = {feature_input(side, spec.name): spec for side in (0, 1) for spec in features.outputs}
    unlike = [spec.name for spec in features.inputs if not _fit(given.get(spec.name), spec)]
    unlike += [spec.name for spec in match.inputs if not _fit((given | maps).get(spec.name), spec)]
    unlike += sorted({spec.name for spec in whole.outputs} ^ {spec.name for spec in match.outputs})
    if unlike:
        raise MatchRTError(
            "manifest-invalid",
            f"The parts beside '{file.path}' are not of one build: '{printable(unlike[0])}' does not fit.",
            f"Build the parts again: matchrt build {whole.model} --split.",
        )


def _fit(made: TensorSpec | None, taken: TensorSpec) -> bool:
    """Whether a tensor can be what another one is taken for. Dimensions of which one is not told fit, and no shape."""
    if made is None or made.dtype != taken.dtype:
        return False
    if not made.shape or not taken.shape:
        return True
    sides = zip(made.shape, taken.shape, strict=False)
    return len(made.shape) == len(taken.shape) and all(
        isinstance(a, str) or isinstance(b, str) or a == b for a, b in sides
    )


def _read(file: EngineFile, part: str, facts: PartFacts) -> EngineFile:
    path, manifest = part_path(file.path, part), facts.manifest(file.manifest)
    try:
        data = read_regular(path)
    except OSError as error:
        raise MatchRTError(
            "split-missing",
            f"'{path}' cannot be read: {error.strerror}.",
            f"Build it again: matchrt build {manifest.model} --split.",
        ) from error
    require_digest(manifest, path, data)
    return EngineFile(path, data, manifest)


def _facts(data: bytes) -> PartFacts:
    parts, digest = take_apart(data), sha256_bytes(data)
    inputs, outputs = (
        tuple(_spec(name, kind) for name, kind in tensors.items()) for tensors in (parts.inputs, parts.outputs)
    )
    return PartFacts(digest, len(data), digest, inputs, outputs)


def _spec(name: str, kind: bytes) -> TensorSpec:
    element, shape = type_of(kind)
    return TensorSpec(name, _TYPES[element], tuple(UNTOLD if side is None else side for side in shape or ()))


def _no_parts(manifest: EngineManifest, reason: str) -> MatchRTError:
    return MatchRTError(
        "split-graph",
        f"This engine of {manifest.model} has no part that one image alone decides: {reason}.",
        "Match whole pairs, or build the engine with --split.",
    )
