"""The request for a build, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matchrt.building.calibration.options import CalibrationOptions
from matchrt.manifest import EngineManifest, FrameContract, Profile
from matchrt.manifest.split import SplitManifest
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backends import DEFAULT_BACKEND

# Called with the step that begins and the share (0..1) of all work done before it.
Progress = Callable[[str, float], None]


# The fields of a request that decide what is made of an fp32 graph, and not the graph.
AFTER_THE_GRAPH = (
    "model",
    "backend",
    "precision",
    "frames",
    "builder",
    "output",
    "rebuild",
    "accept_accuracy_loss",
    "calibration",
    "pairs",
    "split",
)


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    model: a model's name; or the path of an fp32 engine for backend onnxruntime (`.onnx` with its manifest), from which
        an engine of another backend or precision is made. With a path, no option that decides the graph may be given.
    checkpoint: file of the weights; None for those in the package or downloaded ones.
    second_file: file of the weights that the checkpoint lacks, for models in two files; None for a downloaded one.
    sha256: required hex digest of the network's tensors in all files, as `matchrt diagnose --json` or a manifest states
        it; None to accept any weights.
    height, width: size of the engine's input in pixels; None for that of the preset or the model.
    batch: number of pairs that one run of the engine matches; `Matcher` takes engines of batch 1.
    any_batch: whether a run takes any number of pairs from 1 to `batch`; `Matcher` takes such engines too.
    max_matches: number of match slots of the engine.
    threshold: smallest confidence (0..1) of a match; None for the model's own.
    mutual: whether only mutual nearest cells match (dense models: whether both directions are matched); None for the
        preset's or the model's own rule.
    profile: the sizes of a dynamic engine; None for a static one.
    frames: the frames that the engine takes in place of images of its own size, and resizes itself; None for images.
    preset: name of one of the family's presets, whose settings hold unless another option sets them; None for the
        default.
    dense: whether the engine returns the family's dense outputs too.
    family_options: options that only the model's family has, by name: the `options` of its `FamilyDefinition`.
    backend: name of the backend that the engine is for.
    precision: `fp32`, `fp16`, `int8` or `fp8`.
    calibration: how int8 and fp8 get their ranges.
    pairs: pairs of images to judge the precision on, besides made ones and the package's photographs: a list of pairs,
        an evaluation folder or a folder of images; None for none.
    builder: options of the backend's builder.
    allow_missing: patterns of network tensors that the checkpoint may lack; they stay untrained.
    output: file that a copy of the engine is written to; None to leave it in the store only.
    rebuild: whether to build even if the store has the engine.
    accept_accuracy_loss: whether to build even if the precision loses more matches than its limits allow.
    check_passes: whether matches are compared before and after every graph pass, which takes longer.
    split: whether the engine's two parts are built beside it: the features of one image, and the matching of two.
    prefix: what precedes the network's keys in the checkpoint, such as `student.`; None to find it.
    ema: whether to take the running average of the weights (EMA, SWA) that training code keeps beside them.
    """

    model: str
    checkpoint: Path | None = None
    second_file: Path | None = None
    sha256: str | None = None
    height: int | None = None
    width: int | None = None
    batch: int = 1
    any_batch: bool = False
    max_matches: int = 2048
    threshold: float | None = None
    mutual: bool | None = None
    profile: Profile | None = None
    frames: FrameContract | None = None
    preset: str | None = None
    dense: bool = False
    family_options: Mapping[str, object] = field(default_factory=dict, hash=False)
    backend: str = DEFAULT_BACKEND
    precision: str = "fp32"
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    pairs: Path | None = None
    builder: BuilderOptions = field(default_factory=BuilderOptions)
    allow_missing: tuple[str, ...] = ()
    output: Path | None = None
    rebuild: bool = False
    accept_accuracy_loss: bool = False
    check_passes: bool = False
    split: bool = False
    prefix: str | None = None
    ema: bool = False

    def __post_init__(self) -> None:
        # A plain dict of its own: a mapping proxy could be neither pickled nor taken by `dataclasses.asdict`.
        object.__setattr__(self, "family_options", dict(self.family_options))


@dataclass(frozen=True)
class BuildResult:
    """The result of a build.

    path: the engine file.
    manifest: the engine's manifest.
    weights: the account of the weights in one line; None if the engine was made from an ONNX engine, because the
        weights were accounted for when that was built.
    notes: sentences about what else the checkpoint holds than the network, such as a running average.
    cached: whether the engine was in the store already.
    seconds: the time of each stage in seconds; stages whose result came from the store are left out.
    downloaded: the files of weights that nobody named, and that were found among the store's downloaded ones.
    parts: the engine's two parts, if they were asked for; they are in a folder beside the engine.
    """

    path: Path
    manifest: EngineManifest
    weights: str | None
    cached: bool
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    downloaded: tuple[Path, ...] = ()
    parts: SplitManifest | None = None


def file_name(manifest: EngineManifest, suffix: str) -> str:
    """The name of an engine's file, such as `loftr-lite-480x640-fp16.engine`. suffix: with its dot."""
    contract = manifest.input
    size = "dynamic" if contract.profile is not None else f"{contract.height}x{contract.width}"
    if contract.batch > 1:
        size += f"-b1-{contract.batch}" if contract.any_batch else f"-b{contract.batch}"
    size += "" if contract.frames is None else f"-{contract.frames.name}"
    return f"{manifest.model}-{size}-{manifest.precision}{suffix}"
