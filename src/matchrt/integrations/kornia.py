"""An engine in the place of `kornia.feature.LoFTR`: the same tensors in and out. kornia itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from matchrt.errors import MatchRTError
from matchrt.integrations.tensors import match_batch
from matchrt.runtime.bundled import DEFAULT_MODEL
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions


class KorniaMatcher(torch.nn.Module):
    """Matches as `kornia.feature.LoFTR` does when it is evaluated, on an engine.

    >>> matcher = KorniaMatcher("loftr-outdoor")
    >>> found = matcher({"image0": image0, "image1": image1})   # float [B, 1, H, W] or [B, 3, H, W] in 0..1
    >>> found["keypoints0"], found["confidence"], found["batch_indexes"]

    engine: as `Matcher` takes it. options: of the matcher. The engine has no gradients and no parameters that torch
    knows, and runs where its backend runs, whatever device this module is moved to; results are on the images' device.
    Errors: those of `Matcher`.
    """

    def __init__(self, engine: str | Path = DEFAULT_MODEL, options: MatcherOptions | None = None) -> None:
        super().__init__()
        self.matcher = Matcher(engine, options)

    def forward(self, data: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The matches of B pairs.

        data: `image0` and `image1`, `[B, C, H, W]` in 0..1. Masks are refused.

        Returns `keypoints0`, `keypoints1` float32 `[N, 2]`, (x, y) in pixels of the tensors, the centre of the top-left
        pixel is (0, 0); `confidence` float32 `[N]`; `batch_indexes` int64 `[N]`. Errors: image-array, option-range for
        masks, and those of `Matcher.match`.
        """
        if {"mask0", "mask1"} & set(data):
            raise MatchRTError(
                "option-range", "An engine takes no masks of the images.", "Crop the images, or filter the matches."
            )
        found = match_batch(self.matcher, data["image0"], data["image1"])
        return dict(vars(found))
