"""Places: how many there are, what their holders may keep in memory, and who loses one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from matchrt.errors import MatchRTError
from matchrt.serving import admission, body
from matchrt.serving.admission import Admission, Place
from matchrt.serving.body import Body


def code_of(action: Any, *arguments: Any) -> str:
    with pytest.raises(MatchRTError) as caught:
        action(*arguments)
    return caught.value.code


def sending(*parts: bytes, pause: float = 0.0, ends: bool = True) -> Any:
    """An ASGI connection that sends those parts, and then nothing if the body does not end."""
    left = list(parts)

    async def receive() -> Any:
        if not left:
            await asyncio.sleep(30)
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or not ends}

    return receive


def test_no_more_places_than_there_are() -> None:
    freed: list[int] = []
    places = Admission(2, 100, freed.append)
    first, second = places.enter(), places.enter()
    assert code_of(places.enter) == "server-busy" and places.taken == 2
    first.hold(60)
    assert code_of(second.hold, 50) == "server-busy"
    second.hold(40)
    first.leave()
    first.leave()
    assert places.taken == 1 and freed == [60]
    third = places.enter()
    third.hold(60)
    assert code_of(third.hold, 1) == "server-busy"
    third.hold(-20)
    third.hold(20)
    assert code_of(places.enter) == "server-busy"


def test_only_a_slow_body_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    places, lost = Admission(2, 100), []
    working, reading = places.enter(), places.enter()
    reading.arriving(lambda: lost.append(reading))
    assert code_of(places.enter) == "server-busy"  # too soon
    monkeypatch.setattr(admission, "PATIENCE", 0.0)
    newcomer = places.enter()
    assert lost == [reading] and reading.lost and places.taken == 2
    reading.leave()
    assert places.taken == 2
    newcomer.arriving(lambda: lost.append(newcomer))
    newcomer.arrived()
    assert code_of(places.enter) == "server-busy"  # its body is whole
    newcomer.leave()
    working.leave()
    assert places.taken == 0


def read(parts: Any, place: Place, limit: int = 100, encoding: str = "identity") -> Any:
    async def main() -> Any:
        one = Body(place, limit, encoding)
        await one.read(parts)
        return bytes(one.take())

    try:
        return asyncio.run(main())
    except MatchRTError as error:
        return error.code


def test_a_body_arrives_in_time_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Admission(1, 1000)
    assert read(sending(b"a", b"bc", b""), places.enter()) == b"abc"
    places = Admission(1, 1000)
    assert read(sending(b"a" * 60, b"b" * 41), places.enter()) == "body-too-large"
    monkeypatch.setattr(body, "GRACE", 0.1)
    monkeypatch.setattr(body, "SECONDS", 0.3)
    for parts, rate in ((sending(), 1e9), (sending(b"a", ends=False), 1e9), (sending(*[b"a"] * 99, pause=0.02), 100)):
        monkeypatch.setattr(body, "RATE", rate)
        place, start = Admission(1, 1000).enter(), time.monotonic()
        assert read(parts, place) == "body-slow"
        assert 0.05 < time.monotonic() - start < 5
    # Fast enough on average, though not at once.
    monkeypatch.setattr(body, "RATE", 10)
    assert read(sending(*[b"a"] * 8, pause=0.02), Admission(1, 1000).enter()) == b"a" * 8


def test_a_slow_body_hears_that_its_place_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 0.0)

    async def main(ends: bool) -> Any:
        places = Admission(1, 1000)
        slow = Body(places.enter(), 100)
        work = asyncio.ensure_future(slow.read(sending(b"a", ends=ends)))
        # With the last byte, or after it but before the reader has heard of it.
        for _ in range(3 if ends else 9):
            await asyncio.sleep(0)
        places.enter()
        try:
            await work
        except MatchRTError as error:
            return error.code
        return places.taken

    assert asyncio.run(main(False)) == "server-busy"
    assert asyncio.run(main(True)) == "server-busy"


def test_a_client_that_goes_takes_nothing_with_it() -> None:
    async def gone() -> Any:
        return {"type": "http.disconnect"}

    places = Admission(1, 1000)
    assert read(gone, places.enter()) == "request-invalid"
    assert places._arriving == {}
