"""ROS images as `Matcher` takes them, and pictures as ROS images. Messages are read by their fields, without ROS."""

from __future__ import annotations

from array import array
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from matchrt import MatchRTError, Nv12


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image that are read here."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


# encoding: (channels, bytes of a value, order of the channels that `Matcher` takes as RGB or grey).
_PLAIN: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "mono8": (1, 1, (0,)),
    "8UC1": (1, 1, (0,)),
    "mono16": (1, 2, (0,)),
    "16UC1": (1, 2, (0,)),
    "rgb8": (3, 1, (0, 1, 2)),
    "bgr8": (3, 1, (2, 1, 0)),
    "rgba8": (4, 1, (0, 1, 2)),
    "bgra8": (4, 1, (2, 1, 0)),
}
ENCODINGS = (*_PLAIN, "nv12")


def image_of(message: ImageMessage) -> npt.NDArray[Any] | Nv12:
    """The image of a message: `[H, W]` uint8 or uint16, `[H, W, 3]` RGB uint8, or `Nv12`.

    Rows may have padding (`step`), and 16 bits either byte order. Grey and RGB are views of the message's bytes.
    Error: image-array for other encodings, and for bytes that do not fit height, width and step.
    """
    if message.encoding == "nv12":
        return _nv12(message)
    if message.encoding not in _PLAIN:
        raise _invalid(
            f"has the encoding '{message.encoding}'", f"Convert it to one of {', '.join(ENCODINGS)} (image_proc does)."
        )
    channels, size, order = _PLAIN[message.encoding]
    rows = _rows(message, message.height, channels * size * message.width)
    if size == 2:
        values = rows.view(np.dtype(">u2" if message.is_bigendian else "<u2"))
        return values.astype(np.uint16, copy=False)
    if channels == 1:
        return rows
    pixels = rows.reshape(message.height, message.width, channels)
    return pixels[:, :, :3] if order == (0, 1, 2) else np.ascontiguousarray(pixels[:, :, list(order)])


def _nv12(message: ImageMessage) -> Nv12:
    """Rows of luma, then half as many of chroma, all of `step` bytes. Error: image-array."""
    if message.height < 2 or message.width < 2 or message.height % 2 or message.width % 2:
        raise _invalid(f"is nv12 of {message.width}x{message.height}", "nv12 has even sides.")
    return Nv12(_rows(message, message.height * 3 // 2, message.width), message.height, message.width)


def _rows(message: ImageMessage, count: int, row_bytes: int) -> npt.NDArray[np.uint8]:
    """The bytes of the rows without their padding: uint8 `[count, row_bytes]`. Error: image-array."""
    data = np.frombuffer(message.data, np.uint8)
    step = message.step or row_bytes
    if message.height < 1 or message.width < 1:
        raise _invalid(f"has {message.width}x{message.height} pixels", "Look at the camera's driver.")
    if step < row_bytes:
        raise _invalid(f"has rows of {step} bytes, and its pixels need {row_bytes}", "Look at the camera's driver.")
    # The last row may lack its padding.
    if len(data) < step * (count - 1) + row_bytes:
        raise _invalid(f"has {len(data)} bytes, and {count} rows of {step} need more", "Look at the camera's driver.")
    if len(data) < step * count:
        data = np.concatenate([data, np.zeros(step * count - len(data), np.uint8)])
    return data[: step * count].reshape(count, step)[:, :row_bytes]


def _invalid(what: str, remedy: str) -> MatchRTError:
    return MatchRTError("image-array", f"The image {what}.", remedy)


def fill_rgb(message: Any, picture: npt.NDArray[np.uint8]) -> None:
    """Writes an RGB picture `[H, W, 3]` into a sensor_msgs/Image. The header is left as it is."""
    message.height, message.width = picture.shape[:2]
    message.encoding, message.is_bigendian, message.step = "rgb8", 0, 3 * picture.shape[1]
    # An array: the generated setter looks at every single byte of `bytes`.
    message.data = array("B", np.ascontiguousarray(picture).tobytes())
