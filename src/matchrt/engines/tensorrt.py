"""The backends `tensorrt` and `tensorrt_rtx`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from matchrt.nvidia.common import AMPERE
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.nvidia.modules import BACKENDS as EXTRAS
from matchrt.nvidia.modules import open_dialect
from matchrt.runtime.backend import Backend, TritonPlatform

if TYPE_CHECKING:
    from matchrt.engines.tensorrt_builder import TensorRTBuilder
    from matchrt.runtime.engine_file import EngineFile
    from matchrt.runtime.session import Device, Session, SessionOptions


class _TensorRT(Backend):
    """What both backends have in common. Differences between their modules are in `matchrt.nvidia.dialect`."""

    suffix = ".engine"  # the same for both; the manifest tells their engines apart
    devices: ClassVar[tuple[Device, ...]] = ("cuda",)
    cuda_graphs = True

    def builder(self, options: BuilderOptions) -> TensorRTBuilder:
        """The builder with its options. All errors are raised here, before the export, so that no work is lost.

        Errors: build-option, package-missing, package-version, device-missing.
        """
        from matchrt.engines.tensorrt_builder import TensorRTBuilder

        dialect = open_dialect(self.name)
        dialect.check_options(options)
        builder = TensorRTBuilder(dialect, options)
        builder.require_gpu()
        return builder

    def open(self, engine: EngineFile, options: SessionOptions) -> Session:
        """Opens a session. Errors: those of `matchrt.runtime.gpu.loaded.LoadedEngine`."""
        from matchrt.runtime.gpu.session import TensorRTSession

        return TensorRTSession(engine, options)

    def version(self) -> str | None:
        """The version of the installed module. Errors: package-missing, package-version."""
        return open_dialect(self.name).version

    def quantization(self, precision: str, version: str | None = None) -> str:
        """The name of the placement of Q/DQ nodes. int8: products and convolutions; fp8: only products of matrices."""
        del version
        return "tensorrt-fp8" if precision == "fp8" else "tensorrt"

    def advice(self, precision: str, version: str | None = None) -> str | None:
        """What is experimental."""
        del version
        if precision == "fp8":
            return "fp8 is experimental: only products of matrices are fp8, and convolutions stay in fp16."
        return None


class TensorRTBackend(_TensorRT):
    """Full TensorRT. It builds on the GPU that the engine is for."""

    name = "tensorrt"
    title = "TensorRT"
    extra = EXTRAS[name]
    distributions = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
    builds_on_gpu = True
    triton = TritonPlatform("tensorrt", "model.plan")


class TensorRTRTXBackend(_TensorRT):
    """TensorRT for RTX. It builds on any machine, for a list of GPUs. Triton has no platform for its engines."""

    name = "tensorrt_rtx"
    title = "TensorRT-RTX"
    extra = EXTRAS[name]
    distributions = ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx", "tensorrt_rtx")
    lowest_target = AMPERE

    def quantization(self, precision: str, version: str | None = None) -> str:
        """As for full TensorRT; versions that cannot build int8 convolutions get products of matrices only."""
        from matchrt.export.quantization.styles import matrices_only

        if precision == "int8" and matrices_only(version):
            return "tensorrt-matrices"
        return super().quantization(precision)

    def advice(self, precision: str, version: str | None = None) -> str | None:
        """As for full TensorRT, and what its versions do with int8."""
        from matchrt.export.quantization.styles import matrices_only

        if precision != "int8":
            return super().advice(precision)
        if matrices_only(version):
            return (
                f"TensorRT-RTX {version} stops at int8 convolutions: only products of matrices will be int8, and these "
                "build only on a machine with a GPU. Use --precision fp16, a later TensorRT-RTX (1.7.1 builds int8 "
                "convolutions), or --backend tensorrt."
            )
        return (
            "TensorRT-RTX builds this int8 graph, but its support matrix (1.0 to 1.5) lists int8 only for weights of "
            "matrix products. int8 convolutions and activations may be slower than fp16 there. Measure with `matchrt "
            "bench`; otherwise use --precision fp16, fp8 from compute capability 8.9 on, or --backend tensorrt."
        )
