"""All that matchrt has to know of the toy network."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from matchrt.families.base import GridFamily, Preprocess
from matchrt.families.definition import FamilyDefinition, ModelSpec
from matchrt.families.keymap import Keep, KeyMap
from matchrt.families.rules import Nodes, PrecisionRules, QuantRule, QuantRules, Rule

from .network import Toy, ToyConfig


@dataclass(frozen=True)
class ToyFamily(GridFamily):
    config: ToyConfig = field(default_factory=ToyConfig)
    name: str = "toy"

    def create(self) -> nn.Module:
        return Toy(self.config)


KEYS = KeyMap((Keep("stem.*"), Keep("body.*"), Keep("norm.*")))
FP16 = PrecisionRules(
    "toy",
    (
        Rule("features", "fp16", "tensor cores", (Nodes(("stem", "body", "norm")),)),
        Rule("rest", "fp32", "scores and cell numbers", (Nodes(("**",)),)),
    ),
)
INT8 = QuantRules(
    "toy",
    (
        QuantRule("stem", False, "reads the image", (Nodes(("stem",), ("Conv",)),)),
        QuantRule("body", True, "most of the arithmetic", (Nodes(("body",), ("Conv",)),)),
        QuantRule("rest", False, "similarity and masks", (Nodes(("coarse_matching", "network"), ("MatMul",)),)),
    ),
)
MODEL = ModelSpec(
    "toy-8", ToyFamily(), KEYS, Preprocess(channels=1, divisor=8), 128, 160, "MIT", "the tests", "two convolutions"
)
TOY = FamilyDefinition("toy", "Toy", (MODEL,), FP16, INT8)
