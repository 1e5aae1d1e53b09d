"""The decoding processes of a service."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

from matchrt.errors import MatchRTError
from matchrt.runtime.image import Image
from matchrt.serving.call import Call
from matchrt.serving.decoding.process import DecodingProcess, Work
from matchrt.serving.failures import draining

# How often a request that waits for its image looks whether anybody still waits for the request, seconds.
_LOOK = 0.05


class Decoders:
    """Decodes image files in `count` processes. Several threads may use it.

    count: number of processes, and so of images that are decoded at the same time.
    max_pixels: the largest height * width of an image.
    processor_seconds: processor time that one image may take.
    ended: called whenever a process was ended, or ended itself, because of an image.

    A process starts when an image first needs it, or with `start`.
    """

    def __init__(self, count: int, max_pixels: int, processor_seconds: float, ended: Callable[[], None]) -> None:
        self._max_pixels, self._processor_seconds = max_pixels, processor_seconds
        self._slots = [_Slot(max_pixels, ended) for _ in range(count)]
        # The slot that was used last is used next: its process is warm.
        self._free: queue.LifoQueue[_Slot] = queue.LifoQueue()
        for slot in self._slots:
            self._free.put(slot)
        self._closed = False

    def start(self) -> None:
        """Starts all processes, so that the first images need not wait for them. Call it before the first `decode`.

        Error: decoder-start.
        """
        for slot in self._slots:
            slot.start()

    def decode(self, data: bytes, name: str, call: Call) -> Image:
        """The image as uint8 `[H, W, 3]` RGB or `[H, W]` grey, as `decode_image` reads it.

        name: what errors and `Image.name` call it.
        call: the request. If its time is over, or nobody waits for it any more, the process is ended.
        Errors: those of `decode_image` and of `Call.check`; image-slow, image-crash, decoder-start, server-draining.
        """
        slot = self._next(call)
        try:
            work = Work(data, name, self._max_pixels, self._processor_seconds, call.left())
            return slot.decode(work, self._watched(call))
        finally:
            self._free.put(slot)

    def close(self) -> None:
        """Ends all processes at once. Images under way fail with server-draining. Raises nothing."""
        self._closed = True
        for slot in self._slots:
            slot.close()

    def _next(self, call: Call) -> _Slot:
        check = self._watched(call)
        while True:
            check()
            try:
                return self._free.get(timeout=_LOOK)
            except queue.Empty:
                continue

    def _watched(self, call: Call) -> Callable[[], None]:
        def check() -> None:
            if self._closed:
                raise draining()
            call.check()

        return check


class _Slot:
    """The place of one process. One thread at a time decodes here; any thread may close it."""

    def __init__(self, max_pixels: int, ended: Callable[[], None]) -> None:
        self._max_pixels, self._ended = max_pixels, ended
        self._process: DecodingProcess | None = None
        self._busy = False
        self._closed = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Starts the slot's process, if it does not run. Errors: decoder-start, server-draining."""
        with self._lock:
            self._running()

    def decode(self, work: Work, check: Callable[[], None]) -> Image:
        """The decoded image. check: raises if the work is of no use any more. Errors: as of `Decoders.decode`."""
        with self._lock:
            process = self._running()
            self._busy = True
        try:
            process.begin(work)
            while not process.done(_LOOK):
                check()
            return process.result(work)
        except EOFError:
            check()  # the service closes, or the request's time is over: this says more than how the process ended
            raise process.why_it_ended(work) from None
        finally:
            self._leave(process)

    def close(self) -> None:
        """Ends the process. Raises nothing."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                if not self._busy:
                    self._drop(self._process)

    def _running(self) -> DecodingProcess:
        if self._closed:
            raise draining()
        if self._process is not None and self._process.ended:  # the system has ended it while it was idle
            self._drop(self._process)
        if self._process is None:
            self._process = DecodingProcess(self._max_pixels)
        return self._process

    def _leave(self, process: DecodingProcess) -> None:
        with self._lock:
            self._busy = False
            if self._closed or not process.idle:
                self._drop(process)
            if not self._closed and self._process is None:
                # The next one starts now, so that no image waits for it. If it cannot, the next image says why.
                with contextlib.suppress(MatchRTError):
                    self._running()
        if not process.idle:
            self._ended()

    def _drop(self, process: DecodingProcess) -> None:
        process.close()
        self._process = None
