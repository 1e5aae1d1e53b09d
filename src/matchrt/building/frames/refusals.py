"""Refuses frames that no engine can take, before anything is built."""

from __future__ import annotations

from matchrt.errors import MatchRTError
from matchrt.manifest import HOST_KERNELS, EngineManifest, FrameContract
from matchrt.manifest.rules import LEAST_FRAME_SIDE

# Beyond this a frame's tensor has a gigabyte.
_LONGEST = 1 << 14


def require_frames(frames: FrameContract, dynamic: bool, batch: int, any_batch: bool) -> None:
    """Raises an error unless an engine can take such frames.

    dynamic: whether the engine has a profile of sizes. batch: the number of pairs that it matches in a run.
    any_batch: whether it takes any number of pairs up to that.
    Errors: frames-dynamic, frames-pixels, frames-batch, frames-sides.
    """
    _require_sides(frames)
    if dynamic:
        raise MatchRTError(
            "frames-dynamic",
            "An engine for many image sizes (--dynamic) takes no frames, which are resized to one size.",
            "Build a static engine: leave --dynamic out, and give --height and --width, or an engine built so.",
        )
    if any_batch:
        raise MatchRTError(
            "frames-batch",
            f"An engine for frames matches a fixed number of pairs a run, not any number from 1 to {batch}.",
            f"Write --batch {batch}, which fits one size of frames, or leave --batch or --frames out.",
        )
    if frames.sizes is not None:
        return
    if batch != 1:
        raise MatchRTError(
            "frames-batch",
            f"An engine for a range of frame sizes matches one pair a run, not {batch}.",
            "Give one size, --frames HxW, or leave --batch out.",
        )
    if frames.pixels == "nv12":
        raise MatchRTError(
            "frames-pixels",
            "An engine for a range of frame sizes cannot take nv12: where its chroma begins depends on the size.",
            "Build one engine a size, --frames HxW --pixels nv12, or take other pixels.",
        )


def require_fitting(manifest: EngineManifest) -> None:
    """Raises `frames-model` for an engine that pads images to a square, or has a filter that only the host has."""
    if manifest.input.fitting == "square" or manifest.input.kernel in HOST_KERNELS:
        raise MatchRTError(
            "frames-model",
            f"{manifest.model} pads images to a square before it resizes them, which engines for frames do not do.",
            "Leave --frames out: the host prepares the images.",
        )


def _require_sides(frames: FrameContract) -> None:
    sizes = [size for size in frames.sizes or (frames.minimum, frames.maximum) if size is not None]
    sides = [side for size in sizes for side in size]
    if min(sides) < LEAST_FRAME_SIDE or max(sides) > _LONGEST:
        raise MatchRTError(
            "frames-sides",
            f"Frames of {frames} have a side outside of {LEAST_FRAME_SIDE} to {_LONGEST} pixels.",
            "Give the camera's height and width.",
        )
    if any(side % frames.step for side in sides):
        raise MatchRTError(
            "frames-sides",
            f"Frames of {frames} have an odd side, and nv12 has none.",
            "Give even sides, or other pixels.",
        )
    low, high = sizes[0], sizes[1]
    if frames.sizes is None and (low[0] > high[0] or low[1] > high[1]):
        raise MatchRTError(
            "frames-sides",
            f"Frames of {frames} end below their beginning.",
            "Give the smallest height and width first.",
        )
