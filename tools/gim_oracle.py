"""Runs what GIM's authors do to RoMa's images and certainty, and writes down what `tests/models/test_gim.py` compares.

The authors' code (MIT) is no part of matchrt. The package imcui 0.1.3 carries it in `imcui/third_party/gim`; it needs
`einops`:

    pip download --no-deps imcui==0.1.3 && unzip imcui-0.1.3-py3-none-any.whl -d CODE
    PYTHONPATH=src:tests python tools/gim_oracle.py CODE/imcui/third_party/gim tests/data/gim.npz

Only `match` is run, around a network that gives numbers from a generator: the network itself is RoMa's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from support.pictures import texture

# Sides of the padded images, and of what the network sees in its two passes, in pixels.
PADDED, COARSE = 56, 28
# Of the warp, every so many rows are written.
WARP_STEP = 8
# What is written of the network's inputs and results, besides the images, the warp and its certainty.
KEPT = ("coarse0", "coarse1", "fine0", "fine1", "fine_factor", "fine_flow1", "fine_certainty1", "coarse_certainty16")


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("code", type=Path, help="folder with the authors' networks/roma")
    parser.add_argument("output", type=Path, help="the npz file to write")
    given = parser.parse_args()
    sys.path.insert(0, str(given.code))
    for name in ("torchvision", "torchvision.models", "networks.roma.dino"):  # for a network that is not made here
        sys.modules[name] = ModuleType(name)
    sys.modules["networks.roma.dino"].__dict__.update(vit_large=None, Block=None, MemEffAttention=None)
    from networks.roma.roma import RegressionMatcher  # type: ignore[import-not-found]

    generator = torch.Generator().manual_seed(0)
    seen: dict[str, Any] = {}

    class Drawn(RegressionMatcher):  # type: ignore[misc]
        """The authors' class around a network of random numbers."""

        def forward_symmetric(self, batch: Any, upsample: bool = False, scale_factor: float = 1, **_: Any) -> Any:
            """Flow and certainty by scale; what came in is noted."""
            name, side = ("fine", PADDED) if upsample else ("coarse", COARSE)
            seen.update({f"{name}0": batch["im_A"], f"{name}1": batch["im_B"], f"{name}_factor": scale_factor})
            result = {}
            for scale, size in ((1, side), (16, 2)):
                flow = torch.rand(2, 2, size, size, generator=generator) * 2.2 - 1.1
                certainty = torch.randn(2, 1, size, size, generator=generator) * 3
                result[scale] = {"flow": flow, "certainty": certainty}
                seen.update({f"{name}_flow{scale}": flow.clone(), f"{name}_certainty{scale}": certainty.clone()})
            return result

    network = Drawn(None, None, h=COARSE, w=COARSE)
    network.upsample_res = (PADDED, PADDED)
    images = [
        np.stack([texture(*size, seed + 9 * k) for k in range(3)], axis=2)
        for seed, size in enumerate(((40, 56), (56, 30)))
    ]
    images[0][10:14, 20:29] = 7  # black enough
    images[1][10:14, 20:29] = 8  # not black enough
    padded = []
    for image in images:
        canvas = np.zeros((PADDED, PADDED, 3), np.uint8)
        canvas[: image.shape[0], : image.shape[1]] = image
        padded.append(torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255)
    warp, certainty = network.match(*padded)
    arrays = {name: np.asarray(seen[name]) for name in KEPT}
    warp = warp[::WARP_STEP]
    np.savez_compressed(given.output, image0=images[0], image1=images[1], warp=warp, certainty=certainty, **arrays)


if __name__ == "__main__":
    main()
