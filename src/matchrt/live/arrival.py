"""How frames come to the engine: each in its turn, or the newest one while older ones are dropped.

A live source does not wait. A thread reads it all the time and keeps the newest frame only, so that what is matched is
what the camera sees now, and memory stays the same however slow the engine is.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Protocol

from matchrt.errors import MatchRTError
from matchrt.live.frame import Feed, Frame

_STEP_SECONDS = 0.1
# Seconds to wait for the reader's thread; one that hangs in a driver is left behind.
_JOIN_SECONDS = 2.0


class Arrival(Protocol):
    """Gives the frames of a feed."""

    @property
    def dropped(self) -> int:
        """How many frames were dropped."""
        ...

    def next(self, stop: threading.Event) -> Frame | None:
        """Waits for a frame; None at the end, or once `stop` is set. Errors: live-stalled, those of the feed."""
        ...

    def close(self) -> None:
        """Closes the feed. Raises nothing."""
        ...


class InTurn:
    """Every frame of a feed, read when it is asked for, by a thread: a read may hang where the file is on a network."""

    dropped = 0

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._read: SimpleQueue[Frame | Exception | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._read_all, name="matchrt-live-source", daemon=True)
        self._thread.start()

    def next(self, stop: threading.Event) -> Frame | None:
        """The next frame; None at the end, or once `stop` is set. Errors: those of the feed."""
        if not stop.is_set():
            self._asked.put(True)
        while not stop.is_set():
            try:
                found = self._read.get(timeout=_STEP_SECONDS)
            except Empty:
                continue
            if isinstance(found, Exception):
                raise found
            return found
        return None

    def close(self) -> None:
        """Ends the thread, which closes the feed. Raises nothing."""
        self._asked.put(False)
        self._thread.join(_JOIN_SECONDS)

    def _read_all(self) -> None:
        try:
            while self._asked.get():
                try:
                    self._read.put(self._feed.read())
                except Exception as error:
                    self._read.put(error)
        finally:
            self._feed.close()


class Newest:
    """The newest frame of a feed, which a thread reads at the feed's own pace.

    feed: a live one; or one that is not, whose frames then come at its frames a second.
    timeout: seconds without a frame after which a live feed counts as stalled.
    """

    def __init__(self, feed: Feed, timeout: float) -> None:
        self._feed, self._timeout = feed, timeout
        self.dropped = 0
        self._frame: Frame | None = None
        self._failure: Exception | None = None
        self._ended = False
        self._heard = time.perf_counter()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read_all, name="matchrt-live-source", daemon=True)
        self._thread.start()

    def next(self, stop: threading.Event) -> Frame | None:
        """Waits for a frame that was not given yet; None at the end, or once `stop` is set.

        Errors: live-stalled, those of the feed.
        """
        with self._changed:
            while not stop.is_set():
                if self._frame is not None:
                    frame, self._frame = self._frame, None
                    return frame
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    return None
                if self._feed.live and time.perf_counter() - self._heard > self._timeout:
                    raise MatchRTError(
                        "live-stalled",
                        f"'{self._feed.name}' gave no frame for {self._timeout:g} seconds.",
                        "Check the camera or network, or allow more time by --timeout.",
                    )
                self._changed.wait(_STEP_SECONDS)
        return None

    def close(self) -> None:
        """Ends the thread, which closes the feed. Raises nothing."""
        self._closed.set()
        self._thread.join(_JOIN_SECONDS)

    def _read_all(self) -> None:
        start = time.perf_counter()
        try:
            while not self._closed.is_set():
                frame = self._feed.read()
                if frame is None:
                    break
                if not self._feed.live:
                    self._closed.wait(max(start + frame.time - time.perf_counter(), 0.0))
                    frame = replace(frame, arrived=time.perf_counter())
                self._keep(frame)
        except Exception as error:
            self._failure = error
        finally:
            self._feed.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _keep(self, frame: Frame) -> None:
        with self._changed:
            self.dropped += self._frame is not None
            self._frame, self._heard = frame, time.perf_counter()
            self._changed.notify_all()


def arrival_of(feed: Feed, *, realtime: bool, timeout: float) -> Arrival:
    """How a feed's frames come: the newest one if it is live or is to be played in real time, else each in its turn.

    timeout: seconds without a frame after which it counts as stalled. Raises nothing.
    """
    return Newest(feed, timeout) if feed.live or realtime else InTurn(feed)
