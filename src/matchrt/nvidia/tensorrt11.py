"""TensorRT 11, where every network is strongly typed. All else is as in TensorRT 10; neither uses what 11 removed."""

from __future__ import annotations

from dataclasses import dataclass

from matchrt.nvidia.tensorrt10 import TensorRT10


@dataclass(frozen=True)
class TensorRT11(TensorRT10):
    """The module `tensorrt`, 11.x."""

    def network_flags(self) -> int:
        """No flags: the flag of strong typing is deprecated, because there is no other kind."""
        return 0
