"""Where each runtime needs Q/DQ pairs: one style for all TensorRT versions, one for ONNX Runtime's CPU kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matchrt.families.rules import Kind


@dataclass(frozen=True)
class QuantStyle:
    """How Q/DQ pairs are placed for one runtime.

    name: the name of the style in the manifest.
    activations: the 8-bit type of activations; int8 and fp8 are symmetric, uint8 has a zero point.
    results: whether results of convolutions are quantized too, and the Relu, Add and Resize between two of them.
    bias: whether biases become int32, in units of input scale times weight scale.
    rest: the type of everything that is not quantized.
    convolutions: whether convolutions are quantized, or products of matrices only.
    """

    name: str
    activations: Kind
    results: bool
    bias: bool
    rest: Literal["fp16", "fp32"]
    convolutions: bool = True


# TensorRT 10, 11 and RTX: symmetric, biases in floating point; the builder fuses Q/DQ with the operators around them.
TENSORRT = QuantStyle("tensorrt", "int8", results=False, bias=False, rest="fp16")
# TensorRT-RTX 1.4 stops at int8 convolutions (cudnn_impl.cpp: float, half, bfloat16 or float8 only); 1.7.1 takes them.
TENSORRT_MATRICES = QuantStyle("tensorrt-matrices", "int8", results=False, bias=False, rest="fp16", convolutions=False)
# FP8 (e4m3) has three bits of mantissa: convolutions in it lose twice as many matches as products of matrices.
TENSORRT_FP8 = QuantStyle("tensorrt-fp8", "fp8", results=False, bias=False, rest="fp16", convolutions=False)
# ONNX Runtime has 8-bit convolutions only where inputs, result and bias are quantised. It removes a Relu where the
# unsigned range begins at 0. On x86 its unsigned kernels are faster than its signed ones.
ONNXRUNTIME = QuantStyle("onnxruntime-cpu", "uint8", results=True, bias=True, rest="fp32")
# By the names that backends use (`Backend.quantization`).
STYLES = {style.name: style for style in (TENSORRT, TENSORRT_MATRICES, TENSORRT_FP8, ONNXRUNTIME)}

# The first version of TensorRT-RTX that was seen to take int8 convolutions.
RTX_CONVOLUTIONS = (1, 7)


def matrices_only(version: str | None) -> bool:
    """Whether this version of TensorRT-RTX takes int8 only for products of matrices; None is the newest version."""
    return version is not None and tuple(int(part) for part in version.split(".")[:2]) < RTX_CONVOLUTIONS
