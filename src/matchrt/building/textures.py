"""Textured pairs that networks match with trained and often with random weights, for parity and for fp16's gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from matchrt.bench.folder import PlainPair
from matchrt.bench.pairs import JudgedPair
from matchrt.manifest import SIZELESS, InputContract
from matchrt.runtime.self_test.pair import view

UInt8Array = npt.NDArray[np.uint8]
Size = tuple[int, int]
Pair = tuple[UInt8Array, UInt8Array]


def texture_pair(contract: InputContract, stride: int, sizes: tuple[Size, Size], seed: int) -> Pair:
    """Cuts two uint8 images [H, W, C] from one texture; the second one is shifted along both axes.

    contract: gives the number of channels. stride: the coarse stride in pixels. sizes: (height, width) of each image.
    The shift is two coarse cells, or the contract's divisor if that is larger.
    """
    shift = max(2 * stride, contract.divisor)
    height, width = (max(sides) + shift for sides in zip(*sizes, strict=True))
    texture = view(height, width, contract.channels, seed, (0, 0), 256)
    (height0, width0), (height1, width1) = sizes
    first, second = texture[:height0, :width0], texture[shift : shift + height1, shift : shift + width1]
    return np.ascontiguousarray(first), np.ascontiguousarray(second)


def texture_pairs(contract: InputContract, stride: int, count: int = 3) -> list[JudgedPair]:
    """Textured pairs of images for an engine of this input, `count` of every kind and of every row of a batch.

    stride: the coarse stride in pixels.
    The images have sizes that the engine does not scale. For static engines, the input is the same as that of
    `parity.sample_inputs`: the second image is narrower by one divisor, so that padding and masks take part. Engines
    that take no valid sizes get two images of the full size. Their coarse copies come from the engine's own resize, not
    from the mean over areas that parity takes. For dynamic engines, one pair has the best size. The other pair has two
    shapes with the long side of the best size. Parity also takes smaller shapes, but an engine would enlarge these.
    """
    found = []
    for seed in range(count):
        for row, sizes in enumerate(_sizes(contract)):
            # Each row of a batch has its own texture, as in `parity.sample_inputs`.
            first, second = texture_pair(contract, stride, sizes, seed if contract.batch == 1 else seed + 100 * row)
            name = Path(f"texture-{seed}-{row}")
            found.append(JudgedPair(first, second, PlainPair(f"texture/{seed}/{row}", "texture", name, name, False)))
    return found


def _sizes(contract: InputContract) -> list[tuple[Size, Size]]:
    """Sizes of the pairs of one seed: one pair for each row of the batch, or two pairs for a dynamic engine."""
    if contract.profile is None:
        assert contract.height is not None and contract.width is not None
        height, width = contract.height, contract.width
        narrower = width if contract.fitting in SIZELESS else width - contract.divisor
        return [((height, width), (height, narrower))] * contract.batch
    best, least, step = contract.profile.optimum, contract.profile.minimum, contract.divisor
    short = 1 if best[1] <= best[0] else 0
    half, most = (max(least[short], best[short] * share // 4 // step * step) for share in (2, 3))
    shapes = [(side, best[1]) if short == 0 else (best[0], side) for side in (half, most)]
    return [(best, best), (shapes[0], shapes[1])]
