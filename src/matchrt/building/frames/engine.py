"""Makes an engine for frames from a static fp32 ONNX engine, and compares its matches with the host's way to them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from matchrt._util.digest import sha256_json
from matchrt._util.packages import packages_for
from matchrt._version import __version__
from matchrt.bench.scene import image_pair
from matchrt.building.frames.refusals import require_fitting, require_frames
from matchrt.building.request import Progress, file_name
from matchrt.building.self_test import make_self_test
from matchrt.engines.build import Engine, GraphFacts, build_engine
from matchrt.engines.onnxruntime import OnnxRuntimeBuilder
from matchrt.errors import InternalError, MatchRTError
from matchrt.families.registry import is_dense
from matchrt.manifest import EngineManifest, FrameContract, PassRecord
from matchrt.manifest.frames import Size
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.engine_file import EngineFile
from matchrt.runtime.image import Image
from matchrt.runtime.matches import Matches
from matchrt.runtime.nearest import nearest_rows
from matchrt.runtime.opening import open_session
from matchrt.runtime.options import MatcherOptions
from matchrt.runtime.session import Session
from matchrt.store import EngineStore, StoredEngine

# Matches of both ways are the same within this distance, in pixels of the network's input.
_SAME = 0.05
# Below this share of the same matches, the graph is wrong: rounding alone costs a match in some hundreds.
_LEAST, _ENOUGH = 0.9, 50


@dataclass(frozen=True)
class FrameCheck:
    """How the matches of an engine for frames agree with those of the engine that it was made from.

    matches: the number of matches of the other engine, whose images the host resized.
    same: the share (0..1) of them that the engine for frames has within 0.05 px of the network's input.
    """

    matches: int
    same: float


def frames_engine(
    file: EngineFile, frames: FrameContract, store: EngineStore, tell: Progress, rebuild: bool = False
) -> tuple[StoredEngine, bool]:
    """The fp32 ONNX engine that takes frames, from the store or made. Returns it and whether the store had it.

    file: the static fp32 ONNX engine that it is made from.
    Errors: those of `require_framable`, package-missing, engine-rejected, store-unwritable.
    """
    require_framable(file.manifest, frames)
    key = _key(file.manifest, frames)
    cached = None if rebuild else store.find(file.manifest.model, key)
    if cached is not None:
        return cached, True
    tell("writing frames into the graph", 0.0)
    engine = _written(file, frames, key)
    made = EngineFile(store.root, engine.data, engine.manifest)
    tell("comparing with images that the host resizes", 0.3)
    with closing(open_session(made)) as session:
        check = compare_with_host(file, session)
        tell("answering the self-test", 0.7)
        test = make_self_test(session)
    _require_same(check)
    checks = {"frames_matches": float(check.matches), "frames_same": check.same}
    manifest = replace(engine.manifest, self_test=test, checks=engine.manifest.checks | checks)
    return store.put(engine.data, manifest, file_name(manifest, OnnxRuntimeBuilder.suffix)), False


def require_framable(manifest: EngineManifest, frames: FrameContract) -> None:
    """Raises an error unless frames can be put before an engine.

    Errors: frames-dynamic, frames-twice, frames-pixels, frames-batch, frames-sides, frames-model.
    """
    require_frames(frames, manifest.input.profile is not None, manifest.input.batch, manifest.input.any_batch)
    require_fitting(manifest)
    if manifest.input.frames is not None:
        raise MatchRTError(
            "frames-twice",
            f"This engine of {manifest.model} takes frames already: {manifest.input.frames}.",
            "Leave --frames out, or start from the engine without frames.",
        )


def compare_with_host(file: EngineFile, session: Session, seed: int = 0) -> FrameCheck:
    """Matches a made pair with an engine for frames, and with the engine that it was made from.

    file: the engine without frames. session: of the one with frames. seed: of the pair. Errors: those of a run.
    """
    sizes = example_sizes(session.manifest)
    pair = _images(sizes, seed)
    adapter = PairAdapter(session.manifest, MatcherOptions(min_score=0.0))
    frames = [adapter.prepare(image, image.name, side) for side, image in enumerate(pair)]
    found = _match(session, adapter, (frames[0], frames[1]))
    host = PairAdapter(file.manifest, MatcherOptions(min_score=0.0))
    # The pixels that the frames hold, which nv12 changes.
    seen = [seen_image(frame.pixels, session.manifest) for frame in frames]
    with closing(open_session(file)) as other:
        expected = _match(other, host, (host.prepare(seen[0]), host.prepare(seen[1])))
    return FrameCheck(len(expected), same_matches(expected, found, session.manifest, sizes))


def same_matches(expected: Matches, found: Matches, manifest: EngineManifest, sizes: tuple[Size, Size]) -> float:
    """The share (0..1) of expected matches that were found within 0.05 px of the network's input; 1 for none.

    sizes: (height, width) of both images in pixels.
    Of a dense network, which chooses its matches by the last digit, those count of which both have an end, and they may
    be 1 px apart.
    """
    if not len(expected) or not len(found):
        return float(not len(expected))
    if is_dense(manifest.family):
        return _same_warp(expected, found)
    contract = manifest.input
    largest = max(contract.height or 1, contract.width or 1)
    scales = [max(size) / largest for size in sizes]
    sides = [
        np.concatenate([each.keypoints0 / scales[0], each.keypoints1 / scales[1]], 1).astype(np.float64)
        for each in (expected, found)
    ]
    _, distances = nearest_rows(sides[0], sides[1])
    return float((distances <= _SAME).mean())


def _same_warp(expected: Matches, found: Matches) -> float:
    """The share (0..1) of matches with the same end in image 0 whose other end is within 1 px; 1 for none."""
    nearest, gaps = nearest_rows(expected.keypoints0.astype(np.float64), found.keypoints0.astype(np.float64))
    same = gaps < _SAME
    if not same.any():
        return 1.0
    other = np.hypot(*(expected.keypoints1[same] - found.keypoints1[nearest[same]]).T)
    return float((other <= 1.0).mean())


def example_sizes(manifest: EngineManifest) -> tuple[Size, Size]:
    """(height, width) of both frames of an example, in pixels; two sizes for a range."""
    frames = manifest.input.frames
    assert frames is not None
    if frames.sizes is not None:
        return frames.sizes
    height, width = manifest.input.height or 0, manifest.input.width or 0
    return frames.nearest((2 * height, 2 * width), 0), frames.nearest((height * 3 // 2, width * 3 // 2), 1)


def seen_image(frame: npt.NDArray[np.uint8] | None, manifest: EngineManifest) -> npt.NDArray[np.uint8]:
    """The image that a frame `[rows, W, C]` shows: uint8 `[H, W, 3]` RGB, or `[H, W]` for a grey frame."""
    frames = manifest.input.frames
    assert frame is not None and frames is not None
    if frames.pixels == "grey":
        return frame[:, :, 0]
    if frames.pixels == "nv12":
        import cv2

        return np.asarray(cv2.cvtColor(frame[:, :, 0], cv2.COLOR_YUV2RGB_NV12), np.uint8)
    colours = frame[:, :, :3]
    return np.ascontiguousarray(colours[:, :, ::-1] if frames.pixels == "bgr" else colours)


def _images(sizes: tuple[Size, Size], seed: int) -> tuple[Image, Image]:
    """A made pair at these sizes."""
    import cv2

    first, second, _ = image_pair(*sizes[0], seed)
    if sizes[1] != sizes[0]:
        second = np.asarray(cv2.resize(second, sizes[1][::-1], interpolation=cv2.INTER_AREA), np.uint8)
    return Image(first, "image0"), Image(second, "image1")


def _match(session: Session, adapter: PairAdapter, images: tuple[object, object]) -> Matches:
    first, second = (adapter.prepare(image, f"image{side}", side) for side, image in enumerate(images))
    inputs = adapter.inputs(first, second)
    batch = session.manifest.input.batch
    rows = {name: np.repeat(array, batch, axis=0) if _rowed(name) else array for name, array in inputs.items()}
    return adapter.matches((first, second), session.run(rows), {})


def _rowed(name: str) -> bool:
    """Whether an input has a row for each pair of a batch."""
    return name[:-1] in ("image", "frame", "coarse", "size")


def _require_same(check: FrameCheck) -> None:
    if check.matches >= _ENOUGH and check.same < _LEAST:
        raise InternalError(
            "parity",
            f"The engine for frames has {check.same:.1%} of the {check.matches} matches that images give which the "
            "host resizes.",
            "Build without --frames, and report this with the model, its options and the frames' size.",
        )


def _written(file: EngineFile, frames: FrameContract, key: str) -> Engine:
    with packages_for("Building engines for frames"):
        import onnx

        from matchrt.building.frames.write import write_frames

    manifest = file.manifest
    model = onnx.load_model_from_string(file.data)
    write_frames(model, manifest.input, frames)
    record = PassRecord("frames", True, f"takes frames of {frames}; resized in the graph by {manifest.input.kernel}")
    facts = GraphFacts(
        model=manifest.model,
        family=manifest.family,
        precision="fp32",
        source=manifest.source,
        input=replace(manifest.input, frames=frames),
        matching=manifest.matching,
        passes=(*manifest.passes, record),
        build_key=key,
        checks=manifest.checks,
    )
    return build_engine(model.SerializeToString(deterministic=True), facts, OnnxRuntimeBuilder())


def _key(manifest: EngineManifest, frames: FrameContract) -> str:
    return sha256_json(
        {
            "matchrt": __version__,
            "onnx": manifest.onnx_sha256,
            "manifest": manifest.build_key,
            "pixels": frames.pixels,
            "frames": str(frames),
        }
    )
