"""The two images of a pair at the same time: whose error counts, who waits for whom, and that the numbers stay."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from support.pictures import shifted_pair
from support.serving_stub import SIDE, StubSession, opened

from matchrt.errors import MatchRTError
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.image import Image, decode_image
from matchrt.serving.call import Call
from matchrt.serving.helpers import Helpers
from matchrt.serving.models import pair_job
from matchrt.serving.service import Service
from matchrt.serving.wishes import Wishes


@pytest.fixture
def helpers() -> Iterator[Helpers]:
    made = Helpers(1)
    yield made
    made.close()


def failing(code: str, after: threading.Event | None = None) -> Callable[[], Any]:
    def fail() -> Any:
        assert after is None or after.wait(20)
        raise MatchRTError(code, code, code)

    return fail


def code_of(work: Callable[[], Any]) -> str:
    with pytest.raises(MatchRTError) as raised:
        work()
    return raised.value.code


def test_both_at_the_same_time_and_in_order(helpers: Helpers) -> None:
    met = threading.Barrier(2, timeout=20)  # passed only by two threads that are in it together

    def half(value: int) -> tuple[int, str]:
        met.wait()
        return value, threading.current_thread().name

    (first, here), (second, there) = helpers.both(lambda: half(1), lambda: half(2))
    assert (first, second) == (1, 2)
    assert here == threading.current_thread().name and there.startswith("matchrt-helper")


def test_the_first_error_counts_whichever_comes_earlier(helpers: Helpers) -> None:
    begun, late = threading.Event(), threading.Event()

    def fail_early() -> Any:
        begun.set()
        threading.Timer(0.05, late.set).start()
        raise MatchRTError("second", "", "")

    assert code_of(lambda: helpers.both(failing("first", late), fail_early)) == "first" and begun.is_set()
    assert code_of(lambda: helpers.both(failing("first"), lambda: 2)) == "first"
    assert code_of(lambda: helpers.both(lambda: 1, failing("second"))) == "second"
    assert helpers.both(lambda: 1, lambda: 2) == (1, 2)


def test_nothing_is_under_way_after_an_error(helpers: Helpers) -> None:
    begun, ended = threading.Event(), threading.Event()

    def fail() -> Any:
        assert begun.wait(20)
        raise MatchRTError("first", "", "")

    def slow() -> None:
        begun.set()
        time.sleep(0.05)
        ended.set()

    assert code_of(lambda: helpers.both(fail, slow)) == "first" and ended.is_set()


def test_who_finds_no_helper_does_both(helpers: Helpers) -> None:
    busy, free = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        assert free.wait(20)

    with ThreadPoolExecutor(1) as other:
        first = other.submit(lambda: helpers.both(lambda: busy.wait(20), block))
        assert busy.wait(20)
        mine = threading.current_thread().name
        assert helpers.both(lambda: 1, lambda: threading.current_thread().name) == (1, mine)
        assert code_of(lambda: helpers.both(lambda: 1, failing("second"))) == "second"
        free.set()
        assert first.result(20) == (True, None)


def test_one_helper_and_many_requests(helpers: Helpers) -> None:
    with ThreadPoolExecutor(16) as crowd:
        asked = [crowd.submit(helpers.both, lambda n=n: n, lambda n=n: -n) for n in range(2000)]
        assert [future.result(20) for future in asked] == [(n, -n) for n in range(2000)]


def asked(service: Service, read0: Callable[[], Image], read1: Callable[[], Image], seconds: float = 20.0) -> Any:
    """What a pair finds, or the code of its error."""
    engine = service.engine(None)

    async def ask() -> Any:
        call = Call(seconds)
        return await service.run(engine, call, lambda: pair_job(engine, (read0, read1), Wishes(), call)[0])

    try:
        return asyncio.run(ask())
    except MatchRTError as error:
        return error.code


def grey(value: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image:
    return Image(np.full(size, value, np.uint8), "grey")


def test_bad_pairs_end_with_the_first_images_error(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    with opened(monkeypatch, session, max_pixels=SIDE * SIDE) as service:
        large, small = grey(1, (SIDE, SIDE + 1)), grey(1, (4, 4))
        cut = lambda: decode_image(b"\xff\xd8\xff\xe0", "cut")  # noqa: E731
        for read0, read1, code in (
            (lambda: large, lambda: small, "image-too-large"),
            (lambda: small, lambda: large, "image-too-small"),
            (cut, lambda: large, "image-truncated"),
            (lambda: large, cut, "image-too-large"),
            (lambda: grey(1), cut, "image-truncated"),
            (cut, lambda: grey(1), "image-truncated"),
        ):
            assert {asked(service, read0, read1) for _ in range(20)} == {code}
        assert session.runs == [] and service._taken == 0
        assert asked(service, lambda: grey(3), lambda: grey(4)).keypoints1[0, 0] == 4


def test_late_while_an_image_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow() -> Image:
        time.sleep(0.1)
        return grey(1)

    session = StubSession()
    with opened(monkeypatch, session) as service:
        assert asked(service, lambda: grey(1), slow, 0.05) == "deadline-exceeded"
        assert asked(service, slow, lambda: grey(1), 0.05) == "deadline-exceeded"
        assert session.runs == [] and service._taken == 0


def test_same_rows_as_the_matcher_prepares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in, the engine's inputs: to the bit those of `Matcher`; the times are those that the pair waited."""
    files = []
    for picture in shifted_pair(120, 160, (16, 8)):
        buffer = io.BytesIO()
        PILImage.fromarray(picture).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    session = StubSession()
    with opened(monkeypatch, session) as service:
        engine = service.engine(None)
        start = time.perf_counter()
        reads = (lambda: decode_image(files[0], "x")), (lambda: decode_image(files[1], "x"))
        job, images = pair_job(engine, reads, Wishes(), Call(20))
        waited = (time.perf_counter() - start) * 1e3
        expected = PairAdapter(session.manifest).inputs(*(decode_image(data, "x") for data in files))
        assert sorted(job.inputs) == sorted(expected)
        assert all(np.array_equal(job.inputs[name], rows) for name, rows in expected.items())
        assert [image.width for image in images] == [160, 160]
        timings = job.finish(engine.workers.submit(job.inputs).result(20)).timings
        assert timings["decode"] > 0 and timings["decode"] + timings["resize"] <= waited
