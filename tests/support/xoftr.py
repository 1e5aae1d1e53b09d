"""Random weights for XoFTR, which the authors' code was given too: `tools/xoftr_oracle.py`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from matchrt.models.xoftr.config import XoFTRConfig
from matchrt.models.xoftr.network import XoFTR

_SEED = 22


def random_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Values by key, each from a stream of its own, so that neither order nor other tensors change them.

    They make the coarse softmaxes neither flat nor ruled by a few cells, and a few pixels of the windows stand out.
    """
    return {key: _values(key, tuple(shape)) for key, shape in shapes.items()}


def _values(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    stream = np.random.PCG64(np.random.SeedSequence([_SEED, zlib.crc32(key.encode())]))
    bits = stream.random_raw(int(np.prod(shape))) >> np.uint64(11)
    uniform = bits.astype(np.float64) * 2.0**-52 - 1.0
    middle, spread = _range(key, shape)
    return torch.from_numpy((middle + spread * uniform).reshape(shape).astype(np.float32))


def _range(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """The middle of a tensor's values, and how far they go from it."""
    if key.endswith("running_var"):
        return 1.0, 0.1
    if key.startswith("loftr_coarse") and key.endswith("norm2.weight"):
        return 2.0, 0.2
    if len(shape) == 1:
        return (1.0 if key.endswith(("weight", "gamma")) else 0.0), 0.1
    gain = 1.4 if len(shape) == 4 else 1.0
    gain = next((own for name, own in _GAINS.items() if key.endswith(name)), gain)
    return 0.0, gain * (3.0 / float(np.prod(shape[1:]))) ** 0.5


_GAINS = {"layer3_outconv.weight": 0.3, "final_proj.weight": 0.5, "fine_proj.weight": 0.3}


def random_xoftr(config: XoFTRConfig | None = None) -> XoFTR:
    """A network in evaluation mode with these weights."""
    network = XoFTR(config or XoFTRConfig())
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    network.load_state_dict(random_state(shapes), strict=True)
    return network.eval()
