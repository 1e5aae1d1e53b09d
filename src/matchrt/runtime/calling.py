"""What sessions share that work in the caller's thread, where nothing is left to wait for."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy.typing as npt

from matchrt.runtime.session import Arrays, Done, SessionMemory

SessionT = TypeVar("SessionT", bound="CallingSession")


class CallingSession:
    """The part of `Session` that follows from `run` blocking until the outputs are there."""

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """The outputs."""
        raise NotImplementedError

    @property
    def asynchronous(self) -> bool:
        """It works in the caller's thread."""
        return False

    def start(self, inputs: Arrays) -> Done:
        """Runs, and gives the result to take."""
        return Done(self.run(inputs))

    def fork(self: SessionT) -> SessionT:
        """Another handle on the same engine, which its runtime lets several threads run."""
        return copy.copy(self)

    def memory(self) -> SessionMemory | None:
        """The runtime does not say what one session holds."""
        return None

    def launch_mode(self) -> str:
        """It works in the caller's thread."""
        return "call"
