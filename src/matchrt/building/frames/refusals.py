"""Refuses frames that no engine can take, before anything is built."""

from __future__ import annotations

from matchrt.errors import MatchRTError
from matchrt.manifest import FrameContract


def require_frames(frames: FrameContract, dynamic: bool, batch: int) -> None:
    """Raises an error unless an engine can take such frames.

    dynamic: whether the engine has a profile of sizes. batch: the number of pairs that it matches in a run.
    Errors: frames-dynamic, frames-pixels, frames-batch.
    """
    if dynamic:
        raise MatchRTError(
            "frames-dynamic",
            "An engine for many image sizes (--dynamic) takes no frames, which are resized to one size.",
            "Build a static engine: leave --dynamic out, and give --height and --width, or an engine built so.",
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
