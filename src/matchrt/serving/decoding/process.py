"""One decoding process, as the service sees it: its connection, and the memory that it writes pixels to."""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import InternalError, MatchRTError
from matchrt.runtime.image import Image
from matchrt.serving.failures import too_late

# It has the service's import path, and nothing from the folder that it starts in.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from multiprocessing.connection import Connection; "
    "from matchrt.serving.decoding.worker import main; "
    "main(Connection(int(sys.argv[2])), int(sys.argv[3]))"
)
# glibc gives the memory of each image back to the system, and gets it again for the next one, page by page, which takes
# as long as decoding. Up to these sizes it keeps it.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
_CHANNELS = 3
# Memory that a larger image used is given back to the system.
_KEPT_BYTES = 16 << 20
# The process may use this much more time than the request has. After that the kernel ends it, were the service gone.
_AFTER_THE_SERVICE = 1.0
# Answers of the process are shorter than this.
_ANSWER_BYTES = 1 << 16


@dataclass(frozen=True)
class Work:
    """An image file to decode.

    data: the file's bytes.
    name: what errors and `Image.name` call it.
    max_pixels: the largest height * width.
    processor_seconds: the processor time that decoding may take.
    seconds: the time that the request has left.
    """

    data: bytes
    name: str
    max_pixels: int
    processor_seconds: float
    seconds: float


class DecodingProcess:
    """A process that decodes one image at a time.

    max_pixels: of the largest image that it can return. The memory for it is not taken before pixels are written.
    Error: decoder-start if no process can be started.
    """

    def __init__(self, max_pixels: int) -> None:
        self._bytes = max_pixels * _CHANNELS
        # Whether it waits for an image. A process that is not idle cannot be used again.
        self.idle = True
        try:
            with contextlib.ExitStack() as opened:
                self._memory = _shared_memory()
                opened.callback(os.close, self._memory)
                os.ftruncate(self._memory, self._bytes)
                self._view = mmap.mmap(self._memory, self._bytes, access=mmap.ACCESS_READ)
                opened.callback(self._view.close)
                self._process, self._connection = _start(self._memory)
                opened.pop_all()
        except OSError as error:
            raise InternalError(
                "decoder-start",
                f"A process that decodes images cannot be started: {error.strerror or error}.",
                "Allow this user more processes, memory and open files.",
            ) from error

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def begin(self, work: Work) -> None:
        """Sends an image to the process. Error: EOFError if the process has ended."""
        self.idle = False
        head = {
            "name": work.name,
            "max_pixels": work.max_pixels,
            "processor_seconds": work.processor_seconds,
            "seconds": work.seconds + _AFTER_THE_SERVICE,
        }
        try:
            self._connection.send_bytes(json.dumps(head).encode("ascii"))
            self._connection.send_bytes(work.data)
        except OSError as error:
            raise EOFError from error

    def done(self, seconds: float) -> bool:
        """Whether the answer is there, or the process has ended, after at most `seconds`. Raises nothing."""
        return self._connection.poll(seconds)

    def result(self, work: Work) -> Image:
        """The decoded image, which owns its pixels. It waits for the answer.

        Errors: those of `decode_image`, EOFError if the process has ended.
        """
        try:
            answer: dict[str, Any] = json.loads(self._connection.recv_bytes(_ANSWER_BYTES))
        except OSError as error:
            raise EOFError from error
        self.idle = True
        if "error" in answer:
            raise MatchRTError(*answer["error"])
        return Image(self._take(tuple(answer["shape"])), work.name, answer["orientation"], answer["notice"])

    def why_it_ended(self, work: Work) -> MatchRTError:
        """The error of the image that ended the process. It is returned, not raised: image-slow, image-crash,
        deadline-exceeded.
        """
        code = self._process.wait()
        if code == -signal.SIGALRM:
            return too_late()
        if code == -signal.SIGPROF:
            return MatchRTError(
                "image-slow",
                f"'{work.name}' takes more than {work.processor_seconds:g} s of processor time to decode.",
                "Save it again as a plain JPEG or PNG, or ask for a longer --decode-seconds.",
            )
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return MatchRTError(
            "image-crash",
            f"The decoder of '{work.name}' broke down ({how}).",
            "Save it again as a plain JPEG or PNG; if the system ended it, give the service more memory.",
        )

    def kill(self) -> None:
        """Ends the process at once, whatever it does; whoever waits for its answer gets EOFError. Raises nothing."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process and frees its memory. Raises nothing."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._view.close()
        os.close(self._memory)

    def _take(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        count = math.prod(shape)
        pixels: npt.NDArray[np.uint8] = np.frombuffer(self._view, np.uint8, count).reshape(shape).copy()
        if count > _KEPT_BYTES:
            os.ftruncate(self._memory, 0)
            os.ftruncate(self._memory, self._bytes)
        return pixels


def _shared_memory() -> int:
    """A descriptor of memory that has no name, so that nothing is left of it when both processes are gone.

    Containers limit /dev/shm to 64 MB, but not this.
    """
    if sys.platform == "linux":
        return os.memfd_create("matchrt-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _start(memory: int) -> tuple[subprocess.Popen[bytes], Connection]:
    own, other = socket.socketpair()
    with own, other:
        command = [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(other.fileno()), str(memory)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(other.fileno(), memory),
            env={**_KEEP_MEMORY, **os.environ},
        )
        return process, Connection(own.detach())
