"""What a graph pass is, and how a list of passes runs. docs/contributing/add-a-pass.md shows how to write one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx

from matchrt.errors import InternalError, MatchRTError
from matchrt.manifest import PassRecord

# Called with the graph before and after a pass. It raises an error if they do not compute the same.
ParityCheck = Callable[[onnx.ModelProto, onnx.ModelProto], None]


@dataclass(frozen=True)
class PassResult:
    """What a pass returns.

    model: the graph after the pass.
    changes: how many things the pass changed; 0 means that the graph is as it was.
    summary: what the pass did, in words for the manifest.
    """

    model: onnx.ModelProto
    changes: int
    summary: str


class Pass(Protocol):
    """One change of a graph. `requires` and `ensures` raise an error if their condition does not hold."""

    @property
    def name(self) -> str:
        """The name of the pass in the manifest; it must not change between releases."""
        ...

    def requires(self, model: onnx.ModelProto) -> None:
        """Checks what the pass needs of the graph that it gets. Error: `pass-requirement`."""
        ...

    def apply(self, model: onnx.ModelProto) -> PassResult:
        """Changes the graph, which it may do in place."""
        ...

    def ensures(self, model: onnx.ModelProto) -> None:
        """Checks what the pass promises of the graph that it returns. Error: `pass-promise`."""
        ...


def run_passes(
    model: onnx.ModelProto, passes: Sequence[Pass], parity: ParityCheck | None = None
) -> tuple[onnx.ModelProto, tuple[PassRecord, ...]]:
    """Runs the passes in order and returns the last graph with one record for each pass.

    parity: called with the graph before and after every pass that changed it; None for no check.
    Errors: `pass-requirement`, `pass-promise`, `pass-invalid` (a pass left a graph that ONNX's checker refuses), and
    those of the passes.
    """
    records = []
    for step in passes:
        step.requires(model)
        before = _copy(model) if parity is not None else model
        result = step.apply(model)
        step.ensures(result.model)
        _check(result.model, step.name)
        if parity is not None and result.changes:
            parity(before, result.model)
        model = result.model
        records.append(PassRecord(step.name, bool(result.changes), result.summary))
    return model, tuple(records)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _check(model: onnx.ModelProto, name: str) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InternalError(
            "pass-invalid", f"Pass {name} left an invalid graph: {error}.", "Report this as a bug."
        ) from error


def broken_promise(name: str, what: str) -> InternalError:
    """The error (`pass-promise`) of a pass whose own promise does not hold. It is returned, not raised."""
    return InternalError("pass-promise", f"Pass {name}: {what}.", "Report this as a bug.")


def unmet_requirement(name: str, what: str) -> MatchRTError:
    """The error (`pass-requirement`) of a pass that cannot work on the graph. It is returned, not raised."""
    return MatchRTError("pass-requirement", f"Pass {name}: {what}.", "Export the graph with `matchrt build`.")
