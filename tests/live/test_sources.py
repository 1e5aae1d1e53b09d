"""Sources: what opens, and the named errors of what does not."""

from __future__ import annotations

import contextlib
import http.server
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.live import ListFeed
from support.made_video import make_video

from matchrt.errors import MatchRTError
from matchrt.live.arrival import arrival_of
from matchrt.live.capture import without_password
from matchrt.live.frame import Frame
from matchrt.live.opening import open_within
from matchrt.live.page import Page
from matchrt.live.source import open_feed


def code_of(source: str, timeout: float = 1.0) -> str:
    with pytest.raises(MatchRTError) as caught:
        open_feed(source, timeout)
    assert "secret" not in caught.value.message
    return caught.value.code


def test_a_video_file(tmp_path: Path) -> None:
    made = make_video(tmp_path / "made.avi", 6, (64, 48))
    feed = open_feed(str(made.path))
    assert (feed.live, feed.fps, feed.total) == (False, 25.0, 6)
    frames = [feed.read() for _ in range(7)]
    feed.close()
    assert frames[6] is None and frames[5] is not None and frames[5].time == 0.2
    assert frames[0] is not None and frames[0].pixels is not None and frames[0].pixels.shape == (48, 64, 3)
    assert frames[0].pixels[..., 0].mean() > frames[0].pixels[..., 2].mean()  # a red cup, in RGB


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name, shape in (("2.png", (40, 50, 3)), ("10.png", (40, 50))):
        cv2.imwrite(str(tmp_path / name), np.full(shape, 9, np.uint8))
    (tmp_path / "11.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    feed = open_feed(str(tmp_path))
    first, second, third = feed.read(), feed.read(), feed.read()
    assert feed.total == 3 and not feed.live and feed.read() is None
    assert first is not None and first.name == "2.png"
    assert second is not None and second.pixels is not None and second.pixels.shape == (40, 50, 3)
    assert third is not None and third.pixels is None and third.problem is not None
    assert third.problem.code == "image-truncated"


def test_what_is_no_source(tmp_path: Path) -> None:
    text, cut, empty = tmp_path / "text.mp4", tmp_path / "cut.mp4", tmp_path / "empty"
    text.write_text("no video\n" * 100)
    made = make_video(tmp_path / "made.mp4", 6, (64, 48))
    cut.write_bytes(made.path.read_bytes()[:2000])  # MP4 has its index at the end
    empty.mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert code_of(str(text)) == code_of(str(cut)) == "live-format"
    for absent in (empty, tmp_path / "absent.mp4", tmp_path / "pipe"):
        assert code_of(str(absent)) == "live-missing"
    assert code_of("a\0b") == "live-missing"
    for address in ("file:///etc/passwd", "concat://a", "gopher://x", "://", "http://[", "fd://0"):
        assert code_of(address) == "live-format"


@pytest.mark.skipif(Path("/dev/video77").exists(), reason="there is such a camera")
def test_a_camera_that_is_absent(capfd: pytest.CaptureFixture[str]) -> None:
    assert code_of("77") == "live-missing"
    assert not capfd.readouterr().err


def test_a_video_that_is_cut_off(tmp_path: Path) -> None:
    made = make_video(tmp_path / "made.avi", 60, (64, 48))
    data = made.path.read_bytes()
    made.path.write_bytes(data[: len(data) // 2])
    feed = open_feed(str(made.path))
    with pytest.raises(MatchRTError) as caught:
        while feed.read():
            pass
    assert caught.value.code == "live-ended" and "60 frames" in caught.value.message


def test_frames_that_cannot_be_decoded_are_told_and_those_after_them_are_used(tmp_path: Path) -> None:
    made = make_video(tmp_path / "made.avi", 40, (64, 48))
    data = bytearray(made.path.read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 40
    for start in starts[20:23]:
        data[start : start + 400] = bytes(400)  # three JPEG headers
    made.path.write_bytes(data)
    feed = open_feed(str(made.path))
    frames = list(iter(feed.read, None))
    assert [frame.index for frame in frames] == list(range(len(frames))) and len(frames) >= 39
    damaged = [frame for frame in frames if frame.pixels is None]
    assert damaged and all(20 <= frame.index <= 23 and frame.problem is not None for frame in damaged)
    assert sum(frame.pixels is not None for frame in frames) >= 36


def test_a_video_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "empty.avi"
    cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48)).release()
    with pytest.raises(MatchRTError) as caught:
        open_feed(str(path)).read()
    assert caught.value.code in ("live-ended", "live-format")


def test_what_hangs_while_it_is_opened_is_left_behind() -> None:
    begun, stop, feed = threading.Event(), threading.Event(), ListFeed([1])

    def hang() -> ListFeed:
        begun.wait(30)
        return feed

    with pytest.raises(MatchRTError) as caught:
        open_within(hang, "rtsp://user:secret@host/x", 0.2, stop)
    assert caught.value.code == "live-missing" and "secret" not in str(caught.value)
    threading.Timer(0.2, stop.set).start()
    assert open_within(hang, "x", 30, stop) is None
    begun.set()
    deadline = time.monotonic() + 10
    while not feed.closed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert feed.closed  # nobody wants it any more
    assert open_within(lambda: feed, "x", 30, threading.Event()) is feed
    assert code_of("77" if not Path("/dev/video77").exists() else "no such file") == "live-missing"


def test_a_read_that_hangs_hears_a_signal() -> None:
    hanging, stop = threading.Event(), threading.Event()

    class Hangs(ListFeed):
        def read(self) -> Frame | None:
            hanging.wait(30)
            return super().read()

    arrival = arrival_of(Hangs([1]), realtime=False, timeout=10)
    threading.Timer(0.2, stop.set).start()
    start = time.monotonic()
    assert arrival.next(stop) is None and time.monotonic() - start < 5
    hanging.set()
    arrival.close()


def test_an_address(tmp_path: Path) -> None:
    made = make_video(tmp_path / "made.avi", 6, (64, 48))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with contextlib.ExitStack() as stack:
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            where = f"http://user:secret@127.0.0.1:{server.server_port}/{made.path.name}?key=secret"
            feed = open_feed(where, 5.0)
            assert feed.name == f"http://127.0.0.1:{server.server_port}/made.avi"
            assert feed.read() is not None and not feed.live
            feed.close()
            assert code_of(where.replace("made", "absent")) == "live-missing"


def test_addresses_are_told_without_secrets() -> None:
    assert without_password("rtsp://me:secret@camera:554/1?token=secret#secret") == "rtsp://camera:554/1"


@pytest.fixture
def stream() -> Iterator[tuple[Page, threading.Event]]:
    """A real stream (MJPEG over HTTP), and the event that ends its pictures."""
    page, ended = Page(0), threading.Event()

    def show() -> None:
        noise = np.random.default_rng(0)
        while not ended.wait(0.02):
            page.show(noise.integers(0, 255, (96, 128, 3)).astype(np.uint8), {})

    thread = threading.Thread(target=show)
    thread.start()
    yield page, ended
    ended.set()
    thread.join()
    page.close()


def test_a_stream_gives_its_newest_frames_until_it_stalls(stream: tuple[Page, threading.Event]) -> None:
    page, ended = stream
    feed = open_feed(page.address + "stream", 5.0)
    assert feed.live and feed.total is None
    arrival, never = arrival_of(feed, realtime=False, timeout=0.5), threading.Event()
    for _ in range(3):
        found = arrival.next(never)
        assert found is not None and found.pixels is not None and found.pixels.shape == (96, 128, 3)
    ended.set()
    with pytest.raises(MatchRTError) as caught:
        while arrival.next(never):
            pass
    assert caught.value.code == "live-stalled"
    page.close()
    arrival.close()


def test_a_stream_that_ends(stream: tuple[Page, threading.Event]) -> None:
    page, _ = stream
    arrival = arrival_of(open_feed(page.address + "stream", 5.0), realtime=False, timeout=5.0)
    never = threading.Event()
    assert arrival.next(never) is not None
    page.close()
    with pytest.raises(MatchRTError) as caught:
        while arrival.next(never):
            pass
    assert caught.value.code == "live-ended"
    arrival.close()
