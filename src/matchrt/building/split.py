"""Builds an engine's two parts beside it: the features of one image, and the matching of two images' features.

Both are cut out of the graph that the engine itself was built from (`runtime.split.cut`), so its precision and what was
judged of it hold for them too. A static graph computes both images in one batch, which is taken apart before
(`export.unbatch`).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from matchrt._util import atomic
from matchrt._util.digest import sha256_bytes
from matchrt._util.packages import packages_for
from matchrt.building.refusals import require_static_parts
from matchrt.building.request import Progress
from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest
from matchrt.manifest.split import FEATURES, MATCH, PartFacts, SplitManifest, part_path, read_split, split_folder
from matchrt.runtime.backend import Builder
from matchrt.runtime.split.cut import CutGraph
from matchrt.runtime.split.parts import cut_engine, require_splittable
from matchrt.store import StoredEngine


def require_parts(manifest: EngineManifest, builder: Builder) -> None:
    """Raises an error if it is known that an engine of this kind cannot be built in parts.

    manifest: of the fp32 ONNX engine that it is made from. Errors: split-graph, split-dynamic.
    """
    require_splittable(manifest)
    if manifest.input.profile is not None:
        require_static_parts(builder)


def has_parts(stored: StoredEngine) -> bool:
    """Whether a stored engine has its parts beside it, whole or not. Raises nothing."""
    try:
        return read_split(stored.path, stored.manifest) is not None
    except MatchRTError:
        return False


def build_parts(stored: StoredEngine, graph: bytes, builder: Builder, tell: Progress) -> SplitManifest:
    """Builds the two parts of a stored engine and writes them beside it.

    graph: the ONNX graph that the engine was built from.
    tell: called with the step that begins and the share (0..1) of the work done.
    Errors: split-graph, package-missing, output-unwritable, those of the builder.
    """
    manifest = stored.manifest
    tell("cutting the graph", 0.0)
    cut = _cut(graph, manifest)
    split_folder(stored.path).mkdir(parents=True, exist_ok=True)
    features = _build(stored, FEATURES, cut.features, builder, lambda what, done: tell(what, 0.1 + 0.45 * done))
    match = _build(stored, MATCH, cut.match, builder, lambda what, done: tell(what, 0.55 + 0.45 * done))
    split = SplitManifest(manifest.engine_sha256, features, match)
    split.write(split_folder(stored.path))  # last: parts without it do not count
    return split


def _build(stored: StoredEngine, part: str, graph: bytes, builder: Builder, tell: Progress) -> PartFacts:
    what = f"building the part {part}"
    tell(what, 0.0)
    built = builder.build(graph, None, lambda step, done: tell(f"{what}: {step}", done))
    atomic.write_bytes(part_path(stored.path, part), built.data)
    return PartFacts(sha256_bytes(built.data), len(built.data), sha256_bytes(graph), built.inputs, built.outputs)


def copy_parts(stored: StoredEngine, output: Path) -> None:
    """Copies the parts of a stored engine beside the copy of the engine at `output`. Error: output-unwritable."""
    split = read_split(stored.path, stored.manifest)
    if split is None:
        return
    folder = split_folder(output)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise MatchRTError(
            "output-unwritable", f"Cannot write '{folder}': {error.strerror}.", "Choose a place that you may write to."
        ) from error
    for part in (FEATURES, MATCH):
        atomic.write_bytes(part_path(output, part), part_path(stored.path, part).read_bytes())
    split.write(folder)


def _cut(graph: bytes, manifest: EngineManifest) -> CutGraph:
    if manifest.input.profile is not None:
        return cut_engine(graph, manifest)
    with packages_for("Building static engines in two parts"):
        import onnx

        from matchrt.export.unbatch import unbatch

    model = onnx.load_model_from_string(graph)
    try:
        unbatch(model)
    except (ValueError, onnx.shape_inference.InferenceError) as error:
        raise MatchRTError(
            "split-graph",
            f"The graph of this {manifest.model} cannot be taken apart by images: {error}.",
            "Build it without --split.",
        ) from error
    return cut_engine(model.SerializeToString(deterministic=True), manifest)
