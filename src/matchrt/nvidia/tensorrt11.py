"""TensorRT 11: every network is strongly typed; otherwise as TensorRT 10, what 11 removed being used in neither."""

from __future__ import annotations

from dataclasses import dataclass

from matchrt.nvidia.tensorrt10 import TensorRT10


@dataclass(frozen=True)
class TensorRT11(TensorRT10):
    """The module `tensorrt`, 11.x."""

    def network_flags(self) -> int:
        """The flag is deprecated: strong typing is the only kind."""
        return 0
