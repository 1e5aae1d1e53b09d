"""Which products are quantised in each family, and why the others are not. Measured: docs/quantization.md."""

from __future__ import annotations

from matchrt.errors import MatchRTError
from matchrt.export.precision.rules import Nodes
from matchrt.export.quantization.rules import QuantRule, QuantRules

_STEM = "reads the image itself: symmetric int8 would take a bit of its 8, for 1 % of the arithmetic"
_FIRST_STAGE = (
    "values end at 15 with a median of 0.15: half of them would be 0 or 1 of signed int8's 127 steps, which costs more "
    "matches than all the rest; unsigned steps are half as wide, and there it stands"
)
_CONVOLUTION = "most of the arithmetic; features behind a Relu or a sum, of one scale"
_LINEAR = "features times weights; what surrounds it stays in floating point"
_ATTENTION = "products of two activations: errors of both meet, and a sum over all cells follows"
_SIMILARITY = "an exponent: the temperature multiplies its rounding by 10, and near-equal scores must keep their order"
_MASKS = "products of zeros and ones, of no weights; where the engine is told which part of an image is padding"
_COORDINATES = "the sub-pixel result itself"

_SOFTMAX = (
    "softmax and exponentials",
    "differences of a hundredth decide, and 8 bits end at 1/255 of the largest value",
)
_NORM = ("norms", "means and variances over channels whose outliers 8 bits cannot hold")
_POSITIONS = ("positions and cell numbers", "integers in the thousands")

LOFTR = QuantRules(
    "loftr",
    (
        QuantRule("stem", False, _STEM, (Nodes(("backbone.conv1",), ("Conv",)),)),
        QuantRule("first-stage", True, _FIRST_STAGE, (Nodes(("backbone.layer1.**",), ("Conv",)),), unsigned_only=True),
        QuantRule(
            "coarse-features",
            True,
            "the features that all matching rests on, behind one 1 x 1 convolution at an eighth of the size: hardly "
            "any arithmetic, and the next most costly in matches; unsigned as above",
            (Nodes(("backbone.layer3_outconv",), ("Conv",)),),
            unsigned_only=True,
        ),
        QuantRule("convolution", True, _CONVOLUTION, (Nodes(("backbone.**",), ("Conv",)),)),
        QuantRule(
            "linear",
            True,
            _LINEAR,
            (Nodes(("loftr_coarse.layers.**", "loftr_fine.layers.**", "fine_preprocess.*"), ("MatMul", "Gemm")),),
        ),
        QuantRule("similarity", False, _SIMILARITY, (Nodes(("coarse_matching",), ("MatMul",)),)),
        QuantRule("masks", False, _MASKS, (Nodes(("network",), ("MatMul",)),)),
        QuantRule("soft-argmax", False, _COORDINATES, (Nodes(("fine_matching",), ("MatMul",)),)),
    ),
    (("attention", _ATTENTION), _SOFTMAX, _NORM, _POSITIONS),
)

ELOFTR = QuantRules(
    "eloftr",
    (
        QuantRule("stem", False, _STEM, (Nodes(("backbone.layer0**",), ("Conv",)),)),
        QuantRule("convolution", True, _CONVOLUTION, (Nodes(("backbone.**", "fine_preprocess.**"), ("Conv",)),)),
        QuantRule("linear", True, _LINEAR, (Nodes(("loftr_coarse.layers.**",), ("MatMul", "Gemm")),)),
        QuantRule("similarity", False, _SIMILARITY, (Nodes(("coarse_matching",), ("MatMul",)),)),
        QuantRule("masks", False, _MASKS, (Nodes(("network",), ("MatMul",)),)),
        QuantRule("windows", False, "interpolation with exact weights", (Nodes(("fine_windows",), ("MatMul",)),)),
        QuantRule("fine-matching", False, _COORDINATES, (Nodes(("fine_matching",), ("MatMul",)),)),
    ),
    (("attention", _ATTENTION), _SOFTMAX, _NORM, _POSITIONS),
)

ROMA = QuantRules(
    "roma",
    (
        QuantRule("stem", False, _STEM, (Nodes(("encoder.cnn.layers.0", "dinov2.patch_embed.proj"), ("Conv",)),)),
        QuantRule("convolution", True, _CONVOLUTION, (Nodes(("encoder.cnn.**", "decoder.proj.**"), ("Conv",)),)),
        QuantRule(
            "linear",
            True,
            _LINEAR,
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
        QuantRule("flow", False, _COORDINATES, (Nodes(("decoder.conv_refiner.*.out_conv",), ("Conv",)),)),
        QuantRule(
            "refiner-blocks",
            True,
            "most of the decoder's arithmetic",
            (Nodes(("decoder.conv_refiner.*.hidden_blocks.**",), ("Conv",)),),
        ),
        QuantRule("correlation", False, _SIMILARITY, (Nodes(("decoder.conv_refiner.*.**",), ("MatMul",)),)),
        QuantRule(
            "rest",
            False,
            "positions and samples",
            (Nodes(("network", "graph", "dinov2", "decoder"), ("MatMul", "Gemm", "Conv")),),
        ),
    ),
    (("attention", _ATTENTION), _SOFTMAX, _NORM, _POSITIONS),
)

RULES = {rules.family: rules for rules in (LOFTR, ELOFTR, ROMA)}


def quant_rules(family: str) -> QuantRules:
    """The family's rules. Error: `precision-family`; nothing is quantised without rules."""
    if family not in RULES:
        raise MatchRTError(
            "precision-family",
            f"There are no int8 rules for the family '{family}'.",
            f"Build with --precision fp32; int8 is known for {', '.join(RULES)}.",
        )
    return RULES[family]
