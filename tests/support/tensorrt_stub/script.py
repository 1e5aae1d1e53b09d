"""What a stub writes down and what it is told to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support.cuda_stub import CudaStub


@dataclass
class Script:
    """Calls in their order, and the failures that a test asks for."""

    cuda: CudaStub = field(default_factory=CudaStub)
    module: Any = None
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    logger: Any = None

    no_builder: bool = False
    no_runtime: bool = False
    parse_errors: list[tuple[str, str, str]] = field(default_factory=list)  # operator, node name, what is wrong
    parse_fails: bool = False
    build_fails: bool = False
    while_building: Callable[[], None] | None = None
    stopped: bool = False  # set when a build was told to stop
    timing_cache_fits: bool = True
    targets_refused: bool = False
    validity: tuple[str, int] = ("VALID", 0)
    deserialize_fails: bool = False
    no_context: bool = False
    shape_refused: bool = False
    address_refused: bool = False
    unresolved: list[str] = field(default_factory=list)
    execute_fails: bool = False
    not_capturable: bool = False
    breaks_capture: bool = False
    races_in_graphs: bool = False  # in a graph, every third run is a little wrong
    kernels_known: list[bytes] = field(default_factory=list)
    compiler: str = "kernels"  # compiled kernels begin with this; those that begin otherwise compute nonsense
    wrong_by: float = 0.0  # pixels by which every match of every run is wrong

    def names(self) -> list[str]:
        """Of the calls."""
        return [call[0] for call in self.calls]

    def arguments(self, name: str) -> list[tuple[Any, ...]]:
        """Of every call of that name."""
        return [call[1:] for call in self.calls if call[0] == name]

    def complain(self, message: str) -> None:
        """TensorRT's way to say why something failed."""
        self.logger.log(self.module.ILogger.Severity.ERROR, message)


class Recorded:
    """Writes down the calls of its public methods and what is set on it; `_script` is the stub's script."""

    _script: Script

    def __init_subclass__(cls) -> None:
        for name, function in list(vars(cls).items()):
            if callable(function) and not name.startswith("_") and not isinstance(function, type):
                setattr(cls, name, _recording(name, function))

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._script.calls.append((name, value))
        object.__setattr__(self, name, value)


def _recording(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def record(self: Recorded, *arguments: Any) -> Any:
        self._script.calls.append((name, *arguments))
        return function(self, *arguments)

    record.__wrapped__ = function  # type: ignore[attr-defined]  # for the check of signatures
    return record
