"""What all engines of tests have in common that compute at once, in this process, and keep nothing."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from matchrt.manifest import EngineManifest
from matchrt.runtime.session import Done, Session, SessionMemory


class PlainSession:
    """A session of which only `run` is left to write."""

    asynchronous = False
    manifest: EngineManifest

    def run(self, inputs: Any) -> dict[str, npt.NDArray[Any]]:
        raise NotImplementedError

    def start(self, inputs: Any) -> Done:
        return Done(self.run(inputs))

    def staging(self, shapes: Any) -> None:
        return None

    def fork(self) -> Session:
        return self

    def memory(self) -> SessionMemory | None:
        return None

    def launch_mode(self) -> str:
        return "call"

    def device(self) -> str:
        return "stub"

    def circumstances(self) -> str | None:
        return None

    def drop_kept_kernels(self) -> bool:
        return False

    def close(self) -> None:
        pass
