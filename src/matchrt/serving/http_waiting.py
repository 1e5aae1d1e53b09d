"""How long an HTTP request may take, and what happens when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from fastapi import Request

from matchrt.serving.failures import abandoned, bad_request

T = TypeVar("T")
TIMEOUT_HEADER = "X-Request-Timeout"


def read_timeout(request: Request, longest: float) -> float:
    """The seconds that a request may take: its own limit, but at most the service's, `longest`.

    Error: request-invalid.
    """
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return longest
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 < seconds <= 1e6:
        raise bad_request(f"{TIMEOUT_HEADER} is not a number of seconds.", "Give, for instance, 2.5.")
    return min(seconds, longest)


async def unless_gone(request: Request, work: asyncio.Future[T]) -> T:
    """The work's result. If the connection closes, the work is cancelled.

    Errors: those of the work; request-abandoned, which nobody sees.
    """
    gone = asyncio.ensure_future(_disconnected(request))
    gone.add_done_callback(lambda _: work.cancel())
    try:
        return await work
    except asyncio.CancelledError:
        if gone.done():
            raise abandoned() from None
        raise
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
