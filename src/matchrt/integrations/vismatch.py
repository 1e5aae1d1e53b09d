"""An engine as a matcher of vismatch (pip install vismatch, 1.4 or newer)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from vismatch.base_matcher import BaseMatcher

from matchrt.integrations.tensors import match_pair
from matchrt.runtime.bundled import DEFAULT_MODEL
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.options import MatcherOptions


class VismatchMatcher(BaseMatcher):
    """A matcher that vismatch's scripts and `BaseMatcher.forward` run like their own.

    >>> matcher = VismatchMatcher("loftr-outdoor")
    >>> matcher("a.jpg", "b.jpg")["num_inliers"]

    engine: as `Matcher` takes it. options: of the matcher. device: of the tensors that vismatch makes; the engine runs
    where its backend runs. kwargs: those of `BaseMatcher`, such as `ransac_reproj_thresh`. Errors: those of `Matcher`.
    """

    def __init__(
        self,
        engine: str | Path = DEFAULT_MODEL,
        device: str = "cpu",
        options: MatcherOptions | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(device, **kwargs)
        self.matcher = Matcher(engine, options)

    def _forward(self, img0: torch.Tensor, img1: torch.Tensor) -> tuple[Any, ...]:
        """Images `[3, H, W]` in 0..1 to matched points `[N, 2]`, no points and descriptors besides, and scores."""
        found = match_pair(self.matcher, img0, img1)
        return found.keypoints0, found.keypoints1, None, None, None, None, found.scores
