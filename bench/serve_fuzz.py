"""Malformed requests against a service: no 5xx but the stated ones, no hang, and afterwards it still gives its answer.

    python bench/serve_fuzz.py --count 10000

Starts `matchrt serve` itself. Messages are good ones with something broken: JSON whose values were replaced, dropped or
nested, binary lengths that lie, protobuf bytes that were flipped, cut or doubled, multipart bodies, raw bytes in place
of HTTP. The seed makes a run repeatable, and the first message that is answered wrongly ends it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import http.client
import io
import json
import random
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from matchrt.serving.grpc_messages import SERVICE, message

SIDE = 64
# What docs/service.md lists; 500 is not among them.
HTTP_STATUSES = {200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 503, 504}
GRPC_STATUSES = {
    "OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "UNIMPLEMENTED",
}  # fmt: skip
HANG_SECONDS = 30.0
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 0.5, 1e308, "", "x", "\u0000", "é" * 50, [], [[]], {},
    {"a": 1}, [1, [2, [3]]], "UINT8", "BYTES", "image0",
)  # fmt: skip
HEADER = "Inference-Header-Content-Length"


class FuzzError(Exception):
    """A message that was answered wrongly."""


def png() -> bytes:
    """A small image file."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def good_request() -> dict[str, Any]:
    """A valid request in JSON, its tensors to come as binary data."""
    size = {"binary_data_size": SIDE * SIDE}
    return {
        "id": "1",
        "inputs": [
            {"name": f"image{i}", "datatype": "UINT8", "shape": [SIDE, SIDE, 1], "parameters": size} for i in (0, 1)
        ],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
        "parameters": {"min_score": 0.4, "timeout": 10_000_000},
    }


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value, with each of its keys."""
    found: list[tuple[Any, Any]] = []
    keys = range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ()
    for key in keys:
        found.append((value, key))
        found.extend(places(value[key]))
    return found


def broken_json(rng: random.Random) -> dict[str, Any]:
    """A request with one to three values replaced, dropped or doubled."""
    request = copy.deepcopy(good_request())
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(places(request) or [({"x": 1}, "x")])
        action = rng.random()
        if action < 0.6:
            container[key] = copy.deepcopy(rng.choice(ODD_VALUES))
        elif action < 0.8:
            del container[key]
        elif isinstance(container, list):
            container.extend(copy.deepcopy(container))
        else:
            container[str(rng.choice(ODD_VALUES))] = container[key]
    return request


def broken_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes with some flipped, cut, doubled or replaced."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1:
                del out[at:]
            case 2:
                out[at:at] = rng.randbytes(rng.randint(1, 9))
            case 3:
                out[at:at] = out[at : at + rng.randint(1, 200)]
            case _:
                del out[at : at + rng.randint(1, 50)]
    return bytes(out)


# ---------------------------------------------------------------------------------------------------------------- HTTP


def http_inference(rng: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers of a broken inference request."""
    text = json.dumps(broken_json(rng) if rng.random() < 0.7 else good_request()).encode()
    pixels = bytes(2 * SIDE * SIDE)
    header: Any = len(text)
    if rng.random() < 0.4:
        header = rng.choice([0, -1, len(text) - 1, len(text) + 1, 10**12, "x", "", "1e3", "٣", len(text) + len(pixels)])
    body = text + pixels
    if rng.random() < 0.3:
        body = broken_bytes(rng, body)
    name = rng.choice(["loftr-lite"] * 5 + ["loftr-lite-files", "loftr-lite-engine", "nothing", "%00", "a" * 300])
    version = rng.choice(["", "", "", "", "/versions/1", "/versions/1", "/versions/2", "/versions/"])
    headers = {"Content-Type": "application/octet-stream"}
    if rng.random() < 0.9:
        headers[HEADER] = str(header).encode("utf-8").decode("latin-1")
    if rng.random() < 0.1:
        headers["Content-Encoding"] = rng.choice(["gzip", "deflate", "br", "identity"])
    if rng.random() < 0.1:
        headers["X-Request-Timeout"] = rng.choice(["nan", "inf", "-1", "1e-9", "x", "5"])
    method = rng.choice(["POST"] * 20 + ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
    return method, f"/v2/models/{name}{version}/infer", body, headers


def http_match(rng: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """The same of a broken multipart request."""
    picture = png()
    parts = []
    for name in rng.sample(
        ["image0", "image1", "image0", "engine", "min_score", "verify", "picture"], rng.randint(1, 6)
    ):
        value = broken_bytes(rng, picture) if rng.random() < 0.5 else picture
        if name not in ("image0", "image1") or rng.random() < 0.1:
            value = str(rng.choice([*ODD_VALUES, "loftr-lite", "0.3", "homography", "png"])).encode("utf-8")
        file = "" if rng.random() < 0.2 else f'; filename="{rng.choice(["a.png", "", "../x", "é.png"])}"'
        head = f'Content-Disposition: form-data; name="{name}"{file if name.startswith("image") else ""}'
        parts.append(b"--B\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n")
    body = b"".join(parts) + b"--B--\r\n"
    if rng.random() < 0.3:
        body = broken_bytes(rng, body)
    kind = rng.choice(
        ["multipart/form-data; boundary=B"] * 8 + ["multipart/form-data", "application/json", "text/plain"]
    )
    return "POST", "/v1/match", body, {"Content-Type": kind}


def http_triton(rng: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """A request to the routes of Triton's extensions."""
    body = json.dumps({rng.choice(["ready", "x"]): rng.choice(ODD_VALUES)}).encode()
    if rng.random() < 0.3:
        body = broken_bytes(rng, body)
    kind = rng.choice(["application/json"] * 4 + ["text/plain", "multipart/form-data; boundary=B"])
    name = rng.choice(["loftr-lite", "loftr-lite-engine", "nothing", "stats", "%00", "a" * 300])
    version = rng.choice(["", "/versions/1", "/versions/2", "/versions/"])
    path = rng.choice(["/v2/repository/index"] * 3 + ["/v2/models/stats"])
    if rng.random() < 0.5:
        path = f"/v2/models/{name}{version}/{rng.choice(['config', 'stats'])}"
    return rng.choice(["GET", "POST", "POST", "PUT"]), path, body, {"Content-Type": kind}


def send_http(port: int, request: tuple[str, str, bytes, dict[str, str]]) -> str:
    """The answer's status."""
    method, path, body, headers = request
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
    try:
        connection.request(method, path, body, {key: value.encode("latin-1") for key, value in headers.items()})
        answer = connection.getresponse()
        answer.read()
    except (TimeoutError, http.client.HTTPException) as error:
        raise FuzzError(f"no answer: {error!r}") from error
    except ConnectionError:
        return "closed"
    finally:
        connection.close()
    if answer.status not in HTTP_STATUSES:
        raise FuzzError(f"status {answer.status}")
    return str(answer.status)


def send_raw(port: int, rng: random.Random) -> str:
    """Sends bytes that are hardly HTTP; any answer or a closed connection is right, silence is not."""
    head = b"POST /v2/models/loftr-lite/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n{}abc"
    with socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS) as raw:
        with contextlib.suppress(ConnectionError):
            raw.sendall(broken_bytes(rng, head))
            raw.shutdown(socket.SHUT_WR)
        try:
            answer = raw.recv(65536)
        except TimeoutError as error:
            raise FuzzError("silence on a raw connection") from error
        except ConnectionError:
            return "closed"
    words = answer.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    if status and status not in HTTP_STATUSES:
        raise FuzzError(f"status {status} on a raw connection")
    return str(status) if status else "closed"


# ---------------------------------------------------------------------------------------------------------------- gRPC


def good_call() -> Any:
    """A valid ModelInferRequest."""
    request = message("ModelInferRequest")(model_name="loftr-lite", id="1")
    for index in (0, 1):
        request.inputs.add(name=f"image{index}", datatype="UINT8", shape=[SIDE, SIDE, 1])
        request.raw_input_contents.append(bytes(SIDE * SIDE))
    return request


def broken_call(rng: random.Random) -> bytes:
    """Bytes of a ModelInferRequest that something is wrong with."""
    request = good_call()
    entry = rng.choice(request.inputs)
    match rng.randrange(9):
        case 0:
            return broken_bytes(rng, request.SerializeToString())
        case 1:
            return rng.randbytes(rng.randint(0, 300))
        case 2:
            entry.shape[rng.randrange(3)] = rng.choice([-1, 0, 1, 2**40, -(2**63)])
        case 3:
            entry.datatype = rng.choice(["BYTES", "FP16", "FP32", "BOOL", "", "x", "INT64"])
        case 4:
            entry.name = rng.choice(["", "image0", "image1", "é" * 1000, "\u0000"])
        case 5:
            del request.raw_input_contents[rng.randrange(2)]
        case 6:
            getattr(entry.contents, rng.choice(["bool_contents", "int_contents", "fp32_contents"])).append(1)
        case 7:
            request.parameters[rng.choice(["min_score", "timeout", "x"])].int64_param = rng.choice([-1, 0, 1, 2**62])
        case _:
            request.raw_input_contents[0] = rng.randbytes(rng.randint(0, 9000))
            request.model_version = rng.choice(["", "1", "2", "x" * 500])
    return bytes(request.SerializeToString())


def send_grpc(channel: grpc.Channel, method: str, raw: bytes) -> str:
    """The call's status."""
    try:
        channel.unary_unary(f"/{SERVICE}/{method}")(raw, timeout=HANG_SECONDS)
    except grpc.RpcError as error:
        status = str(error.code().name)
        if status not in GRPC_STATUSES:
            raise FuzzError(f"gRPC {status}: {error.details()}") from error
        return status
    return "OK"


def send_stream(channel: grpc.Channel, messages: list[bytes]) -> str:
    """Sends messages on one stream; each must get its answer, whatever is in it."""
    try:
        answers = list(channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter(messages), timeout=HANG_SECONDS))
    except grpc.RpcError as error:
        raise FuzzError(f"gRPC {error.code().name} ended a stream: {error.details()}") from error
    if len(answers) != len(messages):
        raise FuzzError(f"{len(messages)} messages of a stream got {len(answers)} answers")
    failed = sum(bool(message("ModelStreamInferResponse").FromString(one).error_message) for one in answers)
    return "ERRORS" if failed else "OK"


# ----------------------------------------------------------------------------------------------------------------- run


def fuzz(
    http_port: int, grpc_port: int, count: int, seed: int, tell: Callable[[int], None] = lambda done: None
) -> dict[str, int]:
    """Sends `count` messages, and gives how often each status came. Raises FuzzError."""
    rng = random.Random(seed)
    seen: collections.Counter[str] = collections.Counter()
    methods = ["ModelInfer"] * 12 + ["ModelMetadata", "ModelReady", "ServerLive", "ServerMetadata", "NoSuchMethod"]
    methods += ["ModelConfig", "ModelStatistics", "RepositoryIndex"]
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        expected = answer_of(channel)
        for number in range(count):
            try:
                kind = rng.random()
                if kind < 0.3:
                    seen["http " + send_http(http_port, http_inference(rng))] += 1
                elif kind < 0.5:
                    seen["http " + send_http(http_port, http_match(rng))] += 1
                elif kind < 0.6:
                    seen["raw " + send_raw(http_port, rng)] += 1
                elif kind < 0.65:
                    seen["http " + send_http(http_port, http_triton(rng))] += 1
                elif kind < 0.7:
                    messages = [broken_call(rng) for _ in range(rng.randint(0, 3))]
                    seen["stream " + send_stream(channel, messages)] += 1
                else:
                    seen["grpc " + send_grpc(channel, rng.choice(methods), broken_call(rng))] += 1
            except FuzzError as failure:
                raise FuzzError(f"message {number} of seed {seed}: {failure}") from failure
            tell(number)
        if answer_of(channel) != expected:
            raise FuzzError("the service gives another answer than before")
    return dict(sorted(seen.items()))


def answer_of(channel: grpc.Channel) -> bytes:
    """What the service says to a good call."""
    raw = channel.unary_unary(f"/{SERVICE}/ModelInfer")(good_call().SerializeToString(), timeout=HANG_SECONDS)
    return bytes(raw)


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from serve_load import serving  # beside this file, which tests import without its folder

    with serving() as where:
        start = time.perf_counter()

        def tell(done: int) -> None:
            if done % 1000 == 0:
                print(f"{done} messages, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

        seen = fuzz(where["http"], where["grpc"], options.count, options.seed, tell)
        assert where["process"].poll() is None
    print(json.dumps({"messages": options.count, "seconds": round(time.perf_counter() - start, 1), **seen}, indent=2))


if __name__ == "__main__":
    main()
