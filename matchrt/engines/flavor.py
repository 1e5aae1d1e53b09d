"""What a flavour is: the runtime that an engine is built for and run by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from matchrt.errors import MatchRTError
from matchrt.manifest import TensorSpec


@dataclass(frozen=True)
class BuiltEngine:
    """The engine's bytes and what its runtime says of them."""

    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flavor_version: str
    compute_capability: str | None


class Flavor(Protocol):
    """One runtime. `suffix` is the engine's file ending, `identity` what else than the graph decides its bytes."""

    @property
    def name(self) -> str:
        """As in `--flavor`."""
        ...

    @property
    def suffix(self) -> str:
        """File ending with its dot."""
        ...

    def identity(self) -> str:
        """What enters the cache key: version and device, as far as the engine depends on them."""
        ...

    def build(self, model: bytes) -> BuiltEngine:
        """Builds the ONNX `model`. Errors: engine-rejected."""
        ...


def flavor_names() -> tuple[str, ...]:
    """The flavours that `build` knows."""
    return ("onnxruntime",)


def get_flavor(name: str) -> Flavor:
    """The flavour of that name. Error: flavor-unknown."""
    if name == "onnxruntime":
        from matchrt.engines.ort import OnnxRuntimeFlavor

        return OnnxRuntimeFlavor()
    raise MatchRTError("flavor-unknown", f"There is no flavour '{name}'.", f"Known: {', '.join(flavor_names())}.")
