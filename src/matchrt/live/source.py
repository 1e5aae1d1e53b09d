"""Sources of frames: a camera's number, a video file, a folder of images, or the address of a stream.

| code          | meaning                                                               |
| ------------- | --------------------------------------------------------------------- |
| live-missing  | there is no such file, folder, camera or stream, or it cannot be read |
| live-format   | the file is no video that OpenCV decodes, or the address is of no known kind |
| live-ended    | a camera or stream ended, or a file before the end that it announces  |
"""

from __future__ import annotations

import stat
import time
from pathlib import Path
from urllib.parse import urlsplit

from matchrt._util.text import shortened
from matchrt.errors import MatchRTError
from matchrt.live.capture import Capture, open_address, open_camera, open_file
from matchrt.live.frame import Feed, Frame
from matchrt.runtime.decoding.values import UInt8Array
from matchrt.runtime.image import MAX_PIXELS, read_image
from matchrt.runtime.pairs import read_folder

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
# Frames a second of a folder of images.
FOLDER_FPS = 25.0
_KINDS = "Name a camera's number, a video file, a folder of images, or an address such as rtsp://HOST/PATH."


def open_feed(source: str, timeout: float = 10.0, max_pixels: int = MAX_PIXELS) -> Feed:
    """Opens a source.

    source: a camera's number; the address of a stream; a file's path; a folder's path.
    timeout: seconds that a stream may take to answer, and for each of its frames.
    max_pixels: of an image of a folder.
    Errors: live-missing, live-format; pairs-missing if a folder cannot be read.
    """
    if source.isascii() and source.isdigit():
        return open_camera(int(source[:9]))
    if "://" in source:
        return _open_address(source, timeout)
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise MatchRTError("live-missing", f"There is no file or folder '{shortened(source)}'.", _KINDS) from error
    if stat.S_ISDIR(mode):
        return FolderFeed(path, max_pixels)
    if not stat.S_ISREG(mode):
        raise MatchRTError("live-missing", f"'{path}' is neither a file nor a folder.", _KINDS)
    return open_file(path)


def _open_address(address: str, timeout: float) -> Capture:
    try:
        scheme = urlsplit(address).scheme.lower()
    except ValueError:
        scheme = ""
    if scheme not in SCHEMES:
        raise MatchRTError(
            "live-format",
            f"'{shortened(scheme or address)}' is no kind of stream.",
            f"Use {', '.join(SCHEMES)}.",
        )
    return open_address(address, timeout)


class FolderFeed:
    """The images of a folder in their natural order, as the frames of a video.

    An image that cannot be read gives a frame without pixels. Errors: live-missing if there is no image; pairs-missing.
    """

    live = False
    fps = FOLDER_FPS

    def __init__(self, folder: Path, max_pixels: int = MAX_PIXELS) -> None:
        self._paths = read_folder(folder)[0]
        self._max_pixels = max_pixels
        self._next = 0
        self.name = str(folder)
        if not self._paths:
            raise MatchRTError("live-missing", f"There are no images in '{folder}'.", "Name a folder of images.")

    @property
    def total(self) -> int:
        """The number of images. Raises nothing."""
        return len(self._paths)

    def read(self) -> Frame | None:
        """The next image; None at the end. Raises nothing."""
        if self._next >= len(self._paths):
            return None
        index, path = self._next, self._paths[self._next]
        self._next += 1
        pixels: UInt8Array | None = None
        problem: MatchRTError | None = None
        try:
            pixels = read_image(path, max_pixels=self._max_pixels).rgb()
        except MatchRTError as error:
            problem = error
        return Frame(index, index / self.fps, time.perf_counter(), path.name, pixels, problem)

    def close(self) -> None:
        """Raises nothing."""
