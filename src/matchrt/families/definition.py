"""What matchrt knows of a family of networks, in one frozen object; one file a family defines its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from matchrt.families.base import Family, Preprocess
from matchrt.families.keymap import KeyMap
from matchrt.families.rules import PrecisionRules, QuantRules
from matchrt.families.second_file import SecondFile


@dataclass(frozen=True)
class ModelSpec:
    """One model variant.

    name: what users call it; unique among all families.
    family: the network with this variant's configuration.
    key_map: from the checkpoint's keys to the network's.
    preprocess: how images become its input.
    height, width: default input size in pixels.
    licence: of the published weights. origin: where to get them. description: one line for `matchrt models`.
    weights: file that the packaged model uses, relative to `matchrt/assets`; None where the user brings the checkpoint.
    default_score: confidence from which matches are mostly right, where that is above the threshold that engines are
        built with.
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


@dataclass(frozen=True)
class Preset:
    """Settings of a build under one name.

    size: (height, width) of the input. mutual: as `--mutual`, where nothing else is said. description: for docs.
    options: values of the family's own options (`FamilyDefinition.options`), where nothing else is said.
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

    name: as manifests state it. title: as people write it.
    models: its variants.
    fp16: which nodes compute in fp16; None: no fp16 engines. int8: which products are quantised; None: no int8 engines.
    presets: settings by name, the first one is the default; empty: the models' own size is the default.
    options: names of what `BuildRequest.family_options` may hold for it; `Family.arranged` interprets them.
    dense: names of the outputs that engines have on request; empty: there are none.
    second_file: weights that its checkpoints lack; None: one file holds all.
    float32_because: why products must be float32, for the message that refuses TF32; None: TF32 is tolerated.
    flax: whether `matchrt.flax` has its network.
    """

    name: str
    title: str
    models: tuple[ModelSpec, ...]
    fp16: PrecisionRules | None = None
    int8: QuantRules | None = None
    presets: tuple[Preset, ...] = ()
    options: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    second_file: SecondFile | None = None
    float32_because: str | None = None
    flax: bool = False

    @property
    def tf32(self) -> bool:
        """Whether the network stands products in TF32."""
        return self.float32_because is None
