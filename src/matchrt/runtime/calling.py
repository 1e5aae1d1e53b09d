"""The common part of sessions that run in the caller's thread."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy.typing as npt

from matchrt.runtime.session import Arrays, Done, SessionMemory

SessionT = TypeVar("SessionT", bound="CallingSession")


class CallingSession:
    """The part of `Session` that follows from a `run` which blocks until the outputs are there.

    A subclass defines `manifest`, `run` and `close`.
    """

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """The outputs `[B, ...]` by name for the inputs `[B, ...]` by name; each subclass defines it.

        Errors: those of the subclass; NotImplementedError here.
        """
        raise NotImplementedError

    @property
    def asynchronous(self) -> bool:
        """False: a run is over when `start` returns."""
        return False

    def start(self, inputs: Arrays) -> Done:
        """Runs the engine and returns the finished run.

        inputs: arrays `[B, ...]` by name, as the manifest lists them. Errors: those of `run`.
        """
        return Done(self.run(inputs))

    def staging(self, shapes: Mapping[str, tuple[int, ...]]) -> Arrays | None:
        """None: a run reads the caller's own arrays."""
        return None

    def fork(self: SessionT) -> SessionT:
        """Another handle on the same engine, whose runtime allows runs in several threads. Raises nothing."""
        return copy.copy(self)

    def memory(self) -> SessionMemory | None:
        """None: the runtime does not say what one session holds."""
        return None

    def launch_mode(self) -> str:
        """`call`: a run happens in the caller's thread."""
        return "call"

    def device(self) -> str:
        """The CPU; a subclass that knows more says more."""
        return "CPU"

    def circumstances(self) -> str | None:
        """None: on a CPU, the results are those of the machine that judged the engine."""
        return None

    def drop_kept_kernels(self) -> bool:
        """False: nothing is kept from start to start."""
        return False
