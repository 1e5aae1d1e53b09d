"""What a flavour is: the runtime that an engine is built for and run by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from matchrt.errors import MatchRTError
from matchrt.manifest import Portability, Profile, TensorSpec
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.nvidia.modules import FLAVORS as NVIDIA

# Called with what is being done and the share of the build that is behind it.
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class BuiltEngine:
    """The engine's bytes and what its runtime says of them; options: what the builder was told, for people to read."""

    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flavor_version: str
    portability: Portability
    options: dict[str, str] = field(default_factory=dict)


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

    @property
    def rounds_products(self) -> bool:
        """Whether it computes fp32 products with fewer digits, unasked: the graph has to make up for it."""
        ...

    def identity(self) -> str:
        """What enters the cache key: version, device and options, as far as the engine depends on them."""
        ...

    def build(self, model: bytes, profile: Profile | None, tell: Tell) -> BuiltEngine:
        """Builds the ONNX `model`; profile: of a dynamic one. Errors: engine-rejected, device-missing."""
        ...


def flavor_names() -> tuple[str, ...]:
    """The flavours that `build` knows."""
    return ("onnxruntime", *NVIDIA)


def get_flavor(name: str, options: BuilderOptions | None = None) -> Flavor:
    """The flavour of that name, ready to build. Errors: flavor-unknown, build-option, package-*, device-missing."""
    options = options or BuilderOptions()
    if name == "onnxruntime":
        from matchrt.engines.ort import OnnxRuntimeFlavor

        if options != BuilderOptions():
            raise MatchRTError(
                "build-option",
                "ONNX Runtime optimises a graph when it loads it: there is nothing to tell a builder.",
                "Leave the builder's options out, or choose --flavor tensorrt or tensorrt_rtx.",
            )
        return OnnxRuntimeFlavor()
    if name in NVIDIA:
        from matchrt.engines.tensorrt import TensorRTFlavor
        from matchrt.nvidia.modules import open_dialect

        dialect = open_dialect(name)
        dialect.check_options(options)
        flavor = TensorRTFlavor(dialect, options)
        flavor.require_gpu()  # said now, not after the export
        return flavor
    raise MatchRTError("flavor-unknown", f"There is no flavour '{name}'.", f"Known: {', '.join(flavor_names())}.")
