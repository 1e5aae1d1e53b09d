"""What a run writes: a video of the pictures, and a JSON line for each frame.

Errors: output-format, output-unwritable.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from matchrt._util.atomic import atomic_path
from matchrt.errors import MatchRTError
from matchrt.runtime.decoding.values import UInt8Array

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
# Frames a second of a video whose frames come when they come; pictures are repeated to keep the time.
TIMED_FPS = 10.0
# Pictures that one frame may be repeated: after a gap the video goes on at once.
_MOST_REPEATS = 100
# cv2 does not tell that it could not write. So the disk is looked at, while there is room to end the file.
_ROOM, _ROOM_EVERY = 4 << 20, 10


def require_video_suffix(path: Path) -> None:
    """Error: output-format if no video can have such a name."""
    if path.suffix.lower() not in CODECS:
        raise MatchRTError(
            "output-format", f"--output '{path}' has no known suffix.", f"Use one of {', '.join(CODECS)}."
        )


class VideoFile:
    """A video that pictures are added to.

    path: where it is written. fps: frames a second. timed: whether a picture is repeated until the time of the next.
    """

    def __init__(self, path: Path, fps: float, *, timed: bool) -> None:
        self._path, self._fps, self._timed = path, fps, timed
        self._writer: Any = None
        self._shape: tuple[int, int] = (0, 0)
        self._written, self._first = 0, 0.0
        self._before: UInt8Array | None = None

    @property
    def begun(self) -> bool:
        """Whether any picture was written. Raises nothing."""
        return self._written > 0

    def add(self, picture: UInt8Array, seconds: float) -> None:
        """Adds a picture, uint8 RGB [h, w, 3] of always one size, that was seen at that time.

        Error: output-unwritable.
        """
        bgr = _even(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if self._writer is None:
            self._open(bgr, seconds)
        if bgr.shape[:2] != self._shape:  # only a folder's first frames, before the first keyframe, could differ
            bgr = np.asarray(cv2.resize(bgr, self._shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        if not self._timed:
            self._write(bgr)
            return
        if self._before is not None:
            due = int((seconds - self._first) * self._fps)
            for _ in range(min(due - self._written, _MOST_REPEATS)):
                self._write(self._before)
        self._before = bgr

    def close(self) -> bool:
        """Ends the video. Returns whether there is one. Error: output-unwritable if it is not whole."""
        if self._writer is None:
            return False
        if self._before is not None:
            self._writer.write(self._before)  # there was room for it when the one before was written
            self._written += 1
        self._writer.release()
        self._writer = None
        if not self._written:
            return False
        # cv2 reports no failure to write, such as a full disk.
        check = cv2.VideoCapture(str(self._path))
        found = int(check.get(cv2.CAP_PROP_FRAME_COUNT)) if check.isOpened() else 0
        check.release()
        if found < self._written:
            raise self._failed(f"{found} of {self._written} frames arrived")
        return True

    def _open(self, bgr: UInt8Array, seconds: float) -> None:
        self._shape, self._first = (int(bgr.shape[0]), int(bgr.shape[1])), seconds
        code = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._path), code, self._fps, self._shape[::-1])
        if not self._writer.isOpened():
            self._writer, self._shape = None, (0, 0)
            raise self._failed("OpenCV cannot write such a video here")

    def _write(self, bgr: UInt8Array) -> None:
        if self._written % _ROOM_EVERY == 0 and shutil.disk_usage(self._path.parent).free < _ROOM:
            raise self._failed("the disk is full")
        self._writer.write(bgr)
        self._written += 1

    def _failed(self, why: str) -> MatchRTError:
        return MatchRTError("output-unwritable", f"The video cannot be written: {why}.", "Choose a place with room.")


def _even(bgr: Any) -> UInt8Array:
    """Codecs want even sides."""
    rows, columns = bgr.shape[:2]
    even: UInt8Array = cv2.copyMakeBorder(bgr, 0, rows % 2, 0, columns % 2, cv2.BORDER_REPLICATE)
    return even


@contextmanager
def video_file(path: Path, fps: float, *, timed: bool) -> Iterator[VideoFile]:
    """A video that is at its path, whole, when the block ends; there is none if no picture came.

    fps: of the source. timed: whether its frames come when they come. Errors: output-format, output-unwritable.
    """
    require_video_suffix(path)
    with suppress(_NoPictureError), atomic_path(path) as temporary:
        video = VideoFile(temporary, min(fps, TIMED_FPS) if timed else fps, timed=timed)
        yield video
        if not video.close():
            raise _NoPictureError


class _NoPictureError(Exception):
    """Nothing was drawn: a video without frames cannot be read."""


class JsonLines:
    """JSON lines in a file or on stdout. Each line is there, whole, as soon as its frame is done.

    path: of the file, whose content is replaced; `-` for stdout. Error: output-unwritable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own: FileIO | None = None
        self._whole = 0  # bytes of the lines so far
        if str(path) != "-":
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._own = FileIO(path, "w")
            except (OSError, ValueError) as error:
                raise self._failed(error) from error

    def add(self, line: dict[str, Any]) -> None:
        """Writes a line; one for which there is no room is taken back. Error: output-unwritable."""
        text = json.dumps(line, allow_nan=False) + "\n"
        try:
            if self._own is None:
                sys.stdout.write(text)
                sys.stdout.flush()
            else:
                self._add(self._own, text.encode())
        except OSError as error:
            raise self._failed(error) from error

    def _add(self, file: FileIO, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):
                done += file.write(data[done:])
        except OSError:
            with suppress(OSError):
                file.truncate(self._whole)
            raise
        self._whole += len(data)

    def close(self) -> None:
        """Closes the file. Raises nothing: every line was written before."""
        if self._own is not None:
            with suppress(OSError):
                self._own.close()

    def _failed(self, error: Exception) -> MatchRTError:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return MatchRTError(
            "output-unwritable",
            f"Cannot write '{self._path}': {why}.",
            "Choose a place with room that can be written.",
        )
