"""The page: pictures arrive, viewers are limited, strangers' pages see nothing."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.chromium import browsing, find

from matchrt.errors import MatchRTError
from matchrt.live.page import Page

PICTURE = np.full((60, 80, 3), (200, 10, 10), np.uint8)


@pytest.fixture
def page() -> Iterator[Page]:
    found = Page(0, viewers=2)
    yield found
    found.close()


def ask(page: Page, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


class Viewer:
    """Watches the stream."""

    def __init__(self, page: Page) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
        self.connection.request("GET", "/stream")
        self.answer = self.connection.getresponse()

    def picture(self) -> bytes:
        length = 0
        while line := self.answer.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        jpeg = self.answer.read(length)
        assert self.answer.readline() == b"\r\n"
        return jpeg

    def leave(self) -> None:
        self.answer.close()
        self.connection.close()


def until(true: object) -> None:
    end = time.monotonic() + 10
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_files_and_headers(page: Page) -> None:
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        answer, body = ask(page, path)
        assert answer.status == 200 and answer.headers["Content-Type"].startswith(kind) and body
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert ask(page, "/../secret")[0].status == 404 and ask(page, "/", "POST")[0].status == 405


def test_a_viewer_gets_new_pictures_and_the_status(page: Page) -> None:
    assert not page.watched
    page.show(PICTURE, {"frame": 1})
    viewer = Viewer(page)
    assert page.watched and viewer.answer.headers["Content-Type"].startswith("multipart/x-mixed-replace")
    first = cv2.imdecode(np.frombuffer(viewer.picture(), np.uint8), cv2.IMREAD_COLOR)
    assert first.shape == PICTURE.shape and abs(int(first[30, 40, 2]) - 200) < 8  # red, in BGR
    page.show(255 - PICTURE, {"frame": 2})
    second = cv2.imdecode(np.frombuffer(viewer.picture(), np.uint8), cv2.IMREAD_COLOR)
    assert abs(int(second[30, 40, 2]) - 55) < 8
    assert json.loads(ask(page, "/status")[1]) == {"frame": 2}
    viewer.leave()
    until(lambda: not page.watched)


def test_one_viewer_too_many_is_refused_until_another_leaves(page: Page) -> None:
    page.show(PICTURE, {})
    first, second = Viewer(page), Viewer(page)
    assert ask(page, "/stream")[0].status == 503 and ask(page, "/")[0].status == 200
    first.leave()
    until(lambda: page._viewers == 1)
    third = Viewer(page)
    assert third.answer.status == 200 and third.picture()
    for viewer in (second, third):
        viewer.leave()


def test_a_viewer_that_takes_nothing_delays_nobody_and_fills_no_memory(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    page.show(noise, {})
    Viewer(page)
    start = time.monotonic()
    for _ in range(150):  # some 30 MB of pictures
        page.show(noise, {})
    assert time.monotonic() - start < 20
    fast = Viewer(page)
    assert fast.picture()
    fast.leave()


def test_names_that_are_not_this_machine_are_refused(page: Page) -> None:
    assert ask(page, "/stream", Host="evil.example")[0].status == 403
    assert ask(page, "/status", Host="evil.example:80")[0].status == 403
    for good in (f"localhost:{page.port}", "127.0.0.1", f"[::1]:{page.port}"):
        assert ask(page, "/status", Host=good)[0].status == 200


def test_closing_ends_streams_and_frees_the_port() -> None:
    page = Page(0)
    page.show(PICTURE, {})
    viewer = Viewer(page)
    viewer.picture()
    page.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "matchrt-live-page"]
    page.show(PICTURE, {})  # too late, and harmless
    Page(page.port).close()


def test_a_port_that_is_taken_and_one_that_is_none(page: Page) -> None:
    for port, viewers, code in ((page.port, 4, "port-taken"), (70000, 4, "option-range"), (0, 0, "option-range")):
        with pytest.raises(MatchRTError) as caught:
            Page(port, viewers=viewers)
        assert caught.value.code == code
    with pytest.raises(MatchRTError) as caught:
        Page(0, "")  # an empty variable in a script must not open the page to everybody
    assert caught.value.code == "option-range"


def test_a_browser_shows_the_pictures_and_the_status(page: Page, tmp_path: Path) -> None:
    program = find()
    if program is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    page.show(PICTURE, {"frame": 41, "status": "<b>tracked</b>"})
    with browsing(program, tmp_path) as browser:
        browser.call("Page.navigate", url=page.address)
        browser.wait("document.querySelector('#facts dd') !== null")
        assert browser.run("document.querySelector('#facts').textContent") == "frame41status<b>tracked</b>"
        page.show(PICTURE, {"frame": 42})
        # A picture of a stream is shown when the next one begins.
        until(lambda: page.show(PICTURE, {"frame": 42}) or browser.run("picture.naturalWidth") == 80)
        browser.wait("document.querySelector('#facts').textContent === 'frame42'")
        assert page.watched and not browser.messages
        page.close()
        browser.wait("state.textContent !== 'Running.'")
