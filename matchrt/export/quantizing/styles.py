"""How the runtimes want their Q/DQ: one placement for every TensorRT, one for ONNX Runtime's CPU kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["int8", "uint8", "fp8"]


@dataclass(frozen=True)
class QuantStyle:
    """activations: their type; int8 and fp8 are symmetric, uint8 has a zero point.

    results: results of convolutions are quantised too, and what stands between two of them (Relu, Add, Resize).
    bias: biases become int32, in units of input scale times weight scale.
    rest: type of all that is not quantised.
    """

    name: str
    activations: Kind
    results: bool
    bias: bool
    rest: Literal["fp16", "fp32"]


# TensorRT 10, 11 and RTX: symmetric, biases in floating point; the builder fuses Q/DQ with what is around.
TENSORRT = QuantStyle("tensorrt", "int8", results=False, bias=False, rest="fp16")
# FP8 (e4m3) for products of matrices; TensorRT only.
TENSORRT_FP8 = QuantStyle("tensorrt-fp8", "fp8", results=False, bias=False, rest="fp16")
# ONNX Runtime has 8-bit convolutions only where inputs, result and bias are quantised; a Relu vanishes into the lower
# end of an unsigned range. On x86 its unsigned kernels are the fast ones.
ONNXRUNTIME = QuantStyle("onnxruntime", "uint8", results=True, bias=True, rest="fp32")


def style_for(precision: str, flavor: str) -> QuantStyle:
    """The placement that a flavour wants for `int8` or `fp8`."""
    if flavor == "onnxruntime":
        return ONNXRUNTIME
    return TENSORRT_FP8 if precision == "fp8" else TENSORRT
