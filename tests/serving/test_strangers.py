"""Requests that a browser sends for pages of other sites, what is shown without the token, and short memory."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import numpy as np
import pytest
from support.serving_clients import asked, client, failed, files, infer, png
from support.serving_stub import SIDE, StubSession

from matchrt.serving.failures import free_frames, grpc_status, http_status, surprise

OWN = "http://127.0.0.1"


@pytest.mark.parametrize(("headers", "good"), [
    ({}, True),
    ({"Origin": OWN}, True),
    ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, True),
    ({"Origin": f"{OWN}:80"}, True),
    ({"Origin": "HTTP://127.0.0.1"}, True),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Origin": "http://127.0.0.1:8000", "Host": "127.0.0.1:8000"}, True),
    ({"Origin": "http://localhost:8000", "Host": "localhost:8000"}, True),
    ({"Origin": "http://[::1]:8000", "Host": "[::1]:8000"}, True),
    ({"Origin": "https://match.example", "X-Forwarded-Host": "match.example", "Sec-Fetch-Site": "same-origin"}, True),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, False),
    ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Origin": OWN, "Sec-Fetch-Site": "cross-site"}, False),
    ({"Origin": f"{OWN}:9999", "Sec-Fetch-Site": "same-site"}, False),
    ({"Origin": f"{OWN}:9999"}, False),
    ({"Origin": "https://127.0.0.1:8000", "Host": "127.0.0.1"}, False),
    ({"Origin": "http://127.0.0.1.evil.example"}, False),
    ({"Origin": "http://127.0.0.1@evil.example"}, False),
    ({"Origin": "http://localhost:8000", "Host": "127.0.0.1:8000"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Origin": "file://"}, False),
    ({"Origin": "chrome-extension://abc"}, False),
    ({"Origin": "http://[bad"}, False),
    ({"Origin": "http://127.0.0.1:99999999"}, False),
])  # fmt: skip
def test_pages_of_other_sites(monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], good: bool) -> None:
    session = StubSession()
    with client(monkeypatch, session) as http:
        answer = http.post("/v1/match", files=files(png(), png()), headers=headers)
        if good:
            assert answer.status_code == 200, answer.text
        else:
            failed(answer, 403, "request-foreign")
            assert session.runs == []
        # Reading is the browser's to forbid: there are no headers that would allow it.
        read = http.get("/v2/health/live", headers=headers)
        assert read.status_code == 200 and "access-control-allow-origin" not in read.headers


@pytest.mark.parametrize(
    "path", ["/v1/match", "/v2/models/loftr-lite/infer", "/v2/models/x/versions/1/infer", "/other"]
)
@pytest.mark.parametrize("kind", [
    "text/plain", "application/xml", "multipart/mixed; boundary=x", "image/jpeg", "Application/Json2", "x" * 3000, "",
])  # fmt: skip
def test_types_that_no_route_takes(monkeypatch: pytest.MonkeyPatch, path: str, kind: str) -> None:
    with client(monkeypatch) as http:
        answer = http.post(path, content=b"&" * 50_000, headers={"Content-Type": kind})
        if path == "/other":
            failed(answer, 404, "request-not-found")
        else:
            failed(answer, 415, "request-media-type")
        assert http.service._taken == 0


def test_types_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch) as http:
        for kind in ("application/json", "APPLICATION/JSON; charset=utf-8", "application/octet-stream", None):
            headers = {} if kind is None else {"Content-Type": kind}
            failed(http.post("/v2/models/loftr-lite/infer", content=b"{}", headers=headers), 400, "request-invalid")


def test_a_body_that_nobody_reads_is_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes without a body ignore one."""
    with client(monkeypatch) as http:
        assert http("GET", "/v2", content=b"x" * 10_000).status_code == 200
        assert http("GET", "/v2/health/live", content=b"x" * 10_000).status_code == 200
        failed(http("PUT", "/v1/match", content=b"x" * 10_000), 405, "request-method")


def test_no_names_without_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch, token="secret") as http:
        for path in ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
            answer = http.get(path)
            assert answer.status_code == 200 and "loftr" not in answer.text, path
        for path in ("/v1/engines", "/metrics", "/v2", "/v2/models/loftr-lite", "/v2/models/x/ready"):
            failed(http.get(path), 401, "token-wrong")
    with client(monkeypatch) as http:
        assert "loftr-lite" in http.get("/openapi.json").text


# -------------------------------------------------------------------------------------------------------- short memory


def opencv_error() -> Exception:
    import cv2

    try:
        cv2.resize(np.zeros((2, 2), np.uint8), (2**30, 2**30))
    except cv2.error as error:
        return error
    raise AssertionError("OpenCV had the memory")


def test_each_kind_of_short_memory_is_named() -> None:
    for error in (MemoryError(), np._core._exceptions._ArrayMemoryError((1,), np.dtype(np.uint8)), opencv_error()):
        failure = surprise(error)
        assert failure.code == "out-of-memory" and http_status(failure) == 503
        assert grpc_status(failure) == "UNAVAILABLE"
    assert surprise(RuntimeError("x")).code == "unexpected"


@pytest.mark.parametrize("where", ["run", "copy", "decode", "answer", "parse", "thread"])
def test_short_memory_is_503_everywhere(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    session = StubSession()

    def fails(*_: Any, **__: Any) -> Any:
        raise MemoryError

    def no_thread(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    class Outputs(dict[str, Any]):
        def items(self) -> Any:
            raise MemoryError

    def spoil(service: Any) -> None:
        if where == "run":
            session.failure = MemoryError()
        elif where == "copy":
            run = session.run
            monkeypatch.setattr(session, "run", lambda inputs: Outputs(run(inputs)))
        elif where == "decode":
            monkeypatch.setattr("matchrt.runtime.adapter.PairAdapter.prepare", fails)
        elif where == "answer":
            monkeypatch.setattr("matchrt.runtime.adapter.PairAdapter.matches", fails)
        elif where == "parse":
            for module in ("http_match.read_parts", "http_app.read_call", "grpc_infer.read_call"):
                monkeypatch.setattr(f"matchrt.serving.{module}", fails)
        else:
            monkeypatch.setattr(service._threads, "submit", no_thread)

    with client(monkeypatch, session) as http:
        spoil(http.service)
        failed(http.post("/v1/match", files=files(png(), png())), 503, "out-of-memory")
        size = {"binary_data_size": SIDE * SIDE}
        entries = [
            {"name": f"image{i}", "datatype": "UINT8", "shape": [SIDE, SIDE, 1], "parameters": size} for i in (0, 1)
        ]
        head = json.dumps({"inputs": entries}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        answer = http.post("/v2/models/loftr-lite/infer", content=head + bytes(2 * SIDE * SIDE), headers=headers)
        failed(answer, 503, "out-of-memory")
        assert http.service._taken == 0
    monkeypatch.undo()

    async def test(ask: Any, service: Any) -> None:
        spoil(service)
        assert await ask("ModelInfer", infer()) == "UNAVAILABLE"
        assert service._taken == 0
        assert (await ask("ServerLive", b"")).live

    session = StubSession()
    asked(monkeypatch, session, test)


def test_failed_requests_keep_nothing() -> None:
    """The frames that an error has passed are emptied: they would keep bodies until Python finds the cycle."""
    import weakref

    class Large:
        pass

    kept: list[Any] = []

    def inner() -> None:
        large = Large()
        kept.append(weakref.ref(large))
        try:
            raise ValueError("first")
        except ValueError as error:
            raise RuntimeError("second") from error

    def outer() -> None:
        try:
            inner()
        except RuntimeError as error:
            free_frames(error)
            raise

    with pytest.raises(RuntimeError) as caught:
        outer()
    assert kept[0]() is None and "inner" in str(caught.traceback[-1])


def test_calls_without_a_message_or_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(ask: Any, service: Any) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ask.port}") as channel:
            call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")()
            await call.done_writing()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            # One that never sends its message has a place, and loses it to one that does.
            silent = [
                channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")() for _ in range(service.places)
            ]
            monkeypatch.setattr("matchrt.serving.admission.PATIENCE", 0.0)
            for _ in range(100):
                if service._taken == service.places:
                    break
                await asyncio.sleep(0.02)
            assert (await ask("ModelInfer", infer())).outputs
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await silent[0]
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            for call in silent[1:]:
                call.cancel()

    asked(monkeypatch, StubSession(), test, queue=1)
