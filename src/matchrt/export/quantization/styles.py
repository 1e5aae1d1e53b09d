"""How the runtimes want their Q/DQ: one placement for every TensorRT, one for ONNX Runtime's CPU kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["int8", "uint8", "fp8"]


@dataclass(frozen=True)
class QuantStyle:
    """activations: their type; int8 and fp8 are symmetric, uint8 has a zero point.

    results: results of convolutions are quantised too, and what stands between two of them (Relu, Add, Resize).
    bias: biases become int32, in units of input scale times weight scale. rest: type of all that is not quantised.
    convolutions: whether they are quantised, or products of matrices only.
    """

    name: str
    activations: Kind
    results: bool
    bias: bool
    rest: Literal["fp16", "fp32"]
    convolutions: bool = True

    @property
    def unsigned(self) -> bool:
        """Whether activations have a zero point: all 8 bits are for what comes out of a Relu."""
        return self.activations == "uint8"


# TensorRT 10, 11 and RTX: symmetric, biases in floating point; the builder fuses Q/DQ with what is around.
TENSORRT = QuantStyle("tensorrt", "int8", results=False, bias=False, rest="fp16")
# TensorRT-RTX 1.4 stops at int8 convolutions (cudnn_impl.cpp: float, half, bfloat16 or float8 only); 1.7.1 takes them.
TENSORRT_MATRICES = QuantStyle("tensorrt-matrices", "int8", results=False, bias=False, rest="fp16", convolutions=False)
# FP8 (e4m3) has three bits behind the point: convolutions lose twice as many matches with it as products of matrices.
TENSORRT_FP8 = QuantStyle("tensorrt-fp8", "fp8", results=False, bias=False, rest="fp16", convolutions=False)
# ONNX Runtime has 8-bit convolutions only where inputs, result and bias are quantised; a Relu vanishes into the lower
# end of an unsigned range. On x86 its unsigned kernels are the fast ones.
ONNXRUNTIME = QuantStyle("onnxruntime-cpu", "uint8", results=True, bias=True, rest="fp32")
# By the names that backends ask for them by.
STYLES = {style.name: style for style in (TENSORRT, TENSORRT_MATRICES, TENSORRT_FP8, ONNXRUNTIME)}

# The first version of TensorRT-RTX that was seen to take int8 convolutions.
RTX_CONVOLUTIONS = (1, 7)


def matrices_only(version: str | None) -> bool:
    """Whether this TensorRT-RTX takes int8 for products of matrices only."""
    return version is not None and tuple(int(part) for part in version.split(".")[:2]) < RTX_CONVOLUTIONS
