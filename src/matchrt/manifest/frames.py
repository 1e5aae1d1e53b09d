"""Frames: engines that take a camera's image as it is, and resize it themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Size = tuple[int, int]
# How a frame's pixels lie in memory. nv12 is a plane of luma, and below it one of chroma at half the size.
Pixels = Literal["rgb", "bgr", "grey", "rgba", "nv12"]
PIXELS: tuple[Pixels, ...] = get_args(Pixels)
FRAMES = ("frame0", "frame1")
_CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1, "rgba": 4, "nv12": 1}


@dataclass(frozen=True)
class FrameContract:
    """What an engine takes in place of images of the network's size (docs/frames.md).

    pixels: how the frames' pixels lie in memory.
    sizes: (height, width) in pixels of frame 0 and of frame 1; None if the engine takes a range of sizes.
    minimum, maximum: the smallest and the largest (height, width) in pixels of that range; None without a range.

    Error: ValueError unless there are either sizes, or a minimum and a maximum.
    """

    pixels: Pixels
    sizes: tuple[Size, Size] | None = None
    minimum: Size | None = None
    maximum: Size | None = None

    def __post_init__(self) -> None:
        if (self.minimum is None) != (self.maximum is None) or (self.sizes is None) == (self.minimum is None):
            raise ValueError("frames have either sizes, or a minimum and a maximum")

    @property
    def channels(self) -> int:
        """The last dimension of a frame's tensor."""
        return _CHANNELS[self.pixels]

    @property
    def step(self) -> int:
        """What a frame's sides are multiples of: the chroma of nv12 has half the size."""
        return 2 if self.pixels == "nv12" else 1

    @property
    def largest(self) -> tuple[Size, Size]:
        """The sizes of frame 0 and frame 1, or for a range the largest size of either."""
        if self.sizes is not None:
            return self.sizes
        assert self.maximum is not None
        return self.maximum, self.maximum

    def shape(self, size: Size) -> tuple[int, int, int]:
        """The dimensions of a frame's tensor without the batch. size: (height, width) of the image in pixels."""
        height, width = size
        return height * 3 // 2 if self.pixels == "nv12" else height, width, self.channels

    def takes(self, size: Size, side: int) -> bool:
        """Whether frame `side` (0 or 1) may have this (height, width) in pixels. Raises nothing."""
        if self.sizes is not None:
            return size == self.sizes[side]
        assert self.minimum is not None and self.maximum is not None
        low, high = self.minimum, self.maximum
        within = low[0] <= size[0] <= high[0] and low[1] <= size[1] <= high[1]
        return within and not (size[0] % self.step or size[1] % self.step)

    def nearest(self, size: Size, side: int) -> Size:
        """The (height, width) that frame `side` may have and that is nearest to `size`. Raises nothing."""
        if self.sizes is not None:
            return self.sizes[side]
        assert self.minimum is not None and self.maximum is not None
        limits = zip(size, self.minimum, self.maximum, strict=True)
        height, width = (min(max(length, low), high) // self.step * self.step for length, low, high in limits)
        return height, width

    @property
    def name(self) -> str:
        """The frames in the name of a file, such as `frames-1080x1920-nv12`."""
        sizes = self.sizes or (self.minimum, self.maximum)
        first, second = (_shown(size) for size in sizes if size is not None)
        sizes_told = first if first == second else f"{first}-{second}"
        return f"frames-{sizes_told}-{self.pixels}"

    def __str__(self) -> str:
        if self.sizes is None:
            assert self.minimum is not None and self.maximum is not None
            return f"{_shown(self.minimum)} to {_shown(self.maximum)}, {self.pixels}"
        first, second = map(_shown, self.sizes)
        return f"{first if first == second else f'{first} and {second}'}, {self.pixels}"


def _shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
