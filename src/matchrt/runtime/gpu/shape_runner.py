"""An engine made ready for inputs of one shape: its context, where its tensors are, and its CUDA graph."""

from __future__ import annotations

from typing import Any

from matchrt.errors import InternalError
from matchrt.manifest import EngineManifest
from matchrt.runtime.engine_checks import require_known_shapes
from matchrt.runtime.gpu.layout import Layout, Shapes, lay_out
from matchrt.runtime.gpu.loaded import LoadedEngine
from matchrt.runtime.gpu.memory import DeviceMemory


class ShapeRunner:
    """One context for one set of input shapes. A CUDA graph belongs to a context, so each shape has its own.

    shapes: of each input, by name. Errors: out-of-memory, session-failed, engine-graph (shapes of outputs depend on
        data).
    """

    def __init__(self, engine: LoadedEngine, shapes: Shapes) -> None:
        # Assigned before the engine, so that it is freed before its kernels and its engine.
        self.context: Any
        self.context, self._kernels = engine.make_context(shapes)
        self._kept = False
        self.engine = engine
        self.shapes = shapes
        manifest = engine.manifest
        for spec in manifest.inputs:
            if not self.context.set_input_shape(spec.name, shapes[spec.name]):
                raise InternalError(
                    "session-failed",
                    f"The engine does not take {spec.name} of {list(shapes[spec.name])}: {engine.why()}.",
                    "Report this, with the manifest.",
                )
        self.inputs: Layout = lay_out(manifest.inputs, shapes)
        self.outputs: Layout = lay_out(manifest.outputs, self._output_shapes(manifest))
        self.scratch_bytes = self._scratch_bytes(manifest)

    def place(self, scratch: DeviceMemory, inputs: int, outputs: int) -> None:
        """Tells the context where its scratch memory and its tensors are. Error: session-failed.

        inputs, outputs: addresses of the two blocks on the GPU.
        """
        self.context.set_device_memory(scratch.pointer, scratch.size)
        for layout, base in ((self.inputs, inputs), (self.outputs, outputs)):
            for place in layout.places:
                if not self.context.set_tensor_address(place.name, base + place.offset):
                    raise InternalError(
                        "session-failed",
                        f"TensorRT refuses the address of {place.name}: {self.engine.why()}.",
                        "Report this, with the manifest.",
                    )

    def enqueue(self, stream: int) -> None:
        """Puts the engine's kernels into a stream. The first time, kernels that are not known are compiled.

        stream: its address. Error: session-failed.
        """
        if not self.context.execute_async_v3(stream):
            raise InternalError(
                "session-failed", f"The engine did not run: {self.engine.why()}.", "Report this, with the image sizes."
            )
        if not self._kept:
            self._kept = True
            self.engine.keep_kernels(self.shapes, self._kernels)

    def _scratch_bytes(self, manifest: EngineManifest) -> int:
        """The scratch memory for these shapes; an engine of many shapes needs far less than for its largest."""
        most = int(self.engine.engine.device_memory_size_v2)
        sides = (side for spec in manifest.inputs for side in spec.shape)
        if all(isinstance(side, int) for side in sides):
            return most
        return int(self.context.update_device_memory_size_for_shapes()) or most

    def _output_shapes(self, manifest: EngineManifest) -> Shapes:
        unknown = self.context.infer_shapes()
        shapes = {spec.name: tuple(self.context.get_tensor_shape(spec.name)) for spec in manifest.outputs}
        require_known_shapes(shapes, not unknown)
        return shapes
