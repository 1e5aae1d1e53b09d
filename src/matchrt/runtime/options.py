"""Options of matching. They are apart from `Matcher`, because images can be prepared without an engine."""

from __future__ import annotations

from dataclasses import dataclass

from matchrt.errors import MatchRTError
from matchrt.runtime.backends import require_backend
from matchrt.runtime.image import MAX_PIXELS, ChannelOrder
from matchrt.runtime.session import Device


@dataclass(frozen=True)
class MatcherOptions:
    """How images are read and prepared, and what the result is. Errors: option-range, backend-unknown.

    resize: long side in pixels at which a dynamic engine sees the images; None for the engine's best size.
    min_score: matches with a lower score are dropped, 0..1; None for the engine's default, from which matches are
        mostly right. The engine's own threshold is the lowest possible value. Lower scores find more matches, right and
        wrong, and help across modalities.
    channel_order: of colour arrays, `rgb` or `bgr`.
    apply_exif: turn image files as their EXIF orientation says; keypoints are then in the turned image.
    max_pixels: images with more pixels are refused.
    threads: CPU threads of one run; None for the runtime's choice.
    device: where to run, `cpu` or `cuda`; None for where the engine's backend runs.
    sample: for engines with a dense warp, draw that many matches as RoMa's own sampler does. None takes the matches
        that the engine itself selects, which are the same every time and on every machine.
    seed: of the sampler's generator.
    backend: of the engine, if a name stands for engines of several backends; an engine of another backend is refused.
        `jax` runs LoFTR's Flax model: the engine is then a bundled model's name, or a file that `matchrt convert-flax`
        wrote.
    cuda_graph: launch a run as one CUDA graph if engine and GPU allow it.
    """

    resize: int | None = None
    min_score: float | None = None
    channel_order: ChannelOrder = "rgb"
    apply_exif: bool = True
    max_pixels: int = MAX_PIXELS
    threads: int | None = None
    device: Device | None = None
    sample: int | None = None
    seed: int = 0
    backend: str | None = None
    cuda_graph: bool = True

    def __post_init__(self) -> None:
        require_backend(self.backend)
        limits = (
            ("min_score", self.min_score is None or 0.0 <= self.min_score <= 1.0, "a number in 0..1, or None"),
            ("channel_order", self.channel_order in ("rgb", "bgr"), "'rgb' or 'bgr'"),
            ("max_pixels", self.max_pixels >= 1, "1 or more"),
            ("threads", self.threads is None or self.threads >= 1, "1 or more, or None"),
            ("sample", self.sample is None or self.sample >= 1, "1 or more, or None"),
            ("seed", self.seed >= 0, "0 or more"),
            ("device", self.device in (None, "cpu", "cuda"), "'cpu', 'cuda', or None for where the engine runs"),
        )
        for name, good, wanted in limits:
            if not good:
                raise MatchRTError("option-range", f"{name} is {getattr(self, name)!r}.", f"It must be {wanted}.")
