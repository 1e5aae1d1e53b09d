"""Large messages of gRPC one after another.

grpc joins a message's pieces, and copies them, in the event loop, as soon as the last one is there: a millisecond for
each megabyte. Several that end together would delay everything else. So each waits for a turn, and a turn lasts as long
again, for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any

# Bytes of a message after which the event loop is left to others for a second.
_RATE = 1e9


class InTurn:
    """Awaits something that reads a message, and lets it go on only in turn. Gives what it gives.

    reading: gives the message's bytes.
    turns: a lock that all readings share.
    """

    def __init__(self, reading: Awaitable[Any], turns: asyncio.Lock) -> None:
        self._reading, self._turns = reading, turns

    def __await__(self) -> Generator[Any, None, Any]:
        """Awaits it. Errors: those of `reading`."""
        steps = self._reading.__await__()
        held = False
        while True:
            try:
                wait = next(steps)
            except StopIteration as end:
                if held and isinstance(end.value, bytes):
                    yield from asyncio.sleep(len(end.value) / _RATE).__await__()
                return end.value
            finally:
                if held:
                    self._turns.release()
            # The message is whole when this is done; the step after it joins it.
            yield wait
            yield from self._turns.acquire().__await__()
            held = True
