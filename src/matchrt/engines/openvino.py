"""The backend `openvino`. It runs the engines of ONNX Runtime on CPUs, often faster, so there is nothing to build."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn

from matchrt.errors import missing_package
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backend import Backend, no_builder

if TYPE_CHECKING:
    from matchrt.runtime.engine_file import EngineFile
    from matchrt.runtime.session import Device, Session, SessionOptions


class OpenVinoBackend(Backend):
    """OpenVINO on the CPU. It takes ONNX engines as they are, and compiles them for the processor when loading."""

    name = "openvino"
    title = "OpenVINO"
    suffix = ".onnx"
    extra = "openvino"
    distributions = ("openvino",)
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    host_memory = True
    onnx_engines = True
    builds = False

    def builder(self, options: BuilderOptions) -> NoReturn:
        """Raises an error, because OpenVINO runs the engines of another backend. Error: backend-unknown."""
        raise no_builder(self.name)

    def open(self, engine: EngineFile, options: SessionOptions) -> Session:
        """Compiles an ONNX engine for this processor. Errors: package-missing, engine-rejected, engine-graph."""
        try:
            from matchrt.runtime.openvino import OpenVinoSession
        except ModuleNotFoundError as error:
            raise missing_package(str(error.name), "openvino", f"Backend {self.name}") from error
        return OpenVinoSession(engine, options)
