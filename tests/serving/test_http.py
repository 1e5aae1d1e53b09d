"""What HTTP answers to requests that are wrong, too large, too many, or from strangers."""

from __future__ import annotations

import gzip
import json
import struct
import threading
import time
from typing import Any

import pytest
from support.serving_clients import client, failed, files, png
from support.serving_stub import SIDE, StubSession

FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def tensor(index: int, **changes: Any) -> dict[str, Any]:
    good = {"name": f"image{index}", "datatype": "UINT8", "shape": [SIDE, SIDE, 1], "data": [7] * SIDE**2}
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def test_a_pair_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch) as http:
        answer = http.post("/v1/match", files=files(png(10), png(20)))
        assert answer.status_code == 200
        assert answer.json()["keypoints0"] == [[10, 10]] and answer.json()["keypoints1"] == [[20, 20]]
        assert set(answer.json()["timings_ms"]) == {"decode", "resize", "inference", "to_pixels"}
        # What a page's empty inputs send.
        empty = http.post(
            "/v1/match", files=files(png(10), png(20)), data={"min_score": "", "engine": "", "verify": ""}
        )
        assert empty.status_code == 200 and empty.json()["keypoints0"] == [[10, 10]]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"files": {"image0": ("a.png", png())}}, 400, "request-invalid"),
        ({"files": files(b"", png())}, 400, "image-truncated"),
        ({"files": files(png()[:60], png())}, 400, "image-truncated"),
        ({"files": files(b"no image at all, but text", png())}, 400, "image-format"),
        ({"files": files(png(size=(4, 4)), png())}, 400, "image-too-small"),
        ({"files": files(png(size=(200, 200)), png())}, 413, "image-too-large"),
        ({"files": files(png(), png()), "data": {"min_score": "2"}}, 400, "request-invalid"),
        ({"files": files(png(), png()), "data": {"verify": "essential"}}, 400, "request-invalid"),
        ({"files": {"image0": ("a.png", png())}, "data": {"image1": "no file"}}, 400, "request-invalid"),
        ({"data": {"image0": "x", "image1": "y"}}, 415, "request-media-type"),
        ({"content": b"--x"}, 415, "request-media-type"),
        ({"files": files(png(), png()), "data": {"engine": "other"}}, 404, "model-not-served"),
        ({"files": files(png(), png()), "headers": {"X-Request-Timeout": "soon"}}, 400, "request-invalid"),
        ({"files": files(png(), png()), "headers": {"X-Request-Timeout": "-1"}}, 400, "request-invalid"),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "request-invalid"),
        ({"content": b"{}", "headers": {"Content-Type": "multipart/form-data"}}, 400, "request-invalid"),
        ({"content": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
          "headers": {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}}, 400, "request-invalid"),
        ({"content": bytes(70_000), "headers": FORM}, 413, "body-too-large"),
        ({"content": b"\x1f\x8b not gzip", "headers": {**FORM, "Content-Encoding": "gzip"}}, 400, "request-invalid"),
        ({"content": gzip.compress(bytes(10_000_000)), "headers": {**FORM, "Content-Encoding": "gzip"}},
         413, "body-too-large"),
        ({"content": b"x", "headers": {**FORM, "Content-Encoding": "br"}}, 400, "request-invalid"),
    ],
)  # fmt: skip
def test_bad_requests_to_match(monkeypatch: pytest.MonkeyPatch, sent: dict[str, Any], status: int, code: str) -> None:
    with client(monkeypatch, max_body=60_000, max_pixels=150 * 150) as http:
        failed(http.post("/v1/match", **sent), status, code)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"\xff", b'{"inputs": 1}', b'{"inputs": [1]}', b'{"inputs": []}',
        {"inputs": [tensor(0)]},
        {"inputs": [tensor(0), tensor(0)]},
        {"inputs": [tensor(0), tensor(2)]},
        {"inputs": [tensor(0), tensor(1, data=None)]},
        {"inputs": [tensor(0), tensor(1, data=[7] * 10)]},
        {"inputs": [tensor(0), tensor(1, data=[300] * SIDE**2)]},
        {"inputs": [tensor(0), tensor(1, data=[-1] * SIDE**2)]},
        {"inputs": [tensor(0), tensor(1, data=[0.5] * SIDE**2)]},
        {"inputs": [tensor(0), tensor(1, data=["a"] * SIDE**2)]},
        {"inputs": [tensor(0), tensor(1, data=[[1, 2], [3]])]},
        {"inputs": [tensor(0), tensor(1, data=[10**40] * SIDE**2)]},
        {"inputs": [tensor(0), tensor(1, data=[None] * SIDE**2)]},
        {"inputs": [tensor(0), tensor(1, shape=[SIDE, SIDE])]},
        {"inputs": [tensor(0), tensor(1, shape=[SIDE, -SIDE, -1])]},
        {"inputs": [tensor(0), tensor(1, shape=[2**40, 1, 1])]},
        {"inputs": [tensor(0), tensor(1, shape="x")]},
        {"inputs": [tensor(0), tensor(1, datatype="UINT9")]},
        {"inputs": [tensor(0), tensor(1, datatype="FP32")]},
        {"inputs": [tensor(0), tensor(1, parameters={"binary_data_size": 100})]},
        {"inputs": [tensor(0), tensor(1, parameters={"shared_memory_region": "x"}, data=None)]},
        {"inputs": [tensor(0), tensor(1)], "outputs": [{"name": "nothing"}]},
        {"inputs": [tensor(0), tensor(1)], "outputs": [{"name": "scores"}, {"name": "scores"}]},
        {"inputs": [tensor(0), tensor(1)], "id": 7},
        {"inputs": [tensor(0), tensor(1)], "parameters": {"min_score": "x"}},
        {"inputs": [tensor(0), tensor(1)], "parameters": {"timeout": -1}},
        {"inputs": [tensor(0), tensor(1)], "parameters": {"priority": 3}},
    ],
    ids=lambda body: None,
)  # fmt: skip
def test_bad_inference_requests(monkeypatch: pytest.MonkeyPatch, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with client(monkeypatch) as http:
        failed(http.post("/v2/models/loftr-lite/infer", content=content), 400, "request-invalid")


def test_tensors_that_are_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch) as http:
        for shape in ([0, 0, 0], [64, 32, 2], [1, 1, 3]):
            bad = tensor(1, shape=shape, data=[7] * (shape[0] * shape[1] * shape[2]))
            answer = http.post("/v2/models/loftr-lite/infer", content=json.dumps({"inputs": [tensor(0), bad]}).encode())
            failed(answer, 400, "image-too-small" if shape == [1, 1, 3] else "image-array")


def test_binary_data_must_be_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"binary_data_size": SIDE**2}
    head = json.dumps({"inputs": [tensor(i, data=None, parameters=size) for i in (0, 1)]}).encode()
    pixels = bytes([5]) * SIDE**2
    url, header = "/v2/models/loftr-lite/infer", "Inference-Header-Content-Length"
    with client(monkeypatch) as http:
        good = http.post(url, content=head + pixels * 2, headers={header: str(len(head))})
        assert good.status_code == 200 and good.json()["outputs"][0]["data"] == [5, 5]
        for content, length in (
            (head + pixels, len(head)),
            (head + pixels * 2 + b"x", len(head)),
            (head + pixels * 2, len(head) + 10**9),
            (head + pixels * 2, "-1"),
            (head, len(head)),
        ):
            failed(http.post(url, content=content, headers={header: str(length)}), 400, "request-invalid")
        words = struct.pack("<I", 2**31) + b"xy"
        entry = {"name": "image0", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(words)}}
        head = json.dumps({"inputs": [entry]}).encode()
        answer = http.post("/v2/models/loftr-lite-files/infer", content=head + words, headers={header: str(len(head))})
        failed(answer, 400, "request-invalid")


def test_unknown_paths_models_and_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch) as http:
        failed(http.get("/v2/models/other"), 404, "model-not-served")
        failed(http.get("/v2/models/loftr-lite/versions/2/ready"), 404, "model-not-served")
        failed(http.get("/v2/nothing"), 404, "request-not-found")
        failed(http("DELETE", "/v1/match"), 405, "request-method")
        assert http.get("/v2/models/loftr-lite/versions/1/ready").status_code == 200


def test_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch, token="secret") as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            failed(http.get("/v2", headers=headers), 401, "token-wrong")
            failed(http.get("/metrics", headers=headers), 401, "token-wrong")
            failed(http.post("/v1/match", headers=headers, files=files(png(), png())), 401, "token-wrong")
        assert http.get("/v2", headers={"Authorization": "bearer secret"}).status_code == 200
        for path in ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
            assert http.get(path).status_code == 200, path
        assert "securitySchemes" in http.get("/openapi.json").json()["components"]


def test_other_names_of_this_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A web page whose name was made to point at 127.0.0.1."""
    with client(monkeypatch) as http:
        assert http.get("/v2", headers={"Host": "evil.example"}).status_code == 400
        assert http.get("/v2", headers={"Host": "localhost:8000"}).status_code == 200


def test_busy_late_and_draining(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    with client(monkeypatch, session, queue=0) as http:
        session.go.clear()
        answers: list[Any] = []
        ask = threading.Thread(
            target=lambda: answers.append(
                http.post("/v1/match", files=files(png(), png()), headers={"X-Request-Timeout": "0.5"})
            )
        )
        ask.start()
        while http.service._taken == 0:
            time.sleep(0.002)
        failed(http.post("/v1/match", files=files(png(), png())), 429, "server-busy")
        assert http.get("/v2/health/ready").status_code == 200
        ask.join()
        failed(answers[0], 504, "deadline-exceeded")
        session.go.set()
        http.service._draining = True
        failed(http.get("/v2/health/ready"), 503, "server-draining")
        failed(http.post("/v1/match", files=files(png(), png())), 503, "server-draining")
        assert http.get("/v2/health/live").status_code == 200


def test_our_own_mistakes_tell_nothing_to_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    session = StubSession()
    with client(monkeypatch, session) as http:
        session.failure = RuntimeError("/secret/path")
        answer = http.post("/v1/match", files=files(png(), png()))
        failed(answer, 500, "unexpected")
        assert "secret" not in answer.text


def test_metrics_count_by_route(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch) as http:
        http.post("/v1/match", files=files(png(), png()))
        http.get("/v2/models/other")
        http.get("/made/up/path")
        text = http.get("/metrics").text
        assert 'matchrt_requests_total{endpoint="/v1/match",protocol="http",status="200"} 1.0' in text
        assert 'endpoint="/v2/models/{model}",protocol="http",status="404"} 1.0' in text
        assert 'matchrt_run_pairs_count{engine="loftr-lite"} 2.0' in text  # one to warm up
        assert "made/up" not in text


def test_pages_need_nothing_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with client(monkeypatch) as http:
        for path in ("/", "/docs"):
            page = http.get(path)
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert "http://" not in page.text and "https://" not in page.text and "//cdn" not in page.text
