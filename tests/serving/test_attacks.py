"""Attacks on a real service: it answers with a named error or closes, keeps its memory and goes on serving.

The full list is `bench/serve_attacks.py`; `bench/serve_attack.py` sends it beside honest load and has the bars.
"""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.scripts import bench_script
from support.serving import Running, running

# What an attack may be answered with.
GOOD = {
    "200", "400", "403", "408", "413", "415", "429", "431", "503", "closed", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED",
    "NOT_FOUND", "DEADLINE_EXCEEDED", "held", "taken", "churned", "deaf",
}  # fmt: skip
# More than the service has when it is idle. With two places: two bodies of 64 MB, as read and as parsed.
MOST_MB = 300
# Sent in every run of the tests, those of a second or less; `-m slow` sends all.
QUICK = (
    "json: one long text pads the others", "json: lists of one", "json: deep", "json: objects",
    "json: numbers that fit no shape", "gzip: of gzip", "form: many fields", "form: long boundary",
    "urlencoded, not packed", "text/plain", "another site", "too long, says the head", "half a head",
    "nothing at all", "idle after a request", "a body by the byte", "a body of which nothing comes",
    "a field without end", "a trailer without end", "requests without waiting", "connections opened and closed",
    "gRPC: empty inputs", "gRPC: small numbers", "gRPC: a large name", "gRPC: resets", "gRPC: half calls",
    "gRPC: idle connections",
)  # fmt: skip


TOOL = bench_script("serve_attacks")


@dataclass(frozen=True)
class Victim(Running):
    """A service, and the megabytes that it has when it is idle."""

    idle: int


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with running(tmp_path_factory.mktemp("victim"), "--drain", "1") as service:
        # ONNX Runtime keeps the memory of the largest pair so far, which must not count as an attack's.
        square = TOOL.picture(640)
        sent = httpx.post(f"{service.url}/v1/match", files={"image0": square, "image1": square}, timeout=60)
        assert sent.status_code == 200
        yield Victim(service.process, service.http, service.grpc, service.log, memory(service, "VmRSS"))
        log = service.log.read_text()
        assert "Traceback" not in log and len(log) < 20_000


def memory(service: Running, what: str) -> int:
    """Megabytes: VmRSS now, VmHWM at most since the last `forget`."""
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(what))


def forget(service: Running) -> None:
    Path(f"/proc/{service.process.pid}/clear_refs").write_text("5")


def wait_for(condition: Any, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def attack(service: Victim, name: str, scale: float) -> None:
    forget(service)
    target = TOOL.Target(service.http, service.grpc, scale=scale)
    seen = TOOL.attacks()[name](target)
    assert set(seen) <= GOOD, seen
    assert TOOL.send_health(target) == "200"
    assert memory(service, "VmHWM") < service.idle + MOST_MB
    # Nothing stays: neither places nor memory.
    assert wait_for(lambda: taken(service) == 0)


def taken(service: Running) -> float:
    with urllib.request.urlopen(f"{service.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("matchrt_places_taken "))


@pytest.mark.parametrize("name", QUICK)
def test_it_survives(victim: Victim, name: str) -> None:
    attack(victim, name, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOOL.attacks())
def test_it_survives_all(victim: Victim, name: str) -> None:
    attack(victim, name, 0.5)


def test_afterwards_it_is_as_before(victim: Victim, pair: Any) -> None:
    body = TOOL.form(*(TOOL.part(f"image{index}", data) for index, data in enumerate(pair.files)))
    wish = urllib.request.Request(f"{victim.url}/v1/match", body, {"Content-Type": TOOL.FORM})
    with urllib.request.urlopen(wish, timeout=60) as answer:
        assert json.load(answer)["matches"] == len(pair.expected)
    assert wait_for(lambda: memory(victim, "VmRSS") < 1.5 * victim.idle)


def test_refusals_arrive_though_the_body_does_not(victim: Victim) -> None:
    """A client that sends its whole body before it reads gets the answer, and the connection goes on."""
    head = b"POST /v1/match HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
    for close in (b"", b"Connection: close\r\n"):
        for size in (10, 200_000, 5_000_000):
            with socket.create_connection(("127.0.0.1", victim.http), timeout=20) as link:
                link.sendall(head + close + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
                assert TOOL.status_of(link) == "415"
    for _ in range(20):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{victim.url}/v1/match", bytes(300_000))
        assert caught.value.code == 415 and json.load(caught.value)["code"] == "request-media-type"


def test_slow_bodies_keep_nobody_out(victim: Victim, pair: Any) -> None:
    """They have all places, and lose one to whoever comes."""
    slow = b"POST /v1/match HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=BB\r\n"
    slow = slow.replace(b"Host: x", b"Host: 127.0.0.1") + b"Content-Length: 60000000\r\n\r\n-"
    with TOOL.links(victim.http, 6) as links:
        for link in links:
            link.sendall(slow)
        assert wait_for(lambda: taken(victim) == 2)
        time.sleep(1.2)
        body = TOOL.form(*(TOOL.part(f"image{index}", data) for index, data in enumerate(pair.files)))
        wish = urllib.request.Request(f"{victim.url}/v1/match", body, {"Content-Type": TOOL.FORM})
        with urllib.request.urlopen(wish, timeout=60) as answer:
            assert answer.status == 200


def test_sigterm_under_attack(tmp_path: Path) -> None:
    """Half-sent heads and bodies, idle connections and a run that lasts do not delay the end."""
    with running(tmp_path, "--drain", "1", "--queue", "3") as service:
        post = b"POST /v1/match HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=BB\r\n"
        pair = TOOL.form(*(TOOL.part(f"image{index}", TOOL.picture()) for index in (0, 1)))
        sent = [
            b"", b"GET / HT", b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            post + b"Content-Length: 60000000\r\n\r\n-", post + b"Content-Length: %d\r\n\r\n" % len(pair) + pair,
        ]  # fmt: skip
        with TOOL.links(service.http, 25) as links, TOOL.links(service.grpc, 10) as others:
            for number, link in enumerate(links):
                TOOL.send(link, sent[number % len(sent)])
            for link in others:
                TOOL.send(link, TOOL.PREFACE + TOOL.infer_head(1) + TOOL.frame(0, 0, 1, b"\0\0\1\0\0" + bytes(9)))
            time.sleep(0.3)
            start = time.monotonic()
            service.terminate()
            assert service.process.wait(timeout=30) == 0
            # One second after the drain, and one for a machine that does other things.
            assert time.monotonic() - start < 1 + 1 + 1
        assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("descriptors", [64, 96])
def test_few_descriptors(tmp_path: Path, descriptors: int) -> None:
    with running(tmp_path, descriptors=descriptors) as service:
        target = TOOL.Target(service.http, service.grpc)
        with TOOL.links(service.http, 100), TOOL.links(service.grpc, 100):
            for _ in range(5):
                assert TOOL.send_health(target) == "200"
                time.sleep(0.1)
        log = service.log.read_text()
        assert len(log) < 5000 and "Traceback" not in log
