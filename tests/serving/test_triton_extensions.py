"""Triton's extensions: configuration, statistics, the index of models, and streams, over both protocols."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from support.serving import Running
from support.serving_clients import Ask, asked, client, failed, files, infer, png
from support.serving_stub import SIDE, StubSession

from matchrt.serving import grpc_infer
from matchrt.serving.grpc_messages import SERVICE, message

MODELS = ["loftr-lite", "loftr-lite-files", "loftr-lite-engine"]
TIMES = ("queue", "compute_input", "compute_infer", "compute_output")


def tensors(rows: int = 1) -> dict[str, Any]:
    """A request to the engine's own model, in JSON."""
    images = [
        {"name": f"image{i}", "datatype": "UINT8", "shape": [rows, SIDE, SIDE, 1], "data": [7] * rows * SIDE**2}
        for i in (0, 1)
    ]
    sizes = [{"name": f"size{i}", "datatype": "INT32", "shape": [rows, 2], "data": [SIDE] * 2 * rows} for i in (0, 1)]
    return {"inputs": [*images, *sizes]}


def test_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch, workers=3) as http:
        found = http.get("/v2/models/loftr-lite/config").json()
        assert found == http.get("/v2/models/loftr-lite/versions/1/config").json()
        assert found["name"] == "loftr-lite" and found["max_batch_size"] == 0 and "dynamic_batching" not in found
        assert found["input"][0] == {"name": "image0", "data_type": "TYPE_UINT8", "dims": [-1, -1, -1]}
        assert found["instance_group"] == [{"name": "loftr-lite_0", "count": 3, "kind": "KIND_CPU"}]
        words = http.get("/v2/models/loftr-lite-files/config").json()["input"][0]
        assert words == {"name": "image0", "data_type": "TYPE_STRING", "dims": [1]}
        failed(http.get("/v2/models/other/config"), 404, "model-not-served")
        failed(http.get("/v2/models/loftr-lite/versions/2/config"), 404, "model-not-served")


def test_an_engine_of_several_pairs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only in its own tensors; a request to the others is one pair."""
    with client(monkeypatch, StubSession(batch=4), batch_wait=0.005) as http:
        assert http.get("/v2/models/loftr-lite/config").json()["max_batch_size"] == 0
        found = http.get("/v2/models/loftr-lite-engine/config").json()
        assert found["max_batch_size"] == 4 and found["input"][0]["dims"] == [SIDE, SIDE, 1]
        assert found["dynamic_batching"] == {"preferred_batch_size": [4], "max_queue_delay_microseconds": 5000}


def test_the_configuration_over_grpc_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(ask: Ask, service: Any) -> None:
        with client(monkeypatch, StubSession(batch=4)) as http:
            for name in MODELS:
                answer = await ask("ModelConfig", message("ModelConfigRequest")(name=name))
                found = MessageToDict(answer, preserving_proto_field_name=True)["config"]
                expected = await asyncio.to_thread(http.get, f"/v2/models/{name}/config")
                assert _plain(found) == _plain(expected.json()), name
        assert await ask("ModelConfig", message("ModelConfigRequest")(name="other")) == "NOT_FOUND"

    asked(monkeypatch, StubSession(batch=4), test)


def _plain(value: Any) -> Any:
    """A value without what protobuf's JSON leaves out, zeros and falsehoods, and with its texts of 64-bit numbers."""
    if isinstance(value, dict):
        return {key: kept for key, entry in value.items() if (kept := _plain(entry)) not in (0, {}, [])}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value


def test_statistics_count_every_request_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    with client(monkeypatch, session) as http:

        def of(name: str) -> dict[str, Any]:
            (found,) = http.get(f"/v2/models/{name}/stats").json()["model_stats"]
            assert found["name"] == name and found["version"] == "1"
            return dict(found)

        before = of("loftr-lite-engine")
        assert before["inference_count"] == before["execution_count"] == before["last_inference"] == 0
        for _ in range(3):
            assert http.post("/v2/models/loftr-lite-engine/infer", json=tensors()).status_code == 200
        # Of the same model's requests, one with a wrong shape and one that the engine fails.
        bad = tensors()
        bad["inputs"][0]["shape"] = [1, 2]
        assert http.post("/v2/models/loftr-lite-engine/infer", json=bad).status_code == 400
        session.failure = RuntimeError("x")
        assert http.post("/v2/models/loftr-lite-engine/infer", json=tensors()).status_code == 500
        session.failure = None
        after = of("loftr-lite-engine")
        counts = {kind: entry["count"] for kind, entry in after["inference_stats"].items()}
        assert counts == {"success": 3, "fail": 2, **dict.fromkeys(TIMES, 3)}
        assert after["inference_count"] == after["execution_count"] == 3 and after["last_inference"] > 1.7e12
        whole = after["inference_stats"]["success"]["ns"]
        parts = sum(after["inference_stats"][kind]["ns"] for kind in TIMES)
        assert 0 < parts <= whole and after["inference_stats"]["fail"]["ns"] > 0
        # The friendly endpoint takes files, and counts as the model that does.
        assert http.post("/v1/match", files=files(png(), png())).status_code == 200
        assert of("loftr-lite-files")["inference_count"] == 1 and of("loftr-lite")["inference_count"] == 0
        everything = http.get("/v2/models/stats").json()["model_stats"]
        assert [one["name"] for one in everything] == MODELS
        assert http.get("/v2/models/loftr-lite/versions/1/stats").json()["model_stats"] == [of("loftr-lite")]
        failed(http.get("/v2/models/other/stats"), 404, "model-not-served")


def test_statistics_of_runs_that_requests_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five pairs in three requests; those that wait while the first runs share the second run."""
    session = StubSession(batch=4)

    async def test(ask: Ask, service: Any) -> None:
        def rows(count: int) -> Any:
            request = message("ModelInferRequest")(model_name="loftr-lite-engine")
            for i in (0, 1):
                request.inputs.add(name=f"image{i}", datatype="UINT8", shape=[count, SIDE, SIDE, 1])
                request.raw_input_contents.append(bytes([i + 5]) * SIDE**2 * count)
            for i in (0, 1):
                request.inputs.add(name=f"size{i}", datatype="INT32", shape=[count, 2])
                request.raw_input_contents.append(SIDE.to_bytes(4, "little") * 2 * count)
            return request

        session.go.clear()
        calls = [asyncio.ensure_future(ask("ModelInfer", rows(1)))]
        while session.entered == 0:
            await asyncio.sleep(0.002)
        calls += [asyncio.ensure_future(ask("ModelInfer", rows(count))) for count in (3, 1)]
        while service.engines["loftr-lite"].workers.depth < 2:
            await asyncio.sleep(0.002)
        session.go.set()
        for call in calls:
            assert (await call).outputs
        answer = await ask("ModelStatistics", message("ModelStatisticsRequest")(name="loftr-lite-engine"))
        (found,) = answer.model_stats
        assert (found.inference_count, found.execution_count) == (5, 2)
        assert found.inference_stats.compute_infer.count == 3
        assert [(one.batch_size, one.compute_infer.count) for one in found.batch_stats] == [(1, 1), (4, 1)]
        every = await ask("ModelStatistics", message("ModelStatisticsRequest")())
        assert [one.name for one in every.model_stats] == MODELS
        assert await ask("ModelStatistics", message("ModelStatisticsRequest")(name="other")) == "NOT_FOUND"

    asked(monkeypatch, session, test, batch_wait=0.0, queue=8)


def test_the_index_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch) as http:
        ready = [{"name": name, "version": "1", "state": "READY", "reason": ""} for name in MODELS]
        for sent in ({}, {"content": b"{}"}, {"json": {"ready": True}}):
            assert http.post("/v2/repository/index", **sent).json() == ready
        for sent in (b"[]", b"{", b'{"ready": 1}'):
            failed(http.post("/v2/repository/index", content=sent), 400, "request-invalid")
        failed(http.post("/v2/repository/index", content=bytes(100_000)), 413, "body-too-large")
        failed(http.post("/v2/repository/index", files=files(png(), png())), 415, "request-media-type")
        http.service._draining = True
        states = http.post("/v2/repository/index").json()
        assert {one["state"] for one in states} == {"UNAVAILABLE"} and all(one["reason"] for one in states)
        assert http.post("/v2/repository/index", json={"ready": True}).json() == []


def test_the_index_needs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()

    async def test(ask: Ask, service: Any) -> None:
        session.go.clear()
        running = asyncio.ensure_future(ask("ModelInfer", infer()))
        while session.entered == 0:
            await asyncio.sleep(0.002)
        answer = await ask("RepositoryIndex", message("RepositoryIndexRequest")(ready=True))
        assert [one.name for one in answer.models] == MODELS and answer.models[0].state == "READY"
        session.go.set()
        assert (await running).outputs

    asked(monkeypatch, session, test, queue=0)


def streamed(channel: Any, requests: AsyncIterator[bytes], **more: Any) -> Any:
    return channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(requests, timeout=30, **more)


def on_a_stream(monkeypatch: pytest.MonkeyPatch, session: StubSession, test: Any, **options: Any) -> None:
    async def run(ask: Ask, service: Any) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ask.port}") as channel:  # type: ignore[attr-defined]
            await test(channel, service)

    asked(monkeypatch, session, run, **options)


def test_a_stream_answers_every_message_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that fails gets its error, with its id, and the stream goes on."""

    async def test(channel: Any, service: Any) -> None:
        sent = [infer(id="a"), infer(id="b", model_name="other"), b"\xff\xff", infer(id="c")]

        async def requests() -> AsyncIterator[bytes]:
            for one in sent:
                yield one if isinstance(one, bytes) else one.SerializeToString()

        parse = message("ModelStreamInferResponse").FromString
        found = [parse(raw) async for raw in streamed(channel, requests())]
        assert [one.infer_response.id for one in found] == ["a", "b", "", "c"]
        assert [bool(one.error_message) for one in found] == [False, True, True, False]
        assert "[model-not-served]" in found[1].error_message and "[request-invalid]" in found[2].error_message
        last = found[3].infer_response
        assert last.outputs[0].name == "keypoints0" and last.parameters["triton_final_response"].bool_param
        text = service.metrics.text().decode()
        assert 'endpoint="ModelStreamInfer",protocol="grpc",status="OK"} 2.0' in text
        assert 'endpoint="ModelStreamInfer",protocol="grpc",status="NOT_FOUND"} 1.0' in text

    on_a_stream(monkeypatch, StubSession(), test)


def test_our_own_mistakes_on_a_stream_tell_nothing_to_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()

    async def test(channel: Any, service: Any) -> None:
        async def requests() -> AsyncIterator[bytes]:
            for _ in range(2):
                yield infer(id="a").SerializeToString()

        session.failure = RuntimeError("/secret/path")
        found = []
        async for raw in streamed(channel, requests()):
            found.append(message("ModelStreamInferResponse").FromString(raw))
            session.failure = None
        assert "RuntimeError" in found[0].error_message and "secret" not in found[0].error_message
        assert found[0].infer_response.id == "a" and not found[1].error_message

    on_a_stream(monkeypatch, session, test)


async def status_of(call: Any) -> str:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


async def words_of(call: Any) -> str:
    """The message of the error that ends a stream."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return str(error.details())
    return ""


async def silence() -> AsyncIterator[bytes]:
    await asyncio.sleep(60)
    yield b""


def test_streams_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without messages, those beyond the limit, those without a token, and all when the service ends."""
    monkeypatch.setattr(grpc_infer, "_STREAMS", 2)
    monkeypatch.setattr(grpc_infer, "_QUIET", 0.5)

    async def test(channel: Any, service: Any) -> None:
        good = {"metadata": (("authorization", "Bearer secret"),)}
        assert await status_of(streamed(channel, silence())) == "UNAUTHENTICATED"
        quiet = [asyncio.ensure_future(status_of(streamed(channel, silence(), **good))) for _ in range(3)]
        assert sorted(await asyncio.gather(*quiet)) == ["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"]
        monkeypatch.setattr(grpc_infer, "_QUIET", 60.0)
        waiting = asyncio.ensure_future(status_of(streamed(channel, silence(), **good)))
        await asyncio.sleep(0.2)
        await service.drain()
        assert await waiting == "UNAVAILABLE"

    on_a_stream(monkeypatch, StubSession(), test, token="secret")


def test_a_stream_that_finds_no_place_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer queue does not: the limit is that of streams."""
    monkeypatch.setattr(grpc_infer, "_STREAMS", 1)
    monkeypatch.setattr("matchrt.serving.admission.PATIENCE", 60.0)

    async def test(channel: Any, service: Any) -> None:
        both = [asyncio.ensure_future(words_of(streamed(channel, silence()))) for _ in range(2)]
        (done,), (silent,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        refused = done.result()
        assert "All 1 places for streams are taken. [server-busy]" in refused and "--queue" not in refused
        # From now on, a newcomer gets the place of a silent stream.
        monkeypatch.setattr("matchrt.serving.admission.PATIENCE", 0.0)
        third = streamed(channel, silence())
        newcomer = asyncio.ensure_future(words_of(third))
        assert "places for streams" in await silent
        third.cancel()
        await asyncio.wait((newcomer,))

    on_a_stream(monkeypatch, StubSession(), test)


def test_a_message_on_a_stream_that_finds_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()

    async def test(channel: Any, service: Any) -> None:
        session.go.clear()
        more = asyncio.Event()

        async def requests() -> AsyncIterator[bytes]:
            yield infer(id="late").SerializeToString()
            await more.wait()
            yield infer(id="good").SerializeToString()

        taken = service.enter()
        answers = streamed(channel, requests())
        first = message("ModelStreamInferResponse").FromString(await answers.read())
        assert "[server-busy]" in first.error_message
        taken.leave()
        session.go.set()
        more.set()
        second = message("ModelStreamInferResponse").FromString(await answers.read())
        assert second.infer_response.id == "good" and not second.error_message

    on_a_stream(monkeypatch, session, test, queue=0)


def test_tritonclient_asks_and_streams(server: Running, pair: Any) -> None:
    """Triton's own clients, with all that they ask a server about its models."""
    http, grpc_ = pytest.importorskip("tritonclient.http"), pytest.importorskip("tritonclient.grpc")
    over_http = http.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=120, connection_timeout=120)
    over_grpc = grpc_.InferenceServerClient(f"127.0.0.1:{server.grpc}")
    assert {"model_configuration", "statistics"} <= set(over_http.get_server_metadata()["extensions"])
    config = over_grpc.get_model_config("loftr-lite").config
    assert config.max_batch_size == over_http.get_model_config("loftr-lite")["max_batch_size"] == 0
    assert [one["name"] for one in over_http.get_model_repository_index()] == MODELS
    assert [one.name for one in over_grpc.get_model_repository_index().models] == MODELS
    answers: queue.Queue[Any] = queue.Queue()
    inputs = []
    for index, data in enumerate(pair.files):
        one = grpc_.InferInput(f"image{index}", [1], "BYTES")
        import numpy as np

        one.set_data_from_numpy(np.array([data], object))
        inputs.append(one)
    before = over_grpc.get_inference_statistics("loftr-lite-files").model_stats[0].inference_count
    over_grpc.start_stream(lambda result, error: answers.put((result, error)))
    over_grpc.async_stream_infer("loftr-lite-files", inputs, request_id="1")
    over_grpc.async_stream_infer("nothing", inputs, request_id="2")
    result, error = answers.get(timeout=120)
    assert error is None and np.array_equal(result.as_numpy("keypoints1"), pair.expected.keypoints1)
    result, error = answers.get(timeout=120)
    assert "model-not-served" in str(error)
    over_grpc.stop_stream()
    (after,) = over_http.get_inference_statistics("loftr-lite-files")["model_stats"]
    assert after["inference_count"] == before + 1
    assert json.dumps(after)
    for one in (over_http, over_grpc):
        one.close()
