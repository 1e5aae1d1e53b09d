"""RoMa and MatchAnything-RoMa: one network with two passes and two files of weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from matchrt.families import published_files, reasons
from matchrt.families.base import Preprocess
from matchrt.families.definition import FamilyDefinition, ModelSpec, Preset, Use
from matchrt.families.dense import DenseFamily
from matchrt.families.dinov2 import DINOV2_FILE
from matchrt.families.keymap import Keep, KeyMap
from matchrt.families.published import PublishedFile
from matchrt.families.rules import Nodes, PrecisionRules, QuantRule, QuantRules, Rule
from matchrt.models.roma.config import RoMaConfig, Size

if TYPE_CHECKING:
    from torch import nn

    from matchrt.models.parts.engine_graph import EngineGraph

# The coarse sides are multiples of a patch of 14 pixels and of three halvings.
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
# What GIM's authors do; docs/models/roma.md has the details.
GIM_INPUT = replace(ROMA_INPUT, static="square", kernel="bilinear-aliased", coarse=(672, 672))
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
GIM_ROMA = RoMaConfig(imagenet=False, scale_rule="relative", black=1 / 32)


@dataclass(frozen=True)
class RoMaFamily(DenseFamily):
    """RoMa with one configuration; see `DenseFamily`.

    config: the network's configuration.
    size: (height, width) of the images in the last pass, in pixels.
    coarse: (height, width) of the images in the first pass, in pixels; None if there is only one pass.
    name: the family's name.
    """

    config: RoMaConfig
    size: Size = (864, 864)
    coarse: Size | None = (560, 560)
    name: str = "roma"

    @property
    def coarse_stride(self) -> int:
        """The stride of the grid that needs most memory: features and local correlations at 1/8."""
        return self.config.refiners[1].scale

    def create(self) -> nn.Module:
        """See `Family`."""
        from matchrt.models.roma.network import RoMa

        return RoMa(self.config)

    def graph(self, network: nn.Module, max_matches: int, published: bool = False) -> EngineGraph:
        """See `Family`. There is only one form, because position embeddings and sizes are part of the graph."""
        del published
        from matchrt.models.roma.engine_graph import RoMaGraph
        from matchrt.models.roma.network import RoMa

        assert isinstance(network, RoMa)
        return RoMaGraph(network, max_matches, self.size, self.coarse)


# Models and presets. docs/models/roma.md says what the presets cost.

ROMA_PRESETS = (
    Preset("official", (864, 864), True, "as published: 560 and 864, both ways", {"coarse": (560, 560)}),
    Preset("fast", (560, 560), False, "560 without the upsample pass, image 0 to image 1 only", {"coarse": None}),
    Preset("low-memory", (448, 448), False, "280 and 448, image 0 to image 1 only", {"coarse": (280, 280)}),
)
GIM_PRESETS = (
    Preset("official", (1344, 1344), True, "as published: 672 and 1344, both ways", {"coarse": (672, 672)}),
    Preset("fast", (672, 672), False, "672 without the upsample pass, image 0 to image 1 only", {"coarse": None}),
    Preset("low-memory", (448, 448), False, "280 and 448, image 0 to image 1 only", {"coarse": (280, 280)}),
)
_ROMA = "the release `roma` of github.com/Parskatt/storage"


def _roma(
    name: str,
    network: RoMaConfig,
    licence: str,
    origin: str,
    description: str,
    file: PublishedFile,
    suits: tuple[Use, ...],
) -> ModelSpec:
    return ModelSpec(
        name,
        RoMaFamily(network),
        ROMA_KEYS,
        ROMA_INPUT,
        864,
        864,
        licence,
        origin,
        description,
        published=(file,),
        suits=suits,
    )


ROMA_MODELS = (
    _roma(
        "roma-outdoor",
        ROMA,
        "MIT",
        f"roma_outdoor.pth from {_ROMA}",
        "RoMa trained on MegaDepth, dense",
        published_files.ROMA_OUTDOOR,
        ("outdoor",),
    ),
    _roma(
        "roma-indoor",
        ROMA,
        "unclear: MIT code, trained on ScanNet (non-commercial)",
        f"roma_indoor.pth from {_ROMA}",
        "RoMa trained on ScanNet, dense",
        published_files.ROMA_INDOOR,
        ("indoor",),
    ),
    _roma(
        "matchanything-roma",
        MATCHANYTHING_ROMA,
        "Project Registration License v1.0 since 2026-09-15, Apache-2.0 before",
        "matchanything_roma.ckpt from the authors' weights linked from github.com/zju3dv/MatchAnything",
        "RoMa trained across modalities by MatchAnything, dense",
        published_files.MATCHANYTHING_ROMA,
        ("cross-modal",),
    ),
    _roma(
        "minima-roma",
        ROMA,
        "Apache-2.0",
        "minima_roma.pth from the authors' weights linked from github.com/LSXI7/MINIMA",
        "RoMa trained across modalities by MINIMA, dense",
        published_files.MINIMA_ROMA,
        ("cross-modal",),
    ),
    replace(
        _roma(
            "gim-roma",
            GIM_ROMA,
            "MIT, and by the README for research purposes only",
            "gim_roma_100h.ckpt from the authors' weights linked from github.com/xuelunshen/gim",
            "RoMa trained on videos of the internet by GIM, dense; padded to squares, 672 and 1344",
            published_files.GIM_ROMA,
            ("outdoor", "indoor"),
        ),
        preprocess=GIM_INPUT,
        height=1344,
        width=1344,
        presets=GIM_PRESETS,
    ),
)

# Rules of fp16. Their effect was measured: docs/models/roma.md.

_REFINER = ("decoder.conv_refiner.*",)
_SAMPLE = ("decoder.conv_refiner.*.sample", "decoder.conv_refiner.*.correlation")

_IMAGE = Rule(
    "image",
    "fp32",
    "bytes / 255 and ImageNet's mean, rounded once at the first convolution",
    (Nodes(("graph",)),),
)
_GAUSSIAN_PROCESS = Rule(
    "gaussian-process",
    "fp32",
    "the kernel matrix has a condition number of up to 1e4: with 11 bits no digit of the solution is left; the Fourier "
    "coordinates are cosines of 25 times the weights, which are many turns",
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
    "correlations are weighted by fractions of pixels here, with a few values for each pixel",
    (Nodes(("decoder.conv_refiner.*.correlation.interpolate",)),),
)
_FLOW = Rule(
    "flow",
    "fp32",
    "the flow and the certainty: these are summed over all scales and returned",
    (Nodes(("network",)),),
)
_REFINER_INPUT = Rule(
    "refiner-input",
    "fp16",
    "features, sampled features, embedded displacements and correlations, all of order 1 to 10, are joined in one type",
    (Nodes(_REFINER, ("Concat", "Pad")),),
)
_SAMPLING = Rule(
    "sampling",
    "fp16",
    "features times weights in 0..1, or times the other image's features divided by sqrt(C): sums of order 10",
    (Nodes(_SAMPLE),),
)
_REFINER_BLOCKS = Rule(
    "refiner-blocks",
    "fp16",
    "most of the decoder's arithmetic, on tensor cores",
    (Nodes(("decoder.conv_refiner.*.block1.**", "decoder.conv_refiner.*.hidden_blocks.**", "decoder.proj.**")),),
)
_CORRECTIONS = Rule(
    "corrections",
    "fp16",
    "the refiners' last layer, as the official code runs it: corrections of a few pixels, to a thousandth; in fp32 it "
    "would need a copy of the maps before it, a sixth of the scratch memory",
    (Nodes(("decoder.conv_refiner.*.out_conv",)),),
)
_MATCH_DECODER = Rule(
    "match-decoder",
    "fp16",
    "as the official code runs it; norms compute in fp32 inside, and only differences of the anchors' logits count",
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
        *(_REFINER_INPUT, _SAMPLING, _REFINER_BLOCKS, _CORRECTIONS, _MATCH_DECODER, _ENCODERS),
    ),
)

# Rules of int8. Their effect was measured: docs/quantization.md.

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
                    ("dinov2.blocks.**", "decoder.embedding_decoder.blocks.**", "decoder.proj.**"),
                    ("MatMul", "Gemm"),
                ),
            ),
        ),
        QuantRule(
            "gaussian-process",
            False,
            "a linear system with a condition number of 1e4, and cosines of many turns: with 8 bits, no digit of the "
            "solution is left",
            (Nodes(("decoder.gps.*", "decoder.gps.*.**"), ("MatMul", "Gemm", "Conv")),),
        ),
        QuantRule(
            "anchors",
            False,
            "the logits of 4096 anchors, the largest of which decides",
            (Nodes(("decoder.embedding_decoder.to_out.*",), ("MatMul", "Gemm")),),
        ),
        QuantRule(
            "refiner-input",
            False,
            "features, displacements and correlations side by side, which have different scales in one tensor",
            (Nodes(("decoder.conv_refiner.*.block1.**",), ("Conv",)),),
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
            "positions and sampled features",
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
    dense=True,
    second_file=DINOV2_FILE,
    # The system's condition number is 1e4. With TF32's 11 bits, no digit of the solution is left.
    float32_because="solves a linear system that needs float32 products; TF32 leaves no digit of it",
)
