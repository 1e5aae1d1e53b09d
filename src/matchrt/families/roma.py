"""RoMa and MatchAnything-RoMa: one network of two passes, two files of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt.errors import MatchRTError
from matchrt.families import reasons
from matchrt.families.base import Preprocess, configured
from matchrt.families.definition import FamilyDefinition, ModelSpec, Preset
from matchrt.families.dinov2 import DINOV2_FILE
from matchrt.families.keymap import Keep, KeyMap
from matchrt.families.rules import Nodes, PrecisionRules, QuantRule, QuantRules, Rule
from matchrt.manifest import MatchContract
from matchrt.models.roma.config import RoMaConfig, Size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from matchrt.models.parts.engine_graph import EngineGraph

# Patches of 14 pixels, and three halvings: multiples of both.
COARSE_DIVISOR = 56
ROMA_INPUT = Preprocess(
    channels=3,
    divisor=8,
    static="stretch",
    dynamic=None,
    kernel="bicubic",
    coarse=(560, 560),
    coarse_divisor=COARSE_DIVISOR,
)
ROMA_KEYS = KeyMap(
    (
        Keep("encoder.cnn.layers.**"),
        Keep("decoder.embedding_decoder.**"),
        Keep("decoder.gps.16.pos_conv.*"),
        Keep("decoder.proj.**"),
        Keep("decoder.conv_refiner.**"),
    ),
    prefixes=("module.", "_orig_mod.", "matcher.", "model.", "net.", "network."),
)

ROMA = RoMaConfig()
MATCHANYTHING_ROMA = RoMaConfig(imagenet=False, scale_rule="relative")


@dataclass(frozen=True)
class RoMaFamily:
    """See `Family`.

    size: (height, width) of the last pass. coarse: of the first one, None where it is the only pass.
    """

    config: RoMaConfig
    size: Size = (864, 864)
    coarse: Size | None = (560, 560)
    name: str = "roma"

    @property
    def coarse_stride(self) -> int:
        """Of the grid on which most memory is needed: features and local correlations at 1/8."""
        return self.config.refiners[1].scale

    def arranged(self, preset: Mapping[str, object], given: Mapping[str, object]) -> RoMaFamily:
        """coarse: (height, width) of the first pass. single_pass: there is no second one. Errors: preset-size,
        size-syntax."""
        if given.get("single_pass") and given.get("coarse") is not None:
            raise MatchRTError(
                "preset-size",
                "--coarse gives the first of two passes its size; --single-pass leaves one.",
                "Give one of them.",
            )
        if given.get("single_pass"):
            return replace(self, coarse=None)
        coarse = given.get("coarse")
        return replace(self, coarse=_size(preset.get("coarse") if coarse is None else coarse))

    def with_matching(self, threshold: float | None, mutual: bool | None) -> RoMaFamily:
        """mutual: match both ways and join, as the official code does, or image 0 to image 1 only."""
        config = self.config
        if threshold is not None:
            if not 0.0 <= threshold < 1.0:
                raise MatchRTError("threshold-range", f"Threshold {threshold} is outside 0..1.", "Use e.g. 0.05.")
            config = replace(config, threshold=threshold)
        return replace(self, config=config if mutual is None else replace(config, symmetric=mutual))

    def at(self, height: int, width: int) -> RoMaFamily:
        """The position embedding is resampled for the coarse size, the displacements are scaled by both."""
        return replace(self, size=(height, width))

    def create(self) -> nn.Module:
        """See `Family`."""
        from matchrt.models.roma.network import RoMa

        return RoMa(self.config)

    def constants(self) -> Mapping[str, Callable[[tuple[int, ...]], Tensor]]:
        """The files hold none."""
        return {}

    def graph(self, network: nn.Module, max_matches: int, published: bool = False) -> EngineGraph:
        """See `Family`; there is no other form, because position embeddings and sizes are part of the graph."""
        del published
        from matchrt.models.roma.engine_graph import RoMaGraph
        from matchrt.models.roma.network import RoMa

        assert isinstance(network, RoMa)
        return RoMaGraph(network, max_matches, self.size, self.coarse)

    def probing(self, network: nn.Module) -> AbstractContextManager[None]:
        """See `Family`."""
        from matchrt.models.roma.network import RoMa

        assert isinstance(network, RoMa)
        return configured(network, threshold=0.0)

    def match_contract(self, max_matches: int, default_score: float) -> MatchContract:
        """See `Family`. mutual: both directions are matched and joined; nothing is tested for being mutual."""
        config = self.config
        return MatchContract(max_matches, config.threshold, 0, config.symmetric, self.coarse_stride, default_score)


def _size(value: object) -> Size | None:
    """The option `coarse` as (height, width). Error: size-syntax."""
    if value is None:
        return None
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(side, int) for side in value):
        return value[0], value[1]
    raise MatchRTError("size-syntax", f"The option coarse {value!r} is not (height, width).", "Give e.g. (560, 560).")


# Models and presets. docs/models/roma.md has what the presets cost.

_ROMA = "the releases of github.com/Parskatt/RoMa"


def _roma(name: str, network: RoMaConfig, licence: str, origin: str, description: str) -> ModelSpec:
    return ModelSpec(name, RoMaFamily(network), ROMA_KEYS, ROMA_INPUT, 864, 864, licence, origin, description)


ROMA_MODELS = (
    _roma("roma-outdoor", ROMA, "MIT", f"roma_outdoor.pth from {_ROMA}", "RoMa trained on MegaDepth, dense"),
    _roma("roma-indoor", ROMA, "MIT", f"roma_indoor.pth from {_ROMA}", "RoMa trained on ScanNet, dense"),
    _roma(
        "matchanything-roma",
        MATCHANYTHING_ROMA,
        "Apache-2.0",
        "matchanything_roma.ckpt from the authors' weights linked from github.com/zju3dv/MatchAnything",
        "RoMa trained across modalities by MatchAnything, dense",
    ),
)
ROMA_PRESETS = (
    Preset("official", (864, 864), True, "as published: 560 and 864, both ways", {"coarse": (560, 560)}),
    Preset("fast", (560, 560), False, "560 without the upsample pass, image 0 to image 1 only", {"coarse": None}),
    Preset("low-memory", (448, 448), False, "280 and 448, image 0 to image 1 only", {"coarse": (280, 280)}),
)

# fp16. What each rule is worth was measured: docs/models/roma.md.

_REFINER = ("decoder.conv_refiner.*",)
_SAMPLE = ("decoder.conv_refiner.*.sample", "decoder.conv_refiner.*.correlation")

_IMAGE = Rule(
    "image",
    "fp32",
    "bytes / 255 and ImageNet's mean, rounded once where the first convolution takes them",
    (Nodes(("graph",)),),
)
_GAUSSIAN_PROCESS = Rule(
    "gaussian-process",
    "fp32",
    "the kernel matrix has a condition of up to 1e4: with 11 bits no digit of the solution is left; the Fourier "
    "coordinates are cosines of 25 times the weights, many turns",
    (Nodes(("decoder.gps.*", "decoder.gps.*.**")),),
)
_POSITIONS = Rule(
    "positions",
    "fp32",
    "pixel positions up to 864: fp16 values are half a pixel apart there",
    (
        Nodes(("decoder.conv_refiner.*.sample.positions", "decoder.conv_refiner.*.correlation.positions")),
        Nodes(_REFINER, ("Sub", "Mul", "Div", "Add", "Cast")),
    ),
)
_INTERPOLATION = Rule(
    "window-interpolation",
    "fp32",
    "fractions of pixels meet the correlations here; a few values a pixel",
    (Nodes(("decoder.conv_refiner.*.correlation.interpolate",)),),
)
_FLOW = Rule(
    "flow",
    "fp32",
    "the refiners' last layer, the flow and the certainty: what is returned, summed over all scales",
    (Nodes(("decoder.conv_refiner.*.out_conv", "network")),),
)
_REFINER_INPUT = Rule(
    "refiner-input",
    "fp16",
    "features, sampled features, embedded displacement and correlations, all of order 1 to 10, join in one type",
    (Nodes(_REFINER, ("Concat", "Pad")), Nodes(("decoder.conv_refiner.*.disp_emb",))),
)
_SAMPLING = Rule(
    "sampling",
    "fp16",
    "rows of features times weights in 0..1, or times the other image's features divided by sqrt(C): sums of order 10",
    (Nodes(_SAMPLE),),
)
_REFINER_BLOCKS = Rule(
    "refiner-blocks",
    "fp16",
    "tensor cores, and most of the decoder's arithmetic",
    (Nodes(("decoder.conv_refiner.*.block1.**", "decoder.conv_refiner.*.hidden_blocks.**", "decoder.proj.**")),),
)
_MATCH_DECODER = Rule(
    "match-decoder",
    "fp16",
    "as the official code runs it; norms compute in fp32 inside, and of the anchors' logits only differences count",
    (Nodes(("decoder.embedding_decoder", "decoder.embedding_decoder.**")),),
)
_ENCODERS = Rule(
    "encoders",
    "fp16",
    "as the official code runs them; norms compute in fp32 inside",
    (Nodes(("encoder.cnn", "encoder.cnn.**", "dinov2", "dinov2.**")),),
)

ROMA_FP16 = PrecisionRules(
    "roma",
    (
        *(_IMAGE, _GAUSSIAN_PROCESS, _POSITIONS, _INTERPOLATION, _FLOW),
        *(_REFINER_INPUT, _SAMPLING, _REFINER_BLOCKS, _MATCH_DECODER, _ENCODERS),
    ),
)

# int8. Measured: docs/quantization.md.

ROMA_INT8 = QuantRules(
    "roma",
    (
        QuantRule(
            "stem", False, reasons.STEM, (Nodes(("encoder.cnn.layers.0", "dinov2.patch_embed.proj"), ("Conv",)),)
        ),
        QuantRule("convolution", True, reasons.CONVOLUTION, (Nodes(("encoder.cnn.**", "decoder.proj.**"), ("Conv",)),)),
        QuantRule(
            "linear",
            True,
            reasons.LINEAR,
            (
                Nodes(
                    ("dinov2.blocks.**", "decoder.embedding_decoder.blocks.**"),
                    ("MatMul", "Gemm"),
                ),
            ),
        ),
        QuantRule(
            "gaussian-process",
            False,
            "a linear system of condition 1e4, and cosines of many turns: 8 bits leave nothing of the solution",
            (Nodes(("decoder.gps.*", "decoder.gps.*.**"), ("MatMul", "Gemm", "Conv")),),
        ),
        QuantRule(
            "anchors",
            False,
            "the logits of 4096 anchors, of which the largest decides",
            (Nodes(("decoder.embedding_decoder.to_out",), ("MatMul", "Gemm")),),
        ),
        QuantRule(
            "refiner-input",
            False,
            "features, displacements and correlations side by side, of unlike scales in one tensor",
            (Nodes(("decoder.conv_refiner.*.block1.**", "decoder.conv_refiner.*.disp_emb"), ("Conv",)),),
        ),
        QuantRule("flow", False, reasons.COORDINATES, (Nodes(("decoder.conv_refiner.*.out_conv",), ("Conv",)),)),
        QuantRule(
            "refiner-blocks",
            True,
            "most of the decoder's arithmetic",
            (Nodes(("decoder.conv_refiner.*.hidden_blocks.**",), ("Conv",)),),
        ),
        QuantRule("correlation", False, reasons.SIMILARITY, (Nodes(("decoder.conv_refiner.*.**",), ("MatMul",)),)),
        QuantRule(
            "rest",
            False,
            "positions and samples",
            (Nodes(("network", "graph", "dinov2", "decoder"), ("MatMul", "Gemm", "Conv")),),
        ),
    ),
    reasons.FLOAT_PARTS,
)

ROMA_FAMILY = FamilyDefinition(
    "roma",
    "RoMa",
    ROMA_MODELS,
    ROMA_FP16,
    ROMA_INT8,
    presets=ROMA_PRESETS,
    options=("coarse", "single_pass"),
    dense=("warp", "certainty"),
    second_file=DINOV2_FILE,
    # The system's condition is 1e4: with TF32's 11 bits nothing of the solution is left.
    float32_because="solves a linear system that needs float32 products; TF32 leaves no digit of it",
)
