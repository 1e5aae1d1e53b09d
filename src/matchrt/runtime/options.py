"""Options of matching. They are apart from `Matcher`, because images can be prepared without an engine."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

from matchrt.errors import MatchRTError
from matchrt.runtime.backends import require_backend
from matchrt.runtime.colours import ChannelOrder
from matchrt.runtime.decoding.values import STRETCHES, Stretch
from matchrt.runtime.image import MAX_PIXELS
from matchrt.runtime.session import Device

Switch = Literal["off", "auto"]
Effort = Literal["normal", "high"]


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
    stretch: how an image's values become 8 bits. `none` takes the whole scale of its type: 0..65535 for 16 bits. `each`
        makes the percentiles 1 and 99 of the image black and white, which 12-bit and thermal images need. `same` does
        so with the values of both images of a pair together, so that equal values stay equal.
    threads: CPU threads of one run; None for the runtime's choice.
    device: where to run, `cpu` or `cuda`; None for where the engine's backend runs.
    sample: for engines with a dense warp, draw that many matches as RoMa's own sampler does. None takes the matches
        that the engine itself selects, which are the same every time and on every machine.
    seed: of the sampler's generator.
    backend: of the engine, if a name stands for engines of several backends; an engine of another backend is refused.
        `jax` runs LoFTR's Flax model: the engine is then a bundled model's name, or a file that `matchrt convert-flax`
        wrote.
    fit_frames: for engines that take frames: whether images of other sizes are stretched to the frames' on the host,
        instead of being refused. Arrays of the frames' own layout are always taken as they are.
    cuda_graph: launch a run as one CUDA graph if engine and GPU allow it.
    resize_on: for engines on backend tensorrt or tensorrt_rtx, where images in host memory are resized. `auto` sends
        large arrays of bytes to the GPU as they are, and resizes other images on the host. `gpu` sends small ones too;
        `host` sends none. Both give the same pixels, but for a level of 255 in a few.
    rotate: `auto` turns image 1 by 90, 180 and 270 degrees if a pair gives little: no sure match, or one of few
        matches. The best is kept. Keypoints are in pixels of the image as given. `off` never turns it, None only with
        `effort="high"`.
    zoom: `auto` matches each image at half the size with the other one if a pair gives little, and keeps the best:
        networks miss what is much larger in one of the images. `off` and None are as for `rotate`.
    effort: `high` tries all of this if a pair gives little, until something gives plenty, and keeps the best: weaker
        matches, a larger size (dynamic engines), turns, half sizes, and both of these at the larger size. It does not
        change `min_score`, `resize`, `rotate` and `zoom` if these are given.
    """

    resize: int | None = None
    min_score: float | None = None
    channel_order: ChannelOrder = "rgb"
    apply_exif: bool = True
    max_pixels: int = MAX_PIXELS
    stretch: Stretch = "none"
    threads: int | None = None
    device: Device | None = None
    sample: int | None = None
    seed: int = 0
    backend: str | None = None
    cuda_graph: bool = True
    fit_frames: bool = False
    resize_on: Literal["auto", "host", "gpu"] = "auto"
    rotate: Switch | None = None
    zoom: Switch | None = None
    effort: Effort = "normal"

    @property
    def tries_more(self) -> bool:
        """Whether a pair that gives little is matched again, for which its images are needed. Raises nothing."""
        return self.turns or self.zooms or self.effort == "high"

    @property
    def turns(self) -> bool:
        """Whether image 1 is turned if a pair gives little. Raises nothing."""
        return self.rotate == "auto" or (self.rotate is None and self.effort == "high")

    @property
    def zooms(self) -> bool:
        """Whether the images are halved in turn if a pair gives little. Raises nothing."""
        return self.zoom == "auto" or (self.zoom is None and self.effort == "high")

    @property
    def prepares_alone(self) -> bool:
        """Whether an image can be prepared without the other image of its pair, once for all pairs. Raises nothing."""
        return self.stretch != "same" and not self.tries_more

    def __post_init__(self) -> None:
        require_backend(self.backend)
        limits = (
            ("resize", self.resize is None or _is_whole(self.resize, 1), "a whole number of 1 or more, or None"),
            ("min_score", self.min_score is None or _is_share(self.min_score), "a number in 0..1, or None"),
            ("channel_order", self.channel_order in ("rgb", "bgr"), "'rgb' or 'bgr'"),
            ("max_pixels", _is_whole(self.max_pixels, 1), "a whole number of 1 or more"),
            ("stretch", self.stretch in STRETCHES, "'none', 'each' or 'same'"),
            ("threads", self.threads is None or _is_whole(self.threads, 1), "a whole number of 1 or more, or None"),
            ("sample", self.sample is None or _is_whole(self.sample, 1), "a whole number of 1 or more, or None"),
            ("seed", _is_whole(self.seed, 0), "a whole number of 0 or more"),
            ("resize_on", self.resize_on in ("auto", "host", "gpu"), "'auto', 'host' or 'gpu'"),
            ("rotate", self.rotate in (None, *get_args(Switch)), "'off', 'auto' or None"),
            ("zoom", self.zoom in (None, *get_args(Switch)), "'off', 'auto' or None"),
            ("effort", self.effort in get_args(Effort), "'normal' or 'high'"),
            ("device", self.device in (None, "cpu", "cuda"), "'cpu', 'cuda', or None for where the engine runs"),
        )
        for name, good, wanted in limits:
            if not good:
                raise MatchRTError("option-range", f"{name} is {getattr(self, name)!r}.", f"It must be {wanted}.")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_share(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0.0 <= float(value) <= 1.0
