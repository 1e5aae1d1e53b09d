"""The places for requests. Who has one may have a body in memory and a thread; everybody else is refused at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from matchrt.serving.failures import busy

# A body that has been on its way for longer gives its place to a newcomer who would find none.
PATIENCE = 1.0


class Place:
    """A request's place. Leave it when the request's work is done. No method but `hold` raises an error."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.held = 0
        self.lost = False
        self.left = False
        self.used = False
        self.begun = 0.0
        self.give_up: Callable[[], object] | None = None

    def arriving(self, give_up: Callable[[], object]) -> None:
        """Says that the request's body is on its way from now on.

        give_up: called, in the event loop's thread, if a newcomer gets this place; `lost` is then True.
        """
        self.begun, self.give_up = time.monotonic(), give_up
        self._admission.expect(self)

    def arrived(self) -> None:
        """Says that the body is whole: nobody takes this place away any more."""
        self._admission.expect_no_longer(self)

    def hold(self, size: int) -> None:
        """Counts bytes of the request that are in memory. Error: server-busy if all requests hold too many.

        size: bytes that come; negative for bytes that go.
        """
        self._admission.hold(self, size)

    def leave(self) -> None:
        """Gives the place back, once."""
        self._admission.leave(self)


class Admission:
    """A fixed number of places, and a limit of the bytes that all of them hold.

    places: how many requests may have one at a time.
    bytes_: of all bodies together.
    freed: called with the bytes that a place held, when it is left.
    """

    def __init__(self, places: int, bytes_: int, freed: Callable[[int], None] = lambda size: None) -> None:
        self.places, self._bytes, self._freed = places, bytes_, freed
        self._lock = threading.Lock()
        self._taken = self._held = 0
        # In the order in which they began. Only the event loop's thread adds and takes from it.
        self._arriving: dict[Place, None] = {}

    @property
    def taken(self) -> int:
        """The number of places taken."""
        return self._taken

    def enter(self) -> Place:
        """A place. Call it in the event loop's thread. Error: server-busy if none is free.

        If none is free but somebody's body has been on its way for longer than PATIENCE seconds, that place is taken
        away, so that slow bodies do not shut others out.
        """
        with self._lock:
            if self._taken < self.places:
                self._taken += 1
                return Place(self)
        slowest = next(iter(self._arriving), None)
        if slowest is None or time.monotonic() - slowest.begun < PATIENCE or slowest.give_up is None:
            raise busy()
        del self._arriving[slowest]
        slowest.lost = True
        slowest.give_up()
        return Place(self)

    def expect(self, place: Place) -> None:
        """Called by a place whose body is on its way."""
        self._arriving[place] = None

    def expect_no_longer(self, place: Place) -> None:
        """Called by a place whose body is whole, or does not come."""
        self._arriving.pop(place, None)

    def hold(self, place: Place, size: int) -> None:
        """Called by a place that holds more bytes, or fewer. Error: server-busy."""
        with self._lock:
            if size > 0 and self._held + size > self._bytes:
                raise busy()
            self._held += size
            place.held += size

    def leave(self, place: Place) -> None:
        """Called by a place that is given back."""
        with self._lock:
            if place.left:
                return
            place.left = True
            size, place.held = place.held, 0
            self._held -= size
            if not place.lost:
                self._taken -= 1
        self._freed(size)
