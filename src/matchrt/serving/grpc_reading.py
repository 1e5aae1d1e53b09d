"""Messages of gRPC calls: waited for, counted, parsed, and large ones one after another.

grpc joins a message's pieces, and copies them, in the event loop, as soon as the last one is there: a millisecond for
each megabyte. Several that end together would delay everything else. So each waits for a turn, and a turn lasts as long
again, for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any

from google.protobuf.message import DecodeError

from matchrt.serving.admission import Place
from matchrt.serving.body import slow
from matchrt.serving.failures import abandoned, busy
from matchrt.serving.grpc_bounds import damaged
from matchrt.serving.grpc_messages import message

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


async def read(context: Any, turns: asyncio.Lock, place: Place, seconds: float) -> bytes | None:
    """The call's next message; None if the client has ended its side.

    turns: a lock that all readings share. place: of the request; it counts the message's bytes. seconds: how long to
    wait for the message. Errors: body-slow; server-busy if others got the place or hold too much; request-abandoned.
    """

    async def in_turn() -> Any:
        return await InTurn(context.read(), turns)

    # It is never cancelled, because grpc may still write into what it waits for. It ends when the call does.
    work = asyncio.ensure_future(in_turn())
    work.add_done_callback(lambda done: done.cancelled() or done.exception())
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def give_up() -> None:
        if not lost.done():
            lost.set_result(None)

    place.arriving(give_up)
    try:
        await asyncio.wait((work, lost), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        place.arrived()
    if place.lost:
        raise busy()
    if not work.done():
        raise slow()
    try:
        raw = work.result()
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "grpc":  # of the ways in which it says that the client has gone
            raise abandoned() from None
        raise
    if not isinstance(raw, bytes):
        return None
    place.hold(len(raw))
    return raw


async def read_whole(context: Any, turns: asyncio.Lock, place: Place, seconds: float) -> bytes:
    """The message of a call that has one. Errors: those of `read`, request-invalid."""
    raw = await read(context, turns, place, seconds)
    if raw is None:
        raise damaged()
    return raw


def parse(name: str, raw: bytes) -> Any:
    """The message of that name that the bytes are. Error: request-invalid."""
    try:
        return message(name).FromString(raw)
    except DecodeError as error:
        raise damaged() from error
