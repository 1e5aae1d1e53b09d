"""`rotate` and `effort` of a request: further runs wait for their turn, and end with the request's time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.serving_stub import opened
from support.turning import MarkSession, dynamic_manifest, marked

from matchrt.errors import MatchRTError
from matchrt.runtime.image import Image
from matchrt.runtime.matches import Matches
from matchrt.serving.call import Call
from matchrt.serving.models import models_of, pair_job
from matchrt.serving.service import Service
from matchrt.serving.tensors import InferCall, Tensor
from matchrt.serving.wishes import Wishes


class _Session(MarkSession):
    """What the service's stub has besides."""

    def __init__(self) -> None:
        super().__init__(dynamic_manifest())
        self.runs: list[int] = []
        self.go: Any = asyncio.Event()


def images(turned: int) -> tuple[Image, Image]:
    return Image(marked(240, 320), "a"), Image(marked(240, 320, turned, seed=1), "b")


def asked(service: Service, turned: int, wishes: Wishes, call: Call) -> Matches:
    engine, pair = service.engine(None), images(turned)
    reads = (lambda: pair[0]), (lambda: pair[1])

    async def ask() -> Matches:
        return await service.run(engine, call, lambda: pair_job(engine, reads, wishes, call)[0])

    return asyncio.run(ask())


def test_a_request_may_ask_for_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = _Session()
    with opened(monkeypatch, session) as service:
        session.sizes.clear()
        assert len(asked(service, 180, Wishes(), Call(20))) == 60 and len(session.sizes) == 1
        turned = asked(service, 180, Wishes(rotate="auto"), Call(20))
        assert turned.provenance.turned1 == 180 and len(turned) == 300 and turned.timings["retry"] > 0
        assert len(session.sizes) == 6
        high = asked(service, 0, Wishes(effort="high"), Call(20))
        assert high.provenance.turned1 == 0 and len(session.sizes) == 7


def test_further_runs_end_with_the_time_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = _Session()
    with opened(monkeypatch, session) as service:
        call, run = Call(20), session.run
        session.sizes.clear()

        def late(inputs: Any) -> Any:
            call.limit(0)
            return run(inputs)

        session.run = late
        with pytest.raises(MatchRTError) as raised:
            asked(service, 180, Wishes(rotate="auto"), call)
        assert raised.value.code == "deadline-exceeded" and len(session.sizes) <= 2


def test_parameters_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = _Session()
    with opened(monkeypatch, session) as service:
        models = models_of(service)
        tensors = {
            name: Tensor(name, "UINT8", image.pixels[:, :, None])
            for name, image in zip(("image0", "image1"), images(90), strict=True)
        }
        for parameters in ({"rotate": "maybe"}, {"zoom": "in"}, {"effort": 1}, {"min_score": True}, {"turn": "auto"}):
            with pytest.raises(MatchRTError) as raised:
                models["loftr-lite"].job(InferCall(tensors, parameters, None, ""), Call(20))
            assert raised.value.code == "request-invalid"
        assert Wishes.of({"rotate": "auto", "zoom": "auto", "timeout": 5}) == Wishes(None, "auto", "auto")
        own = models["loftr-lite-engine"]
        raw = {name: Tensor(name, "UINT8", image.array[None]) for name, image in tensors.items()}
        own.job(InferCall(raw, {"rotate": "off", "effort": "normal"}, None, ""), Call(20))
        with pytest.raises(MatchRTError) as raised:
            own.job(InferCall(raw, {"rotate": "auto"}, None, ""), Call(20))
        assert raised.value.code == "request-invalid"
