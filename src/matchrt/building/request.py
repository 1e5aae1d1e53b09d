"""What a build is asked for and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from matchrt.building.calibration.options import CalibrationOptions
from matchrt.manifest import EngineManifest, Profile
from matchrt.nvidia.dialect import BuilderOptions

# Called with the stage that begins and the share of all work done before it.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    model: a model's name, or the path of an fp32 engine for backend onnxruntime (`.onnx` with its manifest) to make an
    engine of another backend or precision from; then nothing that decides the graph may be given. height, width: None
    for the model's default; profile: build a dynamic engine instead. batch: pairs that one run of the engine matches;
    `Matcher` takes engines of batch 1. accept_accuracy_loss: build even where the precision loses more matches than it
    may. calibration: how int8 and fp8 get their ranges.
    sha256: what the digest of all tensors read must be, as `matchrt diagnose --json` or a manifest has it.
    second_file: of models whose checkpoint lacks a part. preset: settings of the model's family that hold where nothing
    else is said. dense: the engine returns the family's dense outputs too. family_options: what only the model's family
    knows, by name: the `options` of its `FamilyDefinition`.
    """

    model: str
    checkpoint: Path | None = None
    second_file: Path | None = None
    sha256: str | None = None
    height: int | None = None
    width: int | None = None
    batch: int = 1
    max_matches: int = 2048
    threshold: float | None = None
    mutual: bool | None = None
    profile: Profile | None = None
    preset: str | None = None
    dense: bool = False
    family_options: Mapping[str, object] = field(default_factory=dict, hash=False)
    backend: str = "onnxruntime"
    precision: str = "fp32"
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    builder: BuilderOptions = field(default_factory=BuilderOptions)
    allow_missing: tuple[str, ...] = ()
    output: Path | None = None
    rebuild: bool = False
    accept_accuracy_loss: bool = False
    check_passes: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "family_options", MappingProxyType(dict(self.family_options)))


@dataclass(frozen=True)
class BuildResult:
    """The engine file, its manifest, the weights' account in one line, and whether it was in the store already.

    weights: None where the engine was made from an ONNX engine, whose weights were accounted for when that was built.
    seconds: by stage; what came from the store is not among them.
    """

    path: Path
    manifest: EngineManifest
    weights: str | None
    cached: bool
    seconds: dict[str, float] = field(default_factory=dict)


def file_name(manifest: EngineManifest, suffix: str) -> str:
    """`loftr-lite-480x640-fp16.engine`."""
    contract = manifest.input
    size = "dynamic" if contract.profile is not None else f"{contract.height}x{contract.width}"
    size += f"-b{contract.batch}" if contract.batch > 1 else ""
    return f"{manifest.model}-{size}-{manifest.precision}{suffix}"
