"""Matches that stay on the GPU."""

from __future__ import annotations

from dataclasses import dataclass

from matchrt.errors import MatchRTError
from matchrt.runtime.gpu.arrays import GpuArray
from matchrt.runtime.gpu.outputs import GpuOutputs
from matchrt.runtime.gpu.session import TensorRTSession
from matchrt.runtime.session import Session


@dataclass(frozen=True)
class GpuMatches:
    """Matches that stay on the GPU, best first; rows from `num_matches` on are zero.

    keypoints0: float32 [1, K, 2], (x, y) in pixels of image 0 as given.
    keypoints1: float32 [1, K, 2], the matching points in pixels of image 1 as given.
    scores: float32 [1, K] in 0..1; the smallest is at least the engine's threshold.
    num_matches: int32 [1], how many of the K rows are matches.

    They are valid until the matcher's next run.
    """

    keypoints0: GpuArray
    keypoints1: GpuArray
    scores: GpuArray
    num_matches: GpuArray

    @staticmethod
    def of(outputs: GpuOutputs) -> GpuMatches:
        """The matches in the outputs of a run. Raises nothing."""
        arrays = outputs.arrays()
        return GpuMatches(arrays["keypoints0"], arrays["keypoints1"], arrays["scores"], arrays["num_matches"])


def require_gpu_session(session: Session) -> TensorRTSession:
    """The session, if it takes images on the GPU. Error: device-backend if it does not."""
    if isinstance(session, TensorRTSession):
        return session
    raise MatchRTError(
        "device-backend",
        f"An engine for backend {session.manifest.backend} takes images from host memory only.",
        "Pass them as NumPy arrays, or use an engine for backend tensorrt or tensorrt_rtx.",
    )
