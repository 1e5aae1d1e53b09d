"""Places, deadlines, batches and the end of a service, on an engine that waits as long as a test wants."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.serving_stub import SIDE, StubSession, opened

from matchrt.errors import InternalError, MatchRTError
from matchrt.runtime.image import Image
from matchrt.serving import service as serving
from matchrt.serving.call import Call
from matchrt.serving.models import models_of, pair_job
from matchrt.serving.options import ServeOptions
from matchrt.serving.service import Service
from matchrt.serving.wishes import Wishes


def plain(value: int) -> Image:
    return Image(np.full((SIDE, SIDE), value, np.uint8), f"plain {value}")


async def ask(service: Service, value: int, seconds: float = 20.0) -> float:
    """Matches two images of one grey value; what comes back is that value."""
    engine = service.engine(None)
    image = plain(value)
    call, reads = Call(seconds), (lambda: image, lambda: image)
    matches = await service.run(engine, call, lambda: pair_job(engine, reads, Wishes(), call)[0])
    assert len(matches) == 1
    return float(matches.keypoints0[0, 0])


async def settled(check: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


def together(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    async def main() -> list[Any]:
        return await asyncio.gather(*works, return_exceptions=True)

    return asyncio.run(main())


def pairs_run(service: Service) -> float:
    """The pairs of all runs so far, by the metrics."""
    found = re.search(rb'^matchrt_run_pairs_sum\{engine="loftr-lite"\} (\S+)$', service.metrics.text(), re.M)
    assert found is not None
    return float(found[1])


def codes(answers: list[Any]) -> list[str]:
    return [answer.code if isinstance(answer, MatchRTError) else "ok" for answer in answers]


def test_a_full_queue_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    with opened(monkeypatch, session, workers=1, queue=2) as service:

        async def crowd() -> tuple[list[Any], float]:
            session.go.clear()
            first = [asyncio.ensure_future(ask(service, value)) for value in (10, 20, 30)]
            await settled(lambda: service._taken == 3)
            start = time.perf_counter()
            refused = await asyncio.gather(*(ask(service, 40) for _ in range(20)), return_exceptions=True)
            took = time.perf_counter() - start
            session.go.set()
            return [*refused, *await asyncio.gather(*first)], took

        answers, took = asyncio.run(crowd())
        assert codes(answers[:20]) == ["server-busy"] * 20 and took < 1.0
        assert answers[20:] == [10, 20, 30]
        assert b"matchrt_refused_total 20.0" in service.metrics.text()
        assert together(ask(service, 50)) == [50]


def test_pairs_that_wait_together_share_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession(batch=4)
    with opened(monkeypatch, session, queue=20, batch_wait=10.0) as service:

        async def crowd() -> list[Any]:
            session.go.clear()
            values = [*range(10, 130, 10)]
            works = [asyncio.ensure_future(ask(service, value)) for value in values]
            await settled(lambda: service.engine(None).workers.depth == 8)
            session.go.set()
            return await asyncio.gather(*works)

        before = pairs_run(service)
        # Everybody gets the answer to its own pair.
        assert asyncio.run(crowd()) == [*range(10, 130, 10)]
        assert session.runs == [4, 4, 4]
        assert pairs_run(service) - before == 12


def test_a_lone_pair_waits_no_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession(batch=4)
    with opened(monkeypatch, session, batch_wait=0.05) as service:
        assert together(ask(service, 77)) == [77]
        assert session.runs == [1]


def test_a_deadline_ends_the_wait_but_not_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    with opened(monkeypatch, session, queue=3) as service:
        session.go.clear()
        start = time.perf_counter()
        answers = together(ask(service, 10, 0.2), ask(service, 20, 0.2), ask(service, 30, 0.0))
        assert codes(answers) == ["deadline-exceeded"] * 3
        assert time.perf_counter() - start < 5
        session.go.set()
        assert together(ask(service, 40)) == [40]
        # What was too late before its run began never ran.
        assert len(session.runs) == 2
        assert service._taken == 0


def test_whoever_goes_frees_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    with opened(monkeypatch, session, queue=3) as service:

        async def go_away() -> float:
            session.go.clear()
            first = asyncio.ensure_future(ask(service, 10))
            await settled(lambda: session.entered == 1)
            second = asyncio.ensure_future(ask(service, 20))
            await settled(lambda: service.engine(None).workers.depth == 1)
            second.cancel()
            await settled(lambda: service._taken == 1)
            session.go.set()
            return await first

        assert asyncio.run(go_away()) == 10
        assert len(session.runs) == 1


def test_a_run_that_fails_fails_its_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    with opened(monkeypatch, session) as service:
        session.failure = InternalError("session-failed", "broken", "report it")
        assert codes(together(ask(service, 10))) == ["session-failed"]
        session.failure = None
        assert together(ask(service, 20)) == [20]


def test_a_bad_image_takes_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    with opened(monkeypatch, session, max_pixels=SIDE * SIDE - 1) as service:
        session.runs.clear()
        assert codes(together(ask(service, 10))) == ["image-too-large"]
        assert session.runs == [] and service._taken == 0


def test_draining_finishes_what_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    with opened(monkeypatch, session, drain=20.0) as service:

        async def end() -> list[Any]:
            session.go.clear()
            work = asyncio.ensure_future(ask(service, 10))
            await settled(lambda: service._taken == 1)
            draining = asyncio.ensure_future(service.drain())
            await asyncio.sleep(0.05)
            late = await asyncio.gather(ask(service, 20), return_exceptions=True)
            assert not service.ready and not draining.done()
            threading.Timer(0.05, session.go.set).start()
            await draining
            assert service._taken == 0
            return [await work, *late]

        answers = asyncio.run(end())
        assert codes(answers) == ["ok", "server-draining"] and answers[0] == 10
    assert session.closed == 1


def test_options_are_checked() -> None:
    for code, options in (
        ("serve-exposed", {"host": "0.0.0.0"}),
        ("serve-nothing", {"http": None, "grpc": None}),
        ("option-range", {"workers": 0}),
        ("option-range", {"queue": -1}),
        ("option-range", {"http": 70000}),
        ("option-range", {"token": "two words"}),
        ("option-range", {"timeout": float("nan")}),
    ):
        with pytest.raises(MatchRTError) as raised:
            replace(ServeOptions(), **options)
        assert raised.value.code == code
        assert "words" not in raised.value.message
    assert ServeOptions(host="0.0.0.0", token="secret").host == "0.0.0.0"


def test_names_of_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    monkeypatch.setattr(serving, "open_session", lambda file, options: session)
    service = Service(["a=loftr-lite", "b=loftr-lite"], ServeOptions())
    with pytest.raises(MatchRTError, match="Several"):
        service.engine(None)
    with pytest.raises(MatchRTError, match="'c'"):
        service.engine("c")
    assert service.engine("b").name == "b"
    service.close()
    with_path = Service(["stats=loftr-lite"], ServeOptions())
    with pytest.raises(MatchRTError, match="/v2/models/stats") as raised:
        models_of(with_path)
    assert raised.value.code == "serve-name"
    with_path.close()
    for names in (["loftr-lite", "loftr-lite"], ["a b=loftr-lite"]):
        with pytest.raises(MatchRTError) as raised:
            Service(names, ServeOptions())
        assert raised.value.code == "serve-name"
