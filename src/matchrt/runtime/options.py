"""Options of matching, apart from `Matcher`: where images are prepared there need not be an engine."""

from __future__ import annotations

from dataclasses import dataclass

from matchrt.errors import MatchRTError
from matchrt.runtime.backends import require_backend
from matchrt.runtime.image import MAX_PIXELS, ChannelOrder
from matchrt.runtime.session import Device


@dataclass(frozen=True)
class MatcherOptions:
    """How images are read and prepared, and what comes out. Errors: option-range, backend-unknown.

    resize: long side in pixels at which a dynamic engine sees the images; None for the engine's best size.
    min_score: drop matches below it; None for the engine's default, from which matches are mostly right. The engine's
    threshold is the floor: lower scores find more, right and wrong, and help across modalities.
    channel_order: of colour arrays.
    apply_exif: turn image files as their EXIF orientation says, and give keypoints in the turned image.
    max_pixels: refuse larger images.
    threads: of the CPU for one run; None for the runtime's choice.
    device: where to run; None for where the engine's backend runs.
    sample: of engines with a dense warp, draw that many matches as RoMa's own sampler does, from the generator `seed`;
    None for the matches that the engine itself selects, the same ones every time and on every machine.
    backend: of the engine, where a name stands for engines of several; an engine of another backend is refused. `jax`
    runs LoFTR's Flax model: the engine is then a bundled model's name, or a file that `matchrt convert-flax` wrote.
    cuda_graph: launch a run as one CUDA graph where engine and GPU allow it.
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
