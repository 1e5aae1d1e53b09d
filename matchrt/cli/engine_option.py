"""What `--engine` and `--device` mean, wherever they stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.runtime.session import Device


def known_device(name: str) -> Device:
    """`cpu` or `cuda`. Error: device-unknown."""
    if name == "cpu":
        return "cpu"
    if name == "cuda":
        return "cuda"
    raise MatchRTError("device-unknown", f"There is no device '{name}'.", "Use cpu or cuda.")


def resolve_engine(name: str, store: Path | None) -> str | Path:
    """An engine file or bundled model as it is; else the newest engine of that model in the store."""
    from matchrt.runtime.engine_file import BUNDLED

    if name in BUNDLED or Path(name).exists() or Path(name).suffix:
        return name
    from matchrt.engines.store import open_store

    opened = open_store(store)
    found = opened.engines(name)
    if found:
        return found[0].path
    raise MatchRTError(
        "engine-missing",
        f"The store '{opened.root}' has no engine of '{name}'.",
        f"Build one: matchrt build {name} --checkpoint FILE",
    )
