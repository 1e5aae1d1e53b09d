"""Batches of image tensors, as torch's libraries pass them, matched pair by pair on one engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from matchrt.errors import MatchRTError
from matchrt.runtime.matcher import Matcher
from matchrt.runtime.matches import Matches


@dataclass(frozen=True)
class MatchTensors:
    """The N matches of all pairs of a batch, pair by pair, each best first; on the device of the images.

    keypoints0: float32 `[N, 2]`, (x, y) in pixels of the first images; the centre of the top-left pixel is (0, 0).
    keypoints1: float32 `[N, 2]`, the same of the second images.
    confidence: float32 `[N]`, 0..1.
    batch_indexes: int64 `[N]`, which pair a match belongs to.
    """

    keypoints0: torch.Tensor
    keypoints1: torch.Tensor
    confidence: torch.Tensor
    batch_indexes: torch.Tensor


def to_pixels(image: torch.Tensor) -> npt.NDArray[np.uint8]:
    """An image of a batch as the matcher reads it: `[C, H, W]` to uint8 `[H, W, C]`.

    image: grey (C = 1) or RGB (C = 3); floats in 0..1, which are clipped and rounded to levels of 255, or uint8.
    Error: image-array.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise MatchRTError(
            "image-array",
            f"The image is a tensor {tuple(image.shape)}, not [1, H, W] or [3, H, W].",
            "Pass batches [B, 1, H, W] of grey images or [B, 3, H, W] of RGB ones.",
        )
    image = image.detach()
    if image.dtype != torch.uint8:
        if not image.dtype.is_floating_point or not bool(torch.isfinite(image).all()):
            raise MatchRTError(
                "image-array",
                f"The image is of type {image.dtype}, or has values that are not finite.",
                "Pass finite floats in 0..1, or uint8.",
            )
        image = (image.float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def match_pair(matcher: Matcher, image0: torch.Tensor, image1: torch.Tensor) -> Matches:
    """Matches two images `[C, H, W]`, as `to_pixels` takes them. Errors: image-array, and those of `Matcher.match`."""
    return matcher.match(to_pixels(image0), to_pixels(image1))


def match_batch(matcher: Matcher, image0: torch.Tensor, image1: torch.Tensor) -> MatchTensors:
    """Matches B pairs: `[B, C, H, W]` of first and of second images, whose sizes may differ.

    Errors: image-array, and those of `Matcher.match`.
    """
    if image0.ndim != 4 or image1.ndim != 4 or len(image0) != len(image1):
        raise MatchRTError(
            "image-array",
            f"The batches have the shapes {tuple(image0.shape)} and {tuple(image1.shape)}.",
            "Pass [B, 1, H, W] or [B, 3, H, W], with the same B.",
        )
    found = [match_pair(matcher, first, second) for first, second in zip(image0, image1, strict=True)]
    device = image0.device

    def joined(arrays: list[npt.NDArray[np.float32]], shape: tuple[int, ...]) -> torch.Tensor:
        whole = np.concatenate([np.zeros(shape, np.float32), *arrays])
        return torch.from_numpy(whole).to(device)

    counts = torch.tensor([len(matches) for matches in found], dtype=torch.int64)
    return MatchTensors(
        joined([matches.keypoints0 for matches in found], (0, 2)),
        joined([matches.keypoints1 for matches in found], (0, 2)),
        joined([matches.scores for matches in found], (0,)),
        torch.repeat_interleave(torch.arange(len(found)), counts).to(device),
    )
