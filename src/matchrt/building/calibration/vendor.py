"""Asks the vendor's builder, with small products, whether it builds 8-bit products at all.

A refusal of the whole network comes after minutes: behind the export, the calibration and the judgement. Its usual
reasons, the operator, the 8-bit type, the version and the targets, show with a product of a few kilobytes as well. That
takes about 0.2 s for each product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matchrt._util.packages import packages_for
from matchrt.building.calibration.style import style_for
from matchrt.errors import InternalError, MatchRTError
from matchrt.export.precision import QUANTIZED
from matchrt.runtime.backend import Builder, get_backend

if TYPE_CHECKING:
    from matchrt.export.quantization.single import ProductKind


def require_built_products(precision: str, builder: Builder, targets: Sequence[str]) -> None:
    """Builds one product of matrices, and where the style quantizes them one convolution, as `quantize` writes them.

    Nothing is asked for fp32 and fp16, and of backends whose engines are ONNX graphs, which are not compiled.
    precision: what is to be built. builder: of the backend, with the user's options.
    targets: compute capabilities that the engine is for, such as `8.9`, for the message; empty without --target.
    Errors: precision-refused, which names operator, precision, version and targets; device-missing, package-missing.
    """
    backend = get_backend(builder.name)
    if precision not in QUANTIZED or backend.onnx_engines:
        return
    with packages_for(f"Building {precision} engines"):
        from matchrt.export.quantization.single import single_product

    style = style_for(precision, builder.name, builder.version)
    for kind in _asked(style.convolutions):
        graph = single_product(kind, style.activations).SerializeToString()
        try:
            builder.build(graph, None, lambda what, done: None)
        except InternalError as error:
            raise _refused(kind, precision, builder, targets, error) from error


def _asked(convolutions: bool) -> list[ProductKind]:
    """A MatMul as in transformers, and if `convolutions` a 3x3 Conv. Kernels ask for channels in multiples of 32."""
    from matchrt.export.quantization.single import ProductKind

    products = [ProductKind.plain("MatMul", (1, 64, 64), (64, 64))]
    return products + ([ProductKind.plain("Conv", (1, 32, 16, 16), (32, 32, 3, 3))] if convolutions else [])


def _refused(
    kind: ProductKind, precision: str, builder: Builder, targets: Sequence[str], error: MatchRTError
) -> MatchRTError:
    backend = get_backend(builder.name)
    where = f" for {', '.join('sm' + target.replace('.', '') for target in targets)}" if targets else ""
    others = ", choose other GPUs with --target" if backend.lowest_target is not None else ""
    return MatchRTError(
        "precision-refused",
        f"{backend.title} {builder.version} does not build {kind.op_type} in {precision}{where}; asked with a small "
        f"product before anything else was done. It says: {error.message}",
        f"Build with --precision fp16{others}, or install another version of {backend.title}.",
    )
