"""Opens a source without waiting for ever: OpenCV neither hears Ctrl-C nor keeps to a limit in every protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from matchrt.errors import MatchRTError
from matchrt.live.capture import without_password
from matchrt.live.frame import Feed

_STEP_SECONDS = 0.1


@dataclass
class _Opening:
    """What the thread has come to. given_up: nobody waits any more, and a source that opens now is closed again."""

    feed: Feed | None = None
    failure: Exception | None = None
    given_up: bool = False


def open_within(open_it: Callable[[], Feed], name: str, limit: float, stop: threading.Event) -> Feed | None:
    """The source that a function opens; None once `stop` is set. A thread that hangs in a driver is left behind.

    name: of the source, for the message. limit: seconds. Errors: those of the function; live-missing after the limit.
    """
    state, done, lock = _Opening(), threading.Event(), threading.Lock()

    def work() -> None:
        try:
            feed = open_it()
            with lock:
                state.feed = feed
                unwanted = state.given_up
            if unwanted:
                feed.close()
        except Exception as error:
            state.failure = error
        finally:
            done.set()

    threading.Thread(target=work, name="matchrt-live-opening", daemon=True).start()
    end = time.monotonic() + limit
    while not done.wait(_STEP_SECONDS) and not stop.is_set() and time.monotonic() < end:
        pass
    with lock:
        if state.feed is not None and not stop.is_set():
            return state.feed
        state.given_up = True
    if state.feed is not None:
        state.feed.close()
    if stop.is_set():
        return None
    raise state.failure or MatchRTError(
        "live-missing",
        f"No video comes from '{without_password(name)}' within {limit:g} seconds.",
        "Check the address, the network and the login.",
    )
