"""Cameras, video files and streams, which OpenCV reads. Errors: live-missing, live-format, live-ended."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import cv2
import numpy as np

from matchrt.errors import MatchRTError
from matchrt.live.frame import Frame
from matchrt.runtime.decoding.values import UInt8Array

# Where a source does not say how many frames a second it has, or says what no camera has.
_USUAL_FPS, _MOST_FPS = 25.0, 1000.0
# A file may have this share of its frames and this number of frames less than it says; more is missing.
_MISSING_SHARE, _MISSING_FRAMES = 0.1, 5
# Frames in a row that cannot be decoded, after which others are looked for no more.
_MOST_DAMAGED = 250


class Capture:
    """Frames of a `cv2.VideoCapture`.

    capture: that is open.
    name: the source in words.
    live: whether frames come whether they are read or not.
    on_disk: whether it is a file here, in which one may read on after a frame that cannot be decoded. Elsewhere each
        try would take the time after which a stream counts as stalled.
    """

    def __init__(self, capture: Any, name: str, *, live: bool, on_disk: bool = False) -> None:
        self._capture, self.name, self.live, self._on_disk = capture, name, live, on_disk
        fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = float(fps) if math.isfinite(fps) and 0 < fps <= _MOST_FPS else _USUAL_FPS
        self.total = None if live or not 0 < count < 2**40 else int(count)
        self._next, self._start = 0, time.perf_counter()
        # Frames that cannot be decoded, by number, and the pixels of the one after them, which was read to know it.
        self._ahead: tuple[int, Any] | None = None

    def read(self) -> Frame | None:
        """Waits for the next frame; None at the end of a file. Error: live-ended.

        A frame of a file that cannot be decoded has no pixels, if others follow it.
        """
        if self._ahead is None:
            pixels = self._decoded()
            if pixels is not None:
                return self._frame(pixels)
            if not self._looked_ahead():
                self._require_end()
                return None
        return self._from_ahead()

    def _decoded(self) -> Any:
        try:
            good, pixels = self._capture.read()
        except cv2.error:
            return None
        return pixels if good and pixels is not None and pixels.size else None

    def _looked_ahead(self) -> bool:
        """Whether a file has a frame that can be decoded after one that cannot."""
        left = _MOST_DAMAGED if self.total is None else min(self.total - self._next - 1, _MOST_DAMAGED)
        for damaged in range(1, left + 1) if self._on_disk else ():
            pixels = self._decoded()
            if pixels is not None:
                self._ahead = damaged, pixels
                return True
        return False

    def _from_ahead(self) -> Frame:
        """One of the frames that cannot be decoded, or the one after them."""
        assert self._ahead is not None
        damaged, pixels = self._ahead
        self._ahead = (damaged - 1, pixels) if damaged else None
        return self._frame(None if damaged else pixels)

    def _frame(self, pixels: Any) -> Frame:
        index, arrived = self._next, time.perf_counter()
        self._next += 1
        seconds, name = arrived - self._start if self.live else index / self.fps, f"frame {index}"
        if pixels is not None:
            return Frame(index, seconds, arrived, name, _rgb(pixels))
        problem = MatchRTError(
            "image-truncated", f"Frame {index} of '{self.name}' cannot be decoded.", "Copy or record the video again."
        )
        return Frame(index, seconds, arrived, name, None, problem)

    def close(self) -> None:
        """Frees the camera or file. Raises nothing."""
        self._capture.release()

    def _require_end(self) -> None:
        if self.live:
            raise MatchRTError(
                "live-ended", f"'{self.name}' gave no more frames after {self._next}.", "Check the camera or stream."
            )
        if not self._next:
            raise MatchRTError(
                "live-ended", f"'{self.name}' has no frame that can be decoded.", "Copy or record it again."
            )
        if self.total is None or self._next >= self.total * (1 - _MISSING_SHARE) - _MISSING_FRAMES:
            return
        raise MatchRTError(
            "live-ended",
            f"'{self.name}' says that it has {self.total} frames, but only {self._next} can be decoded.",
            "Copy or record it again; the frames before were used.",
        )


def _rgb(pixels: Any) -> UInt8Array:
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def open_camera(number: int) -> Capture:
    """The camera of that number. Error: live-missing."""
    with _quiet():
        capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise MatchRTError(
            "live-missing",
            f"There is no camera {number}, or another program uses it.",
            "Connect it, try another number from 0, or name a video file.",
        )
    return Capture(capture, f"camera {number}", live=True)


def open_file(path: Path) -> Capture:
    """A video file. Error: live-format."""
    with _quiet():
        capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise MatchRTError(
            "live-format",
            f"'{path}' cannot be read as a video: it is of another kind, damaged, or not allowed to be read.",
            "Convert it to MP4 (H.264), or name a folder for images.",
        )
    return Capture(capture, str(path), live=False, on_disk=True)


def open_address(address: str, timeout: float) -> Capture:
    """The stream at an address, or the video file there.

    timeout: seconds that it may take to answer, and for each frame. Error: live-missing.
    """
    name, wait = without_password(address), int(min(timeout, 1e6) * 1e3)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
    with _quiet():
        capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise MatchRTError(
            "live-missing",
            f"No video comes from '{name}' within {timeout:g} seconds.",
            "Check the address, the network and the login.",
        )
    return Capture(capture, name, live=not capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0)


def without_password(address: str) -> str:
    """An address without user, password and query, which hold secrets. Raises nothing."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "the stream"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps OpenCV from writing to stderr what the error says in words."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
