"""Real engines of TensorRT-RTX for every registered model, built on the CPU: parsed, built, described, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import onnx
import pytest
from onnx import helper
from support import romav2
from support.commands import CommandLine
from support.pictures import texture
from support.random_engines import random_engine, shallow
from support.roma import TINY
from support.rtx import check_header

from matchrt._util.digest import sha256_bytes
from matchrt.building.pipeline import BuildRequest, build
from matchrt.errors import MatchRTError
from matchrt.families.definition import ModelSpec
from matchrt.families.registry import family_of, model_specs
from matchrt.families.roma import RoMaFamily
from matchrt.manifest import EngineManifest, FrameContract, manifest_path, read_manifest
from matchrt.manifest.contract import check_contract
from matchrt.models.roma.config import RoMaConfig
from matchrt.nvidia.device import find_gpus
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.engine_file import EngineFile, read_engine
from matchrt.runtime.opening import open_session
from matchrt.store import EngineStore

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra: rtx)")

pytestmark = pytest.mark.slow
TARGETS = ("8.0", "8.9")
# Small sizes (height, width) where 64x64 is too small for a family.
SIZES = {"roma": (168, 168), "romav2": (96, 128), "eloftr": (128, 128)}
# Models whose graph is another's but for constants.
ALIKE = {
    "loftr-indoor": "loftr-outdoor",
    "loftr-indoor-new": "loftr-outdoor",
    "minima-loftr": "loftr-outdoor",
    "roma-indoor": "roma-outdoor",
    "minima-roma": "roma-outdoor",
    "minima-eloftr": "eloftr",
    "minima-xoftr": "xoftr",
}


def no_gpu() -> bool:
    try:
        return not find_gpus()
    except MatchRTError:
        return True


def _tiny(config: RoMaConfig) -> RoMaConfig:
    """A small network with the rules of that one."""
    return replace(TINY, imagenet=config.imagenet, scale_rule=config.scale_rule, black=config.black)


def export_small(spec: ModelSpec, folder: Path) -> Path:
    """The model's ONNX engine at a small size, of RoMa and EfficientLoFTR also with a small network."""
    if spec.family.name == "roma":
        spec = replace(spec, family=RoMaFamily(_tiny(spec.family.config), coarse=(112, 112)))
    if spec.family.name == "romav2":
        spec = replace(romav2.TINY_SPEC, family=replace(romav2.TINY_SPEC.family, coarse=(64, 96)))
    if spec.family.name == "eloftr":
        spec = shallow(spec, 1)
    return random_engine(spec, folder, SIZES.get(spec.family.name, (64, 64)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rtx")


@pytest.fixture(scope="module", params=[name for name in model_specs() if name not in ALIKE])
def source(request: pytest.FixtureRequest, folder: Path) -> EngineFile:
    """The bundled engine, which is dynamic, and static ones."""
    if request.param == "loftr-lite":
        return read_engine("loftr-lite")
    if request.param == "coarse-loftr":
        return read_engine(request.getfixturevalue("coarse_engine"))
    return read_engine(export_small(model_specs()[request.param], folder))


@pytest.mark.parametrize(("targets", "tf32"), [((), True), (TARGETS, False)])
def test_every_model_builds(source: EngineFile, folder: Path, targets: tuple[str, ...], tf32: bool) -> None:
    tf32 = tf32 and family_of(source.manifest.family).tf32  # RoMa does not tolerate it, and `build` refuses it
    told: list[tuple[str, float]] = []
    output = folder / f"{source.manifest.model}{len(targets)}.engine"
    request = BuildRequest(str(source.path), backend="tensorrt_rtx", builder=BuilderOptions(targets=targets, tf32=tf32),
                           output=output)  # fmt: skip
    built = build(request, EngineStore(folder / "store"), lambda what, done: told.append((what, done)))
    manifest = read_manifest(manifest_path(output))
    assert manifest == built.manifest and manifest.engine_bytes == output.stat().st_size > 10_000
    assert (manifest.backend, manifest.backend_version) == ("tensorrt_rtx", trt.__version__)
    assert manifest.portability.compute_capabilities == (targets or ("8.0",))
    assert ("exact-products" in {record.name for record in manifest.passes}) is not tf32
    assert described(manifest) == described(source.manifest) and manifest.input == source.manifest.input
    assert manifest.source == source.manifest.source and manifest.matching == source.manifest.matching
    shares = [done for _, done in told]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert any(what.startswith("building for tensorrt_rtx: ") and 0.2 < done < 0.95 for what, done in told)
    check_header(output)


@pytest.mark.parametrize("frames", [FrameContract("nv12", ((250, 320), (192, 256))),
                                    FrameContract("rgb", None, (96, 128), (480, 640))])  # fmt: skip
@pytest.mark.parametrize(("model", "precision"), [("coarse-loftr", "fp16"), ("matchanything-roma", "fp32")])
def test_engines_for_frames_build(
    coarse_engine: Path, folder: Path, model: str, precision: str, frames: FrameContract
) -> None:
    """Colours, products, sums and padding of frames, fixed and of a range, are nodes that the vendor's parser takes."""
    source = coarse_engine
    if model != "coarse-loftr":
        source = folder / f"{model}.onnx"
        source = source if source.exists() else export_small(model_specs()[model], folder)
    request = BuildRequest(
        str(source), backend="tensorrt_rtx", precision=precision, frames=frames, accept_accuracy_loss=True,
        builder=BuilderOptions(targets=("8.9",), optimization_level=0),
    )  # fmt: skip
    manifest = build(request, EngineStore(folder / "store")).manifest
    assert manifest.input.frames == frames and {"frame0", "frame1"} <= {spec.name for spec in manifest.inputs}
    assert "image0" not in {spec.name for spec in manifest.inputs}
    assert "frame-products" in {record.name for record in manifest.passes}
    check_contract(manifest)


def described(manifest: EngineManifest) -> list[tuple[str, str, tuple[int | None, ...]]]:
    """Inputs and outputs; how dynamic sides are called is the exporter's affair."""
    return [
        (spec.name, spec.dtype, tuple(side if isinstance(side, int) else None for side in spec.shape))
        for spec in (*manifest.inputs, *manifest.outputs)
    ]


@pytest.fixture(scope="module")
def engine(folder: Path, coarse_engine: Path) -> EngineFile:
    """A small engine, for one GPU."""
    output = folder / "small.engine"
    options = BuilderOptions(targets=("8.9",), optimization_level=0)
    build(BuildRequest(str(coarse_engine), backend="tensorrt_rtx", output=output, builder=options),
          EngineStore(folder / "store"))  # fmt: skip
    return read_engine(output)


def test_what_does_not_fit_is_refused(engine: EngineFile) -> None:
    older = replace(engine, manifest=replace(engine.manifest, backend_version="1.4.0.0"))
    with pytest.raises(MatchRTError) as caught:
        open_session(older)
    assert caught.value.code == "engine-version" and "1.4.0.0" in caught.value.message
    assert "matchrt build coarse-loftr --backend tensorrt_rtx" in caught.value.remedy


@pytest.mark.skipif(not no_gpu(), reason="there is a GPU here")
def test_without_a_gpu_running_is_refused(engine: EngineFile, cli: CommandLine, tmp_path: Path) -> None:
    with pytest.raises(MatchRTError) as caught:
        open_session(engine)
    assert caught.value.code == "device-missing"
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), texture(96, 128))
    ran = cli.fails("device-missing", "match", tmp_path / "a.png", tmp_path / "b.png", "--engine", engine.path)
    assert "onnxruntime" in ran.err


def test_the_real_parser_names_what_it_does_not_take(folder: Path, coarse_engine: Path) -> None:
    source = read_engine(coarse_engine)
    model = onnx.load_model_from_string(source.data)
    name = model.graph.output[-1].name
    for node in model.graph.node:
        node.output[:] = ["before" if output == name else output for output in node.output]
    # An operator of nobody's makes the last output.
    model.graph.node.append(helper.make_node("Imagined", ["before"], [name], name="head/Imagined", domain="nobody"))
    data = model.SerializeToString()
    digest = sha256_bytes(data)
    (folder / "odd.onnx").write_bytes(data)
    manifest = replace(source.manifest, engine_sha256=digest, onnx_sha256=digest, engine_bytes=len(data))
    manifest.write(folder / "odd.onnx.json")
    # With TF32 the graph reaches the parser as it is.
    request = BuildRequest(str(folder / "odd.onnx"), backend="tensorrt_rtx", builder=BuilderOptions(tf32=True))
    with pytest.raises(MatchRTError) as caught:
        build(request, EngineStore(folder / "store"))
    assert caught.value.code == "onnx-rejected" and "Imagined 'head/Imagined': " in caught.value.message


def test_the_command(coarse_engine: Path, coarse_checkpoint: Path, cli: CommandLine) -> None:
    """From a checkpoint to an engine for a GPU that is not here; the export is in that store already."""
    line = ("build", "coarse-loftr", "--checkpoint", coarse_checkpoint, "--height", "192", "--width", "256",
            "--max-matches", "256", "--backend", "tensorrt_rtx", "--store", coarse_engine.parent / "store",
            "--optimization-level", "0", "--target")  # fmt: skip
    ran = cli(*line, "sm89")
    assert ran.code == 0, ran.err
    assert "compute capability 8.9 and later" in ran.out and ".engine" in ran.out and "MB" in ran.out
    again = cli(*line, "sm89", "--json")
    assert again.json["cached"] and again.json["manifest"]["portability"]["compute_capabilities"] == ["8.9"]
    cli.fails("build-option", *line, "sm90")
