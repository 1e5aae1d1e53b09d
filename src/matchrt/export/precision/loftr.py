"""Rules of the LoFTR family: `loftr-*`, `coarse-loftr`. What each is worth was measured: docs/precision.md."""

from __future__ import annotations

from matchrt.export.precision.rules import Nodes, PrecisionRules, Rule

_COARSE = ("loftr_coarse.layers.*",)
_FINE = ("loftr_fine.layers.*",)
_NETWORK = ("network",)

_POSITION_CODES = Rule(
    "position-codes",
    "fp32",
    "arguments of sine and cosine reach 256, where fp16 values are 0.125 to 0.25 radians apart",
    (Nodes(_NETWORK, ("Range", "Sin", "Cos")), Nodes(_NETWORK, ("Mul",), operands=("network/Range_*",))),
)
_POSITION_ADD = Rule(
    "position-add",
    "fp16",
    "a sum of two features of order 1",
    (Nodes(_NETWORK, ("Add",), operands=("backbone.**",)),),
)

_ATTENTION = Rule(
    "attention",
    "fp32",
    "sums of thousands of cells: kernels may add fp16 products up in fp16, where the last ones are lost in the sum "
    "(TensorRT-RTX does; on an H100 this rule is the step from 98.1 % to 99.7 % of the matches)",
    (
        Nodes(_COARSE, ("Cast", "Elu", "Mul", "Div", "ReduceSum", "Clip")),
        Nodes(_COARSE, ("Add",), operands=("loftr_coarse.layers.*/Elu_*",)),
        Nodes(
            _COARSE,
            ("MatMul",),
            operands=tuple(f"loftr_coarse.layers.*/{op}_*" for op in ("Div", "ReduceSum", "MatMul")),
        ),
    ),
)
_COARSE_MATCHING = Rule(
    "coarse-matching",
    "fp32",
    "an exponent, whose rounding the temperature multiplies by 10; sums of exponentials; near-equal scores to order",
    (Nodes(("coarse_matching",)),),
)
_MASKS = Rule(
    "masks",
    "fp32",
    "products of zeros and ones, once a run",
    (Nodes(_NETWORK, ("MatMul", "Less")),),
)
_SELECTION = Rule(
    "selection",
    "fp32",
    "thresholds, maxima and order of scores: ties in fp16 would decide by index",
    (
        Nodes(_NETWORK, ("ReduceMax", "ArgMax", "Greater", "TopK", "ConstantOfShape", "Exp")),
        Nodes(_NETWORK, ("Where",), operands=("network/Exp_*",)),
    ),
)
_COORDINATES = Rule(
    "coordinates",
    "fp32",
    "cell numbers and pixels: fp16 has every whole number up to 2048 only",
    (
        Nodes(_NETWORK, ("Cast", "Ceil", "Div", "Floor", "Mul", "Add", "Where")),
        Nodes(("graph",), ("Cast",), operands=("network/Floor_*",)),
    ),
)
_IMAGE = Rule(
    "image",
    "fp32",
    "bytes / 255, rounded once where the first convolution takes them: one kernel either way",
    (Nodes(("graph",), ("Cast", "Div")),),
)

_SOFT_ARGMAX = Rule(
    "soft-argmax",
    "fp32",
    "the expectation over the window is the sub-pixel result; 25 numbers a match",
    (Nodes(("fine_matching",)),),
)
_NORMS = Rule(
    "norm",
    "fp16",
    "ONNX computes mean and variance of LayerNormalization in fp32 (stash_type 1) whatever its inputs are",
    (Nodes((*(f"{module}.norm*" for module in (*_COARSE, *_FINE)),), ("LayerNormalization",)),),
)
_RESIDUAL = Rule(
    "residual",
    "fp16",
    "features of order 1 to 100; one region with the linear layers",
    (Nodes((*_COARSE, *_FINE), ("Add", "Concat")),),
)
_FINE_ATTENTION = Rule(
    "fine-attention",
    "fp16",
    "the same sums over 25 positions only stay small; no cast in the whole fine transformer",
    (Nodes(_FINE),),
)
_CONVOLUTION = Rule(
    "convolution", "fp16", "tensor cores, and most of the arithmetic", (Nodes(("backbone", "backbone.**")),)
)
_LINEAR = Rule(
    "linear",
    "fp16",
    "tensor cores; with the softmax of full attention, which no published weights have",
    (
        Nodes(("loftr_coarse.layers.**", "loftr_fine.layers.**", "fine_preprocess.*"), ("MatMul", "Add", "Relu")),
        Nodes(_COARSE),
    ),
)


LOFTR = PrecisionRules(
    "loftr",
    (
        *(_POSITION_ADD, _POSITION_CODES),
        *(_COARSE_MATCHING, _MASKS, _SELECTION, _COORDINATES, _IMAGE),
        *(_SOFT_ARGMAX, _NORMS, _ATTENTION, _RESIDUAL, _FINE_ATTENTION, _CONVOLUTION, _LINEAR),
    ),
)
