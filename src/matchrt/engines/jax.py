"""The backend `jax`. It runs LoFTR's Flax model from its weights, so there are no engines to build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

from matchrt.errors import MatchRTError, missing_package
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backend import Backend, no_builder

if TYPE_CHECKING:
    from matchrt.runtime.engine_file import EngineFile
    from matchrt.runtime.session import Device, Session, SessionOptions


class JaxBackend(Backend):
    """JAX on the CPU or a GPU. Without a choice of device, JAX takes its own default."""

    name = "jax"
    title = "JAX"
    suffix = ".npz"
    extra = "flax"
    distributions = ("jax",)
    devices: ClassVar[tuple[Device, ...]] = ("cpu", "cuda")
    builds = False
    takes_weights = True

    def builder(self, options: BuilderOptions) -> NoReturn:
        """Raises an error, because nothing is built for JAX. Error: backend-unknown."""
        raise no_builder(self.name)

    def open(self, engine: EngineFile, options: SessionOptions) -> NoReturn:
        """Raises an error, because JAX has no engine files. Error: engine-backend."""
        raise MatchRTError(
            "engine-backend",
            f"'{engine.path}' is for backend {self.name}, which runs weights and not engine files.",
            "Name a bundled model, or a file that `matchrt convert-flax` wrote, with --backend jax.",
        )

    def open_weights(self, source: str | Path, options: SessionOptions) -> Session:
        """Opens a session. source: a bundled model's name, or a file that `matchrt convert-flax` wrote.

        Errors: package-missing, and those of `matchrt.flax.session.open_jax`.
        """
        try:
            from matchrt.flax.session import open_jax
        except ModuleNotFoundError as error:
            raise missing_package(str(error.name), "flax", f"Backend {self.name}") from error
        return open_jax(source, options)
