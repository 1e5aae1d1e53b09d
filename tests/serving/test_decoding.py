"""Decoding processes: the same pixels and errors as in this process, and an end for images that take too long."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as PILImage
from support.serving import running

from matchrt.errors import MatchRTError
from matchrt.runtime.image import decode_image
from matchrt.serving.call import Call
from matchrt.serving.decoding.pool import Decoders

ENOUGH = 60.0
PIXELS = 50_000_000


def encoded(pixels: np.ndarray[Any, Any], kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def slow() -> bytes:
    """An image that takes seconds to decode."""
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    return encoded(noise, "JPEG2000", irreversible=False)


@pytest.fixture
def small() -> bytes:
    return encoded(np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8))


class Counted:
    """Decoders, and how many processes had to be ended."""

    def __init__(self, count: int = 1, seconds: float = ENOUGH) -> None:
        self.ended = 0
        self.decoders = Decoders(count, PIXELS, seconds, self._count)

    def _count(self) -> None:
        self.ended += 1

    def decode(self, data: bytes, seconds: float = ENOUGH, call: Call | None = None) -> Any:
        return self.decoders.decode(data, "a picture", call or Call(seconds))

    def fails(self, code: str, data: bytes, seconds: float = ENOUGH, call: Call | None = None) -> MatchRTError:
        with pytest.raises(MatchRTError) as caught:
            self.decode(data, seconds, call)
        assert caught.value.code == code, caught.value
        return caught.value

    def process(self) -> subprocess.Popen[bytes]:
        inner = self.decoders._slots[0]._process
        assert inner is not None
        return inner._process


@contextlib.contextmanager
def decoders(count: int = 1, seconds: float = ENOUGH) -> Iterator[Counted]:
    made = Counted(count, seconds)
    try:
        yield made
    finally:
        made.decoders.close()


def turned(orientation: int) -> bytes:
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    return encoded(np.random.default_rng(2).integers(0, 256, (40, 60, 3), dtype=np.uint8), "JPEG", exif=exif)


@pytest.mark.parametrize(
    "data",
    [
        encoded(np.random.default_rng(3).integers(0, 256, (33, 47), dtype=np.uint8)),
        encoded(np.random.default_rng(4).integers(0, 256, (33, 47, 3), dtype=np.uint8), "WEBP"),
        encoded(np.random.default_rng(5).integers(0, 65536, (33, 47), dtype=np.uint16)),
        encoded(np.random.default_rng(6).integers(900, 1000, (33, 47), dtype=np.uint16)),
        encoded(np.full((3000, 3000, 3), 77, np.uint8)),
        *map(turned, (1, 3, 6)),
    ],
    ids=["grey", "webp", "wide", "flat", "large", "upright", "half a turn", "quarter of a turn"],
)
def test_the_pixels_are_those_of_decode_image(data: bytes) -> None:
    expected = decode_image(data, "a picture")
    with decoders() as pool:
        for _ in range(2):
            image = pool.decode(data)
            assert np.array_equal(image.pixels, expected.pixels) and image.pixels.shape == expected.pixels.shape
            assert (image.name, image.orientation) == ("a picture", expected.orientation)
            assert image.notice == expected.notice
        assert image.pixels.flags.writeable and image.pixels.flags.owndata
        assert pool.ended == 0


def test_the_memory_of_a_large_image_is_given_back() -> None:
    with decoders() as pool:
        pool.decode(encoded(np.full((3000, 3000, 3), 77, np.uint8)))
        inner = pool.decoders._slots[0]._process
        assert inner is not None and os.fstat(inner._memory).st_blocks == 0


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("image-format", b"This is no picture."),
        ("image-truncated", b""),
        ("image-truncated", encoded(np.zeros((64, 64, 3), np.uint8), "JPEG")[:200]),
        ("image-too-small", encoded(np.zeros((4, 4, 3), np.uint8))),
    ],
)
def test_the_errors_are_those_of_decode_image(code: str, data: bytes, small: bytes) -> None:
    with pytest.raises(MatchRTError) as expected:
        decode_image(data, "a picture")
    with decoders() as pool:
        error = pool.fails(code, data)
        assert str(error) == str(expected.value)
        pool.decode(small)
        assert pool.ended == 0, "a bad image does not end the process"


def test_an_image_that_takes_too_much_processor_time_is_named(slow: bytes, small: bytes) -> None:
    with decoders(seconds=0.2) as pool:
        start = time.monotonic()
        error = pool.fails("image-slow", slow)
        assert time.monotonic() - start < 5.0 and "0.2 s" in str(error) and "--decode-seconds" in str(error)
        pool.decode(small)
        assert pool.ended == 1


def test_decoding_ends_at_the_deadline(slow: bytes, small: bytes) -> None:
    with decoders() as pool:
        pool.decode(small)
        start = time.monotonic()
        pool.fails("deadline-exceeded", slow, seconds=0.3)
        assert time.monotonic() - start < 0.8
        pool.decode(small)
        assert pool.ended == 1


def test_decoding_ends_when_nobody_waits(slow: bytes, small: bytes) -> None:
    with decoders() as pool:
        pool.decode(small)
        call = Call(ENOUGH)
        timer = threading.Timer(0.2, call.abandon)
        timer.start()
        start = time.monotonic()
        pool.fails("request-abandoned", slow, call=call)
        assert time.monotonic() - start < 1.0
        timer.join()


def test_who_waits_for_a_process_waits_no_longer_than_its_deadline(slow: bytes, small: bytes) -> None:
    with decoders() as pool:
        pool.decode(small)
        busy = threading.Thread(target=lambda: pool.fails("deadline-exceeded", slow, seconds=2.0))
        busy.start()
        time.sleep(0.1)
        start = time.monotonic()
        pool.fails("deadline-exceeded", small, seconds=0.3)
        assert time.monotonic() - start < 0.8
        busy.join()


def test_closing_ends_what_is_under_way(slow: bytes, small: bytes) -> None:
    with decoders() as pool:
        pool.decode(small)
        failed: list[MatchRTError] = []
        thread = threading.Thread(target=lambda: failed.append(pool.fails("server-draining", slow)))
        thread.start()
        time.sleep(0.2)
        start = time.monotonic()
        pool.decoders.close()
        thread.join(5)
        assert time.monotonic() - start < 1.0 and len(failed) == 1
        pool.fails("server-draining", small)
        pool.decoders.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_decoder_that_breaks_down_is_named_and_replaced(number: signal.Signals, slow: bytes, small: bytes) -> None:
    with decoders() as pool:
        pool.decode(small)
        timer = threading.Timer(0.2, lambda: pool.process().send_signal(number))
        timer.start()
        assert f"signal {int(number)}" in str(pool.fails("image-crash", slow))
        timer.join()
        pool.decode(small)


def test_a_process_that_ended_while_it_was_idle_costs_no_request(small: bytes) -> None:
    with decoders() as pool:
        pool.decode(small)
        pool.process().kill()
        pool.process().wait()
        pool.decode(small)


def test_nothing_is_left_of_ended_processes(slow: bytes, small: bytes) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not list a process's descriptors")
    before = len(list(descriptors.iterdir()))
    with decoders(2) as pool:
        pool.decoders.start()
        for _ in range(5):
            pool.fails("deadline-exceeded", slow, seconds=0.05)
        processes = [slot._process._process for slot in pool.decoders._slots if slot._process is not None]
    for process in processes:
        assert process.wait(5) is not None
    assert len(list(descriptors.iterdir())) == before


def test_nothing_is_left_where_no_process_starts(small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(memory: int) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not list a process's descriptors")
    monkeypatch.setattr("matchrt.serving.decoding.process._start", refused)
    before = len(list(descriptors.iterdir()))
    with decoders() as pool:
        for _ in range(5):
            pool.fails("decoder-start", small)
    assert len(list(descriptors.iterdir())) == before


def test_processes_end_with_the_service(tmp_path: Path, slow: bytes) -> None:
    picture = tmp_path / "slow.jp2"
    picture.write_bytes(slow)
    code = f"""
import pathlib, threading, time
from matchrt.serving.call import Call
from matchrt.serving.decoding.pool import Decoders
pool = Decoders(2, {PIXELS}, 60.0, lambda: None)
pool.start()
data = pathlib.Path({str(picture)!r}).read_bytes()
threading.Thread(target=lambda: pool.decode(data, "x", Call(1.5)), daemon=True).start()
print(*(slot._process._process.pid for slot in pool._slots), flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10.0
    while any(map(_alive, children)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(_alive, children))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def test_slow_images_do_not_outlive_the_deadline_or_the_drain_of_a_service(
    tmp_path: Path, slow: bytes, small: bytes
) -> None:
    def post(url: str, image: bytes) -> httpx.Response:
        return httpx.post(f"{url}/v1/match", files={"image0": image, "image1": image}, timeout=30)

    with running(tmp_path, "--timeout", "2", "--drain", "1", "--threads", "1") as server:
        assert post(server.url, small).status_code == 200
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(post(server.url, slow))) for _ in range(2)]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - start < 3.5
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(504, "deadline-exceeded")}
        assert post(server.url, small).status_code == 200
        ended = re.search(r"matchrt_decoders_ended_total ([0-9.]+)", httpx.get(f"{server.url}/metrics").text)
        assert ended is not None and float(ended[1]) >= 2

    with running(tmp_path, "--timeout", "60", "--drain", "1", "--decode-seconds", "60", "--threads", "1") as server:
        threads = [threading.Thread(target=lambda: _ignore(post, server.url, slow)) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        start = time.monotonic()
        server.terminate()
        server.process.wait(10)
        assert time.monotonic() - start < 3.0
        for thread in threads:
            thread.join()


def _ignore(function: Any, *arguments: Any) -> None:
    with contextlib.suppress(httpx.HTTPError):
        function(*arguments)
