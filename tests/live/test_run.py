"""Runs over a video: drops, errors, files, memory."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from support.live import BLACK, ListFeed, StubPairing, frame

from matchrt.errors import MatchRTError
from matchrt.live.drawing import Painter
from matchrt.live.frame import Feed, Frame
from matchrt.live.keyframes import Policy, Step, Tracker
from matchrt.live.latencies import Latencies
from matchrt.live.outputs import VideoFile
from matchrt.live.report import MOST_LISTED, Report
from matchrt.live.run import Outcome, RunOptions, run_live

SCENES = [1] * 10 + [BLACK] * 2 + [90] * 10


def run(feed: Feed, options: RunOptions | None = None, **others: Any) -> Outcome:
    return run_live(feed, Tracker(StubPairing()), Painter("stub", 64), options, **others)


def summary(outcome: Outcome) -> dict[str, Any]:
    return outcome.report.summary(outcome.error, outcome.stopped, None)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_video_lines_and_summary(tmp_path: Path) -> None:
    feed = ListFeed(SCENES)
    outcome = run(feed, RunOptions(tmp_path / "out.mp4", tmp_path / "out.jsonl"))
    found = summary(outcome)
    assert outcome.error is None and outcome.video and feed.closed
    assert found["ended"] == "end" and found["frames"] == 22 and found["dropped"] == 0
    assert found["cuts"] == {"count": 1, "frames": [12]}
    assert found["nothing_seen"] == {"count": 1, "spans": [{"kind": "black", "first": 10, "last": 11}]}
    assert found["verdicts"] == {"match": 18, "doubtful": 1, "no match": 0} and found["keyframes"] == 2
    lines = read_lines(tmp_path / "out.jsonl")
    assert [line["frame"] for line in lines] == list(range(22)) and lines[13]["cut"] == 12
    assert np.allclose(lines[5]["homography"], np.eye(3), atol=1e-3) and "homography" not in lines[10]
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 22 and video.get(cv2.CAP_PROP_FPS) == 25
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["out.jsonl", "out.mp4"]


def test_frames_of_a_live_source_are_dropped_and_not_queued() -> None:
    feed = ListFeed([1] * 60, live=True, pace=0.005)
    outcome = run(feed, tell=lambda step, report: time.sleep(0.03))
    report = outcome.report
    assert feed.given == 60 and report.frames + report.dropped == 60
    assert report.dropped > report.frames
    # A frame waits for no other one: what is matched was there a moment before.
    slowest = report.latencies.percentile(0.9)
    assert slowest is not None and slowest < 100


def test_a_file_in_real_time_takes_its_time() -> None:
    outcome = run(ListFeed([1] * 20, fps=100), RunOptions(realtime=True), tell=lambda step, report: time.sleep(0.05))
    assert outcome.report.dropped > 0 and outcome.report.frames + outcome.report.dropped == 20


def test_a_video_of_a_live_source_keeps_the_time(tmp_path: Path) -> None:
    class Slow(ListFeed):
        def read(self) -> Frame | None:
            found = super().read()
            return found and Frame(found.index, found.index * 0.5, found.arrived, found.name, found.pixels)

    run(Slow([1] * 5, live=True, pace=0.05), RunOptions(tmp_path / "out.avi"))
    video = cv2.VideoCapture(str(tmp_path / "out.avi"))
    assert 18 <= video.get(cv2.CAP_PROP_FRAME_COUNT) <= 22 and video.get(cv2.CAP_PROP_FPS) == 10  # 2 s


class Failing(ListFeed):
    def read(self) -> Frame | None:
        if self.given == 5:
            raise MatchRTError("live-ended", "The camera gave no more frames.", "Check it.")
        return super().read()


@pytest.mark.parametrize("live", [False, True])
def test_a_source_that_ends_too_early_leaves_whole_files(tmp_path: Path, live: bool) -> None:
    feed = Failing([1] * 9, live=live, pace=0.02)
    outcome = run(feed, RunOptions(tmp_path / "out.mp4", tmp_path / "out.jsonl"))
    assert outcome.error is not None and summary(outcome)["ended"] == "live-ended"
    assert outcome.report.frames == 5 and len(read_lines(tmp_path / "out.jsonl")) == 5 and outcome.video
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[0]


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_disk_that_fills_up_leaves_a_whole_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    room = iter([1 << 30, 1 << 30, 1 << 20])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=next(room)))
    outcome = run(ListFeed([1] * 60), RunOptions(tmp_path / f"out{suffix}", tmp_path / "out.jsonl"))
    assert outcome.error is not None and outcome.error.code == "output-unwritable" and "full" in outcome.error.message
    assert outcome.video and outcome.report.frames == 21
    assert cv2.VideoCapture(str(tmp_path / f"out{suffix}")).get(cv2.CAP_PROP_FRAME_COUNT) == 20


def test_a_disk_without_room_gets_no_empty_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    outcome = run(ListFeed([1] * 6), RunOptions(tmp_path / "out.avi"))
    assert outcome.error is not None and not outcome.video and not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from support.live import ListFeed, StubPairing
from matchrt.live.drawing import Painter
from matchrt.live.keyframes import Tracker
from matchrt.live.run import RunOptions, run_live
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
outcome = run_live(ListFeed([1] * 20), Tracker(StubPairing()), Painter("m"), RunOptions(jsonl=Path(sys.argv[1])))
print(outcome.error.code)
"""
    paths = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "o.jsonl")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "output-unwritable\n", ran.stderr
    assert (tmp_path / "o.jsonl").read_bytes().endswith(b"}\n") and len(read_lines(tmp_path / "o.jsonl")) >= 2


def test_a_video_that_is_not_whole_ends_with_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VideoFile, "_write", lambda self, bgr: setattr(self, "_written", self._written + 1))
    outcome = run(ListFeed([1] * 5), RunOptions(tmp_path / "out.mp4"))
    assert outcome.error is not None and outcome.error.code == "output-unwritable"
    assert outcome.report.frames == 5 and not outcome.video and not list(tmp_path.iterdir())


def test_a_reader_of_the_lines_that_goes_away_leaves_a_whole_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reader(io.StringIO):
        def write(self, text: str) -> int:
            if self.getvalue().count("\n") == 4:
                raise SystemExit(141)  # as the command's own streams do
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", Reader())
    feed = ListFeed([1] * 30)
    with pytest.raises(SystemExit):
        run(feed, RunOptions(tmp_path / "out.mp4", Path("-")))
    assert feed.closed and cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_a_source_that_stalls() -> None:
    released = threading.Event()

    class Stalling(ListFeed):
        def read(self) -> Frame | None:
            if self.given == 2:
                released.wait(5)
                return None
            return super().read()

    outcome = run(Stalling([1] * 9, live=True, pace=0.05), RunOptions(timeout=0.3))
    released.set()
    assert outcome.error is not None and outcome.error.code == "live-stalled" and outcome.report.frames == 2


def test_frames_of_another_size(tmp_path: Path) -> None:
    class Changing(ListFeed):
        def read(self) -> Frame | None:
            found = super().read()
            return frame(found.index, 1, 96) if found and found.index == 3 else found

    outcome = run(Changing([1] * 9), RunOptions(tmp_path / "out.mp4"))
    assert outcome.error is not None and outcome.error.code == "live-size" and outcome.video
    assert "96 x 96" in outcome.error.message and outcome.report.frames == 3


def test_a_run_is_stopped_after_the_frame_under_way(tmp_path: Path) -> None:
    stop = threading.Event()

    def tell(step: Step, report: Report) -> None:
        if report.frames == 4:
            stop.set()

    outcome = run(ListFeed([1] * 100), RunOptions(tmp_path / "out.mp4"), stop=stop, tell=tell)
    assert outcome.stopped and summary(outcome)["ended"] == "stopped" and outcome.report.frames == 4 and outcome.video


def test_no_picture_makes_no_video(tmp_path: Path) -> None:
    outcome = run(ListFeed([]), RunOptions(tmp_path / "out.mp4"))
    assert not outcome.video and outcome.error is None and not list(tmp_path.iterdir())
    assert summary(outcome)["latency_ms"] == {"p50": None, "p99": None}


def test_an_unreadable_image_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    class Damaged(ListFeed):
        def read(self) -> Frame | None:
            found = super().read()
            if found is None or found.index != 2:
                return found
            return Frame(2, 0.08, found.arrived, "2.png", None, MatchRTError("image-truncated", "Cut off.", "Copy it."))

    outcome = run(Damaged([1] * 5), RunOptions(tmp_path / "out.mp4", tmp_path / "out.jsonl"))
    line = read_lines(tmp_path / "out.jsonl")[2]
    assert line["status"] == "unreadable" and line["error"] == {"code": "image-truncated", "message": "Cut off."}
    assert outcome.report.frames == 5 and outcome.error is None


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_over_ten_thousand_frames(tmp_path: Path) -> None:
    """With a cut every 100 frames, black frames, and pictures now and then."""
    seen: list[int] = []
    scenes = [BLACK if i % 50 == 49 else 1 + 80 * (i // 100 % 2) for i in range(10_000)]

    def tell(step: Step, report: Report) -> None:
        if report.frames % 2500 == 0:
            seen.append(_resident())

    outcome = run(ListFeed(scenes), RunOptions(jsonl=tmp_path / "out.jsonl"), tell=tell)
    assert outcome.report.frames == 10_000 and outcome.report.cut_count == 99 and outcome.report.span_count == 200
    assert seen[-1] - seen[0] < 4e6, seen


def test_lists_of_the_summary_are_bounded() -> None:
    scenes = list(itertools.islice(itertools.cycle([1, 1, BLACK, 90, 90, BLACK]), 9 * MOST_LISTED))
    found = summary(run(ListFeed(scenes)))
    assert found["cuts"]["count"] > MOST_LISTED == len(found["cuts"]["frames"])
    spans = found["nothing_seen"]
    assert spans["count"] == 3 * MOST_LISTED and len(spans["spans"]) == MOST_LISTED
    assert all(span["first"] == span["last"] for span in spans["spans"])


def test_percentiles_are_right_to_a_per_cent() -> None:
    times = Latencies()
    values = np.random.default_rng(0).gamma(3.0, 20.0, 5000)
    for value in values:
        times.add(float(value))
    for share in (0.5, 0.99):
        assert times.percentile(share) == pytest.approx(np.quantile(values, share), rel=0.02)
    times.add(0.0)
    times.add(float("1e30"))
    assert Policy() and times.percentile(1.0) == pytest.approx(8.64e7, rel=0.02)
