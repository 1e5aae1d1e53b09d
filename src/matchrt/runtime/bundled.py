"""The engines and photographs that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

BUNDLED = ("eloftr-lite", "loftr-lite")
# What is used where no engine is named.
DEFAULT_MODEL = "eloftr-lite"


def photographs_folder() -> Path:
    """The folder of the package's photographs. Raises nothing."""
    return Path(str(resources.files("matchrt") / "assets" / "photographs"))


def bundled_path(model: str) -> Path:
    """The engine file of a bundled model; its manifest is beside it. Raises nothing, even if there is no such file."""
    return Path(str(resources.files("matchrt") / "assets" / f"{model}.onnx"))


def any_size_path(model: str) -> Path:
    """The graph from which static engines of a bundled model are made, for any size. Raises nothing.

    It is no engine, has no manifest, and lacks the weights that the engine at `bundled_path` has.
    """
    return Path(str(resources.files("matchrt") / "assets" / f"{model}-any-size.onnx"))
