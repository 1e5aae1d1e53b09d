"""What options mean, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.runtime.session import Device
    from matchrt.store import EngineStore


def known_device(name: str | None) -> Device | None:
    """`cpu`, `cuda`, or None for where the engine's backend runs. Error: device-unknown."""
    if name is None:
        return None
    if name == "cpu":
        return "cpu"
    if name == "cuda":
        return "cuda"
    raise MatchRTError("device-unknown", f"There is no device '{name}'.", "Use cpu or cuda.")


def store_at(folder: Path | None) -> EngineStore:
    """The store that `--store` names, else the default one."""
    from matchrt.store import open_store

    return open_store(folder)


def require_new_output(output: Path | None, inputs: Iterable[Path]) -> None:
    """Raises `output-is-input` where writing `output` would replace a file that is read."""
    if output is None or not output.exists():
        return
    for path in inputs:
        if path.exists() and path.samefile(output):
            raise MatchRTError("output-is-input", f"Writing '{output}' would replace an input.", "Choose another name.")
