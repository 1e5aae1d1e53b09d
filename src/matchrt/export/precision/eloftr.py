"""Rules of the EfficientLoFTR family: `eloftr*`, `matchanything-eloftr`. What was measured: docs/models/eloftr.md."""

from __future__ import annotations

from matchrt.export.precision.rules import Nodes, PrecisionRules, Rule

_LAYERS = ("loftr_coarse.layers.*",)

_IMAGE = Rule(
    "image",
    "fp32",
    "bytes / 255, rounded once where the first convolution takes them: one kernel either way",
    (Nodes(("graph",), ("Cast", "Div")),),
)
_PADDING = Rule(
    "padding",
    "fp32",
    "cell numbers and interpolation weights of the valid part, a few hundred numbers; all that leaves it, fp16 has",
    (Nodes(("loftr_coarse",), ("Cast", "Div", "Floor", "Sub", "Min", "Abs", "Clip")),
     Nodes(("loftr_coarse",), ("Mul",), operands=("loftr_coarse/Cast_*",))),
)  # fmt: skip
_ATTENTION = Rule(
    "attention",
    "fp16",
    "sums over 16 cells and softmax over the 1/32 grid, of queries that are scaled beforehand",
    (Nodes((*_LAYERS, *(f"{module}.mlp.*" for module in _LAYERS), "loftr_coarse")),),
)
_NORMS = Rule(
    "norm",
    "fp16",
    "ONNX computes mean and variance of LayerNormalization in fp32 (stash_type 1) whatever its inputs are",
    (Nodes(tuple(f"{module}.norm*" for module in _LAYERS), ("LayerNormalization",)),),
)
_COARSE = Rule(
    "coarse-matching",
    "fp32",
    "an exponent, whose rounding the temperature multiplies by 10; sums of exponentials; near-equal scores to order",
    (Nodes(("coarse_matching",)),),
)
_WINDOWS = Rule(
    "windows",
    "fp16",
    "interpolation between four neighbours with weights that fp16 has exactly",
    (Nodes(("fine_windows",), ("MatMul",)),),
)
_FINE = Rule(
    "fine-matching",
    "fp32",
    "one pair of 4096 pixels whose confidences, 1/6400 on average, hardly differ: with the products in fp16, as "
    "the authors run them on GPUs, 8 in 100 matches of untrained weights moved; with all in fp32, 2 in 100",
    (Nodes(("fine_matching",)),),
)
_COORDINATES = Rule(
    "selection-and-coordinates",
    "fp32",
    "order of scores, cell numbers and pixels: fp16 has every whole number up to 2048 only",
    (Nodes(("network", "fine_windows")),),
)
_CONVOLUTION = Rule(
    "convolution",
    "fp16",
    "tensor cores, and nine tenths of the arithmetic",
    (Nodes(("backbone", "backbone.**", "fine_preprocess", "fine_preprocess.**")),),
)
_SCALE = Rule(
    "scale",
    "fp16",
    "coarse features / 16 where the pyramid takes them: a power of two",
    (Nodes(("network",), ("Mul",), operands=("loftr_coarse/*", "loftr_coarse.**")),),
)

ELOFTR = PrecisionRules(
    "eloftr",
    (
        *(_IMAGE, _PADDING, _ATTENTION, _NORMS, _COARSE, _WINDOWS, _FINE),
        *(_SCALE, _COORDINATES, _CONVOLUTION),
    ),
)
