"""One request's deadline, and the run that it waits for."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import pytest

from matchrt.errors import MatchRTError
from matchrt.serving.call import Call


def code_of(action: Any, *arguments: Any) -> str:
    with pytest.raises(MatchRTError) as caught:
        action(*arguments)
    return caught.value.code


def test_a_run_that_is_done_is_its_result() -> None:
    done: Future[int] = Future()
    done.set_result(7)
    assert Call(5.0).wait(done) == 7


def test_whoever_is_late_waits_no_longer() -> None:
    for seconds in (0.0, -3.0, 0.05):
        never: Future[int] = Future()
        start = time.monotonic()
        assert code_of(Call(seconds).wait, never) == "deadline-exceeded"
        assert time.monotonic() - start < 0.6 and never.cancelled()
    assert code_of(Call(0.0).check) == "deadline-exceeded"
    Call(60.0).check()


def test_a_limit_shortens_and_never_lengthens() -> None:
    short = Call(60.0)
    short.limit(0.0)
    assert code_of(short.check) == "deadline-exceeded"
    late = Call(0.0)
    late.limit(60.0)
    assert code_of(late.check) == "deadline-exceeded"


def test_an_abandoned_call_cancels_its_run() -> None:
    before, during = Call(60.0), Call(60.0)
    before.abandon()
    run: Future[int] = Future()
    assert code_of(before.check) == "request-abandoned"
    assert code_of(before.wait, run) == "request-abandoned" and run.cancelled()
    other: Future[int] = Future()
    during._run = other  # type: ignore[assignment]  # as while it waits
    during.abandon()
    assert other.cancelled() and code_of(during.check) == "request-abandoned"
