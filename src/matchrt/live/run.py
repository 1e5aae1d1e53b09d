"""Runs a video through a tracker: frame after frame, drawn, written and shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.live.arrival import Arrival, arrival_of
from matchrt.live.drawing import Painter
from matchrt.live.frame import Feed, Frame
from matchrt.live.keyframes import Step, Tracker
from matchrt.live.outputs import JsonLines, VideoFile, video_file
from matchrt.live.page import Page
from matchrt.live.report import Report, record


@dataclass(frozen=True)
class RunOptions:
    """How a video is run.

    output: file of a video of the pictures; None for none.
    jsonl: file of a JSON line for each frame, `-` for stdout; None for none.
    page: where the pictures are shown; None for nowhere. The caller closes it.
    realtime: play a file at its own frames a second, and drop what the engine is too slow for, as of a camera.
    timeout: seconds without a frame after which a camera or stream counts as stalled.
    most_frames: frames to take; None for all.
    """

    output: Path | None = None
    jsonl: Path | None = None
    page: Page | None = None
    realtime: bool = False
    timeout: float = 10.0
    most_frames: int | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run gave.

    report: the counts.
    stopped: whether it was stopped before the end.
    error: what ended it early; None if nothing did. What was written up to then is whole.
    video: whether the video was written.
    """

    report: Report
    stopped: bool
    error: MatchRTError | None
    video: bool


Tell = Callable[[Step, Report], None]


def run_live(
    feed: Feed,
    tracker: Tracker,
    painter: Painter,
    options: RunOptions | None = None,
    stop: threading.Event | None = None,
    tell: Tell | None = None,
) -> Outcome:
    """Takes a video's frames until it ends, `stop` is set, or an error ends it, and finishes the files.

    feed: is closed at the end. tell: is called after each frame. What ends a run early is in the outcome: live-*,
    output-*, image-* and those of the engine. Error: output-unwritable if a file cannot be begun.
    """
    options, stop = options or RunOptions(), stop or threading.Event()
    report, timed = Report(feed.name), feed.live or options.realtime
    error: MatchRTError | None = None
    gone: SystemExit | None = None
    written = False
    with ExitStack() as stack:
        arrival = arrival_of(feed, realtime=options.realtime, timeout=options.timeout)
        stack.callback(arrival.close)
        lines = None
        if options.jsonl is not None:
            lines = JsonLines(options.jsonl)
            stack.callback(lines.close)
        try:
            with _video(options.output, feed.fps, timed=timed) as video:
                sinks = _Sinks(painter, tracker, video, lines, options.page)
                try:
                    _take_all(arrival, tracker, sinks, report, stop, tell, options.most_frames)
                except MatchRTError as found:
                    error = found
                except SystemExit as found:  # whoever read the lines has gone; the video is finished before we go
                    gone = found
                report.dropped = arrival.dropped
                report.end()
            written = video is not None and video.begun
        except MatchRTError as found:  # the video cannot be finished
            error = error or found
    if gone is not None:
        raise gone
    return Outcome(report, stop.is_set(), error, written)


def _video(path: Path | None, fps: float, *, timed: bool) -> AbstractContextManager[VideoFile | None]:
    return nullcontext() if path is None else video_file(path, fps, timed=timed)


def _take_all(
    arrival: Arrival,
    tracker: Tracker,
    sinks: _Sinks,
    report: Report,
    stop: threading.Event,
    tell: Tell | None,
    most: int | None,
) -> None:
    size: tuple[int, ...] | None = None
    while most is None or report.frames < most:
        frame = arrival.next(stop)
        if frame is None:
            return
        size = _require_size(frame, size)
        step = tracker.step(frame)
        latency = (time.perf_counter() - frame.arrived) * 1e3
        report.add(step, latency, arrival.dropped)
        sinks.take(step, record(step, latency, arrival.dropped), report)
        if tell is not None:
            tell(step, report)


def _require_size(frame: Frame, size: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The size of all frames. Error: live-size."""
    if frame.pixels is None:
        return size
    found = frame.pixels.shape[:2]
    if size is not None and found != size:
        raise MatchRTError(
            "live-size",
            f"'{frame.name}' has {found[0]} x {found[1]} pixels, and the frames before it {size[0]} x {size[1]}.",
            "Run each part by itself, or bring all frames to one size.",
        )
    return found


@dataclass(frozen=True, eq=False)
class _Sinks:
    """Where the results of a frame go."""

    painter: Painter
    tracker: Tracker
    video: VideoFile | None
    lines: JsonLines | None
    page: Page | None

    def take(self, step: Step, line: dict[str, Any], report: Report) -> None:
        """Writes, draws and shows a step. Errors: output-unwritable, draw-option."""
        if self.lines is not None:
            self.lines.add(line)
        watched = self.page is not None and self.page.watched
        picture = None
        if self.video is not None or watched:
            picture = self.painter.paint(step, self.tracker.keyframe)
        if self.video is not None and picture is not None:
            self.video.add(picture, step.frame.time)
        if self.page is not None:
            self.page.show(picture if watched else None, _facts(line, report))


def _facts(line: dict[str, Any], report: Report) -> dict[str, Any]:
    """What the page says beside the picture."""
    named = ("frame", "status", "keyframe", "matches", "inliers", "verdict", "latency_ms", "dropped")
    return {
        **{name: line[name] for name in named if name in line},
        "frames a second": round(report.frames / max(report.seconds, 1e-9), 1),
        "cuts": report.cut_count,
        "last cut": report.cuts[-1] if report.cuts else "none",
        "spans without a picture": report.span_count,
    }
