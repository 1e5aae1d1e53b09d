"""A request's body: on its way into memory, and there."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.serving.admission import Place
from matchrt.serving.failures import bad_request, busy, too_large

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
# A body must arrive within SECONDS, whatever the request's own deadline is, and after GRACE seconds as fast as RATE on
# average.
SECONDS = 30.0
GRACE = 5.0
RATE = 16_000
# The key of a request's body in its ASGI scope.
BODY = "matchrt.body"
ENCODINGS = ("identity", "gzip", "deflate")
_STEP = 1 << 20
# Bodies and messages of this many bytes are parsed one after another.
LARGE = 1_000_000


def allowed_seconds(size: int) -> float:
    """How long a body may have taken of which `size` bytes are there."""
    return min(SECONDS, GRACE + size / RATE)


class Body:
    """The bytes of a request that has a place. They are taken once, in the request's own thread.

    place: of the request.
    limit: the largest size, packed or unpacked, bytes.
    encoding: one of ENCODINGS.
    """

    def __init__(self, place: Place, limit: int, encoding: str = "identity") -> None:
        self.place = place
        self._limit, self._encoding = limit, encoding
        self._content = bytearray()

    async def read(self, receive: Receive) -> None:
        """Reads the body from an ASGI connection. Errors: body-too-large, body-slow, server-busy, request-invalid."""
        loop = asyncio.get_running_loop()
        work = asyncio.ensure_future(self._collect(receive))
        begun = loop.time()
        self.place.arriving(work.cancel)
        try:
            while not work.done():
                left = begun + allowed_seconds(len(self._content)) - loop.time()
                if left <= 0:
                    raise slow()
                await asyncio.wait((work,), timeout=left)
        finally:
            work.cancel()
            self.place.arrived()
        # A place may be lost to somebody who came after the last byte, but before this line.
        if self.place.lost:
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise busy()
        work.result()

    def take(self) -> bytearray:
        """The content, unpacked in steps. It is no longer here afterwards. Errors: request-invalid, body-too-large,
        server-busy.
        """
        packed, self._content = self._content, bytearray()
        return packed if self._encoding == "identity" else self._unpack(packed)

    @property
    def large(self) -> bool:
        """Whether parsing it may take long."""
        return self._encoding != "identity" or len(self._content) >= LARGE

    async def _collect(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise bad_request("The body ended before its length.", "Send it whole.")
            part = message.get("body", b"")
            if len(self._content) + len(part) > self._limit:
                raise too_large(self._limit)
            self.place.hold(len(part))
            self._content += part
            if not message.get("more_body", False):
                return

    def _unpack(self, packed: bytearray) -> bytearray:
        unpacker = zlib.decompressobj(31 if self._encoding == "gzip" else 15)
        content = bytearray()
        try:
            # Each step lets other threads run.
            for start in range(0, len(packed), _STEP):
                chunk, filled = bytes(packed[start : start + _STEP]), True
                while (chunk or filled) and not unpacker.eof:
                    part = unpacker.decompress(chunk, _STEP)
                    chunk, filled = unpacker.unconsumed_tail, len(part) == _STEP
                    if len(content) + len(part) > self._limit:
                        raise too_large(self._limit)
                    self.place.hold(len(part))
                    content += part
        except zlib.error as error:
            raise bad_request(f"The body is not {self._encoding}.", "Send it whole, or without an encoding.") from error
        if not unpacker.eof:
            raise bad_request(f"The body's {self._encoding} is cut off.", "Send it whole, or without an encoding.")
        self.place.hold(-len(packed))
        return content


def slow() -> MatchRTError:
    """The error of a body that comes too slowly."""
    what = f"The body took more than {SECONDS:g} seconds, or came more slowly than {RATE // 1000} kB a second."
    return MatchRTError("body-slow", what, "Send it faster.")
