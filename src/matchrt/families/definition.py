"""The definition of a family of networks: everything that matchrt knows about it, in one frozen object.

Each family has its own file, which makes its `FamilyDefinition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from matchrt.families.base import Family, Preprocess
from matchrt.families.keymap import KeyMap
from matchrt.families.published import PublishedFile
from matchrt.families.rules import PrecisionRules, QuantRules
from matchrt.families.second_file import SecondFile

# For whom a model is. `speed`: for those who need matches in milliseconds, or have no GPU.
Use = Literal["outdoor", "indoor", "cross-modal", "thermal", "speed"]


@dataclass(frozen=True)
class ModelSpec:
    """One model, which is a variant of a family.

    name: the name that users give; unique among all families.
    family: the network with this variant's configuration.
    key_map: the rules from the checkpoint's keys to the network's.
    preprocess: how images become the network's input.
    height, width: default input size in pixels.
    licence: the licence of the published weights in a few words; `published` has each file's own.
    origin: where to get the weights.
    description: one line for `matchrt models`.
    weights: file of the packaged weights, relative to `matchrt/assets`; None if the user brings the checkpoint.
    default_score: confidence (0..1) from which matches are mostly right, if that is above the threshold that engines
        are built with.
    published: the files that hold these weights, each of them all; `matchrt download` takes the first.
    unless_published: what to know of a checkpoint that is none of these files, byte by byte; empty if there is nothing.
    suits: for which images or purposes it is, the main one first.
    presets: named settings of this model, of which the first is the default; empty for those of the family.
    int8: which products are quantized; None for the family's rules.
    """

    name: str
    family: Family
    key_map: KeyMap
    preprocess: Preprocess
    height: int
    width: int
    licence: str
    origin: str
    description: str
    weights: str | None = None
    default_score: float = 0.0
    published: tuple[PublishedFile, ...] = ()
    unless_published: str = ""
    suits: tuple[Use, ...] = ()
    presets: tuple[Preset, ...] = ()
    int8: QuantRules | None = None


@dataclass(frozen=True)
class Preset:
    """Settings of a build under one name. Each setting holds unless the request sets it otherwise.

    name: the name that `--preset` takes.
    size: (height, width) of the input in pixels.
    mutual: as `--mutual`; it holds only if the request names the preset.
    description: one line for the documentation.
    options: values of the family's own options, by name (`FamilyDefinition.options`).
    """

    name: str
    size: tuple[int, int]
    mutual: bool
    description: str
    options: Mapping[str, object] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))


@dataclass(frozen=True)
class FamilyDefinition:
    """A family of networks.

    name: the name that manifests state.
    title: the name as people write it.
    models: the variants of the family.
    fp16: which nodes compute in fp16; None if there are no fp16 engines.
    int8: which products are quantized; None if there are no int8 engines.
    presets: named settings of models that have none of their own, of which the first is the default; empty if the
        models' own size is the default.
    options: names that `BuildRequest.family_options` may have for this family; `Family.with_options` interprets them.
    dense: whether engines have the dense outputs on request (`manifest.DENSE_OUTPUTS`, and RoMa v2 its precision).
    second_file: the file of weights that the checkpoints lack; None if the checkpoint holds all.
    float32_because: why products must be float32, as the end of the message that refuses TF32; None if TF32 is
        tolerated.
    flax: whether `matchrt.flax` has the family's network.
    """

    name: str
    title: str
    models: tuple[ModelSpec, ...]
    fp16: PrecisionRules | None = None
    int8: QuantRules | None = None
    presets: tuple[Preset, ...] = ()
    options: tuple[str, ...] = ()
    dense: bool = False
    second_file: SecondFile | None = None
    float32_because: str | None = None
    flax: bool = False

    @property
    def tf32(self) -> bool:
        """Whether the network tolerates products in TF32."""
        return self.float32_because is None
