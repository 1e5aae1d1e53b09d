"""The program of a decoding process: image files come through a socket, pixels go into memory shared with the service.

The service starts it with the numbers of two descriptors (process.py), and it answers until the socket closes. A
request is a JSON object and the file's bytes; an answer is a JSON object. Nothing is pickled, so that a decoder that an
image has taken over cannot make the service run code.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.runtime.image import Image, decode_image

# Addresses that Python, numpy and Pillow take before the first image; memory that is only reserved counts.
_OWN_BYTES = 1 << 30


def main(connection: Connection, memory: int) -> None:
    """Answers requests until the service closes the connection.

    memory: descriptor of the memory that the pixels go to; its size is the largest image's, in bytes.
    """
    _end_before_the_service()
    with connection, mmap.mmap(memory, 0) as shared:
        _limit_memory(len(shared))
        while True:
            try:
                head, data = connection.recv_bytes(), connection.recv_bytes()
            except (EOFError, OSError):  # the service has closed its end, or is gone
                return
            answer = _answer(json.loads(head), data, shared)
            connection.send_bytes(json.dumps(answer).encode("ascii"))


def _end_before_the_service() -> None:
    """Signals to the terminal's group are the service's to handle; if memory runs out, this process goes first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def _limit_memory(image_bytes: int) -> None:
    """Limits the memory of this process: decoders take several copies of an image, and some take 4 bytes a channel."""
    limit = _OWN_BYTES + 8 * image_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _answer(request: dict[str, Any], data: bytes, shared: mmap.mmap) -> dict[str, Any]:
    # The kernel ends the process at either limit. No decoder must take part in that, and no service be alive.
    signal.setitimer(signal.ITIMER_PROF, request["processor_seconds"])
    signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    try:
        image = decode_image(data, request["name"], max_pixels=request["max_pixels"])
        return _store(image, shared)
    except MatchRTError as error:
        return {"error": [error.code, error.message, error.remedy]}
    except MemoryError:
        return {"error": ["image-too-large", f"'{request['name']}' needs too much memory.", "Shrink the image."]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _store(image: Image, shared: mmap.mmap) -> dict[str, Any]:
    shared[: image.pixels.nbytes] = image.pixels.data.cast("B")
    return {"shape": image.pixels.shape, "orientation": image.orientation, "notice": image.notice}
