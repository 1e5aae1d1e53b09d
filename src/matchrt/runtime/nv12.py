"""NV12, the form in which cameras and video decoders give frames: a plane of luma, then pairs of chroma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Nv12:
    """A frame in NV12, for `Matcher.match` and whatever else takes an image.

    array: uint8 `[rows, columns]` in host memory, or on the GPU for engines that run there. Rows 0 to `height - 1` are
        luma; from row `chroma_row` on there are `height / 2` rows of chroma, U and V in turn. Columns from `width` on,
        rows between the planes, and strides are padding.
    height: of the image, pixels; even.
    width: of the image, pixels; even.
    chroma_row: the row in which chroma begins; None for `height`. Decoders that align the height begin it later.

    Colours are BT.601 with luma in 16..235 and nearest chroma: the integers of OpenCV's COLOR_YUV2RGB_NV12.
    Error: image-array for sides that are odd or not positive.
    """

    array: Any
    height: int
    width: int
    chroma_row: int | None = None

    def __post_init__(self) -> None:
        if self.height < 2 or self.width < 2 or self.height % 2 or self.width % 2:
            raise MatchRTError(
                "image-array",
                f"An NV12 frame of {self.height}x{self.width} pixels does not exist: chroma has half the resolution.",
                "Give the even height and width of the image, and the whole buffer as the array.",
            )
        if self.chroma_row is not None and self.chroma_row < self.height:
            raise MatchRTError(
                "image-array",
                f"The chroma of an NV12 frame cannot begin in row {self.chroma_row}, in {self.height} rows of luma.",
                "Leave chroma_row out, or give the decoder's aligned height.",
            )

    @property
    def chroma_begins(self) -> int:
        """The row of the array in which chroma begins."""
        return self.height if self.chroma_row is None else self.chroma_row

    @property
    def rows(self) -> int:
        """How many rows of the array are used."""
        return self.chroma_begins + self.height // 2

    def require_shape(self, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
        """Raises `image-array` unless an array of this shape and type holds the frame. name: what messages call it."""
        if dtype == np.uint8 and len(shape) == 2 and shape[0] >= self.rows and shape[1] >= self.width:
            return
        raise MatchRTError(
            "image-array",
            f"'{name}' is NV12 of {self.height}x{self.width} pixels in an array {dtype} {list(shape)}; "
            f"it takes uint8 of at least [{self.rows}, {self.width}].",
            "Pass the whole buffer as uint8 [height * 3 / 2, columns], and the image's height and width.",
        )

    def to_rgb(self, name: str = "array") -> UInt8Array:
        """The frame as RGB, uint8 `[height, width, 3]`. The array must be in host memory. Error: image-array."""
        return np.asarray(cv2.cvtColor(self.packed(name), cv2.COLOR_YUV2RGB_NV12), np.uint8)

    def packed(self, name: str = "array") -> UInt8Array:
        """The frame without padding, uint8 `[height * 3 / 2, width]`; the array itself if it has none, else a copy.

        The array must be in host memory. Error: image-array. name: what messages call it.
        """
        array = np.asarray(self.array)
        self.require_shape(array.shape, array.dtype, name)
        if self.chroma_begins == self.height:
            return np.ascontiguousarray(array[: self.rows, : self.width])
        return np.concatenate((array[: self.height, : self.width], array[self.chroma_begins : self.rows, : self.width]))
