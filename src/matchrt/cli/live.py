"""`matchrt live`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matchrt.cli.completion import engine_names
from matchrt.cli.options import (
    BackendOption,
    DeviceOption,
    JsonOption,
    MaxMegapixelsOption,
    MinScoreOption,
    NoCudaGraphOption,
    ResizeOption,
    StoreOption,
    ThreadsOption,
    matcher_options,
    require_new_output,
    store_at,
)
from matchrt.cli.output import error_json, print_error, print_json, progress_of, stderr, stdout, verdict_counts
from matchrt.errors import MatchRTError
from matchrt.runtime.bundled import DEFAULT_MODEL

if TYPE_CHECKING:
    from matchrt.live.keyframes import Step
    from matchrt.live.page import Page
    from matchrt.live.report import Report
    from matchrt.live.run import Outcome, Tell

EPILOG = "Example: matchrt live video.mp4 --output matches.mp4 --jsonl frames.jsonl"
_LOG_SECONDS = 60.0
_SHOWN = 10
# A stream ends by itself after its --timeout, if its protocol keeps to it.
_GRACE_SECONDS = 5.0


def live(
    source: Annotated[
        str,
        typer.Argument(
            help="Camera number, video file, folder of images, or address of a stream such as rtsp://HOST/PATH."
        ),
    ],
    engine: Annotated[
        str, typer.Option(help="Engine file, bundled model or model in the store.", autocompletion=engine_names)
    ] = DEFAULT_MODEL,
    keyframe: Annotated[
        str,
        typer.Option(
            metavar="first|N|auto",
            help="What frames are matched to: the first frame; a frame renewed every N; or one renewed when the "
            "verdict falls.",
        ),
    ] = "auto",
    intrinsics: Annotated[
        str | None,
        typer.Option(
            metavar="FX,FY,CX,CY|FILE",
            help='Intrinsics in pixels, or a JSON file {"K": 3x3}: gives the pose in place of a homography.',
        ),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Inlier threshold in pixels.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the frames with their matches to this .mp4 or .avi file.")
    ] = None,
    jsonl: Annotated[
        Path | None, typer.Option(help="Write a JSON line for each frame to this file; - for standard output.")
    ] = None,
    page: Annotated[
        int | None, typer.Option(metavar="PORT", help="Show the frames on a page at this port; 0 for any free one.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address that the page listens on. Whoever reaches it sees the video.")
    ] = "127.0.0.1",
    viewers: Annotated[int, typer.Option(help="Number of viewers that the page may have at a time.")] = 4,
    height: Annotated[int, typer.Option(min=64, max=4320, help="Pixels that drawn frames are scaled down to.")] = 360,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Play a file at its own speed, and drop frames as of a camera.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, max=3600, help="Seconds that a camera or stream may give no frame."),
    ] = 10.0,
    frames: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N frames.")] = None,
    min_score: MinScoreOption = None,
    resize: ResizeOption = None,
    max_megapixels: MaxMegapixelsOption = 50.0,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    backend: BackendOption = None,
    no_cuda_graph: NoCudaGraphOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Match every frame of a video to a keyframe, and report cuts, black frames, and how each frame moved.

    Frames of a camera or stream are dropped while the engine is busy. Ctrl-C ends the run, with its files and summary.
    """
    from matchrt.live.drawing import Painter
    from matchrt.live.keyframes import Policy, Tracker
    from matchrt.live.matching import Camera, FramePairing
    from matchrt.live.motion import read_camera
    from matchrt.live.opening import open_within
    from matchrt.live.run import RunOptions, run_live
    from matchrt.live.source import open_feed
    from matchrt.runtime.matcher import Matcher

    _keep_opencv_quiet()
    policy = Policy.parse(keyframe)
    camera = Camera(None if intrinsics is None else read_camera(intrinsics), threshold)
    _check_outputs(source, output, jsonl, as_json)
    options = matcher_options(
        resize=resize,
        min_score=min_score,
        sample=None,
        seed=0,
        ignore_exif=False,
        max_megapixels=max_megapixels,
        threads=threads,
        device=device,
        backend=backend,
        no_cuda_graph=no_cuda_graph,
    )
    quiet = as_json or str(jsonl) == "-"
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stopped_by_signals())
        matcher = stack.enter_context(Matcher(engine, options, store_at(store)))
        most = int(max_megapixels * 1e6)
        feed = open_within(lambda: open_feed(source, timeout, most), source, timeout + _GRACE_SECONDS, stop)
        if feed is None:
            raise KeyboardInterrupt
        shown = None if page is None else _open_page(page, host, viewers, stack)
        pairing = FramePairing(matcher, camera)
        outcome = run_live(
            feed,
            Tracker(pairing, policy),
            Painter(matcher.manifest.model, height),
            RunOptions(output, jsonl, shown, realtime, timeout, frames),
            stop,
            stack.enter_context(_progress(feed.total if frames is None else frames)),
        )
    return _print(outcome, pairing.whole_pairs, output, as_json, quiet)


def _keep_opencv_quiet() -> None:
    """FFmpeg would print addresses, with their passwords, and OpenCV a line for each frame that it cannot write.

    The errors say it in words.
    """
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _check_outputs(source: str, output: Path | None, jsonl: Path | None, as_json: bool) -> None:
    """Errors: output-format, output-unwritable, output-is-input, usage."""
    from matchrt._util.atomic import require_writable
    from matchrt.live.outputs import require_video_suffix
    from matchrt.runtime.pairs import read_folder

    inputs = [Path(source)] if "://" not in source and not source.isdigit() else []
    inputs += [path for folder in inputs if folder.is_dir() for path in read_folder(folder)[0]]
    if output is not None:
        require_video_suffix(output)
        require_writable(output)
        require_new_output(output, inputs)
    if jsonl is None:
        return
    if str(jsonl) != "-":
        require_writable(jsonl)
        require_new_output(jsonl, inputs)
    elif as_json:
        raise MatchRTError("usage", "--json and --jsonl - both print to standard output.", "Name a file for --jsonl.")
    if output is not None and output.resolve() == jsonl.resolve():
        raise MatchRTError("usage", f"--output and --jsonl are both '{output}'.", "Name two files.")


def _open_page(port: int, host: str, viewers: int, stack: contextlib.ExitStack) -> Page:
    from matchrt.live.page import LOOPBACK, Page

    page = Page(port, host, viewers)
    stack.callback(page.close)
    stderr().print(f"page: {page.address} (stop with Ctrl-C)")
    if host not in LOOPBACK:
        stderr().print(f"warning: whoever reaches {host} sees the video.", style="yellow")
    return page


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the next one ends the command as it does elsewhere."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        del number, frame
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()


@contextlib.contextmanager
def _progress(total: int | None) -> Iterator[Tell]:
    """Shows a bar on a terminal, and a line a minute in logs."""
    if stderr().is_terminal:
        with progress_of("frames", quiet=False) as bar:
            yield lambda step, report: bar(report.frames, total)
        return
    last = time.monotonic()

    def tell(step: Step, report: Report) -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_SECONDS:
            last = time.monotonic()
            stderr().print(f"{report.frames} frames, {report.frames / report.seconds:.1f} a second, {_found(report)}")

    yield tell


def _found(report: Report) -> str:
    return f"{report.cut_count} cuts, {report.span_count} spans without a picture, {report.dropped} dropped"


def _print(outcome: Outcome, whole_pairs: str | None, output: Path | None, as_json: bool, quiet: bool) -> int:
    report, error = outcome.report, outcome.error
    summary = report.summary(error, outcome.stopped, whole_pairs)
    if as_json:
        print_json(summary | ({} if error is None else {"error": error_json(error)}))
    elif quiet:
        sys.stderr.write(json.dumps(summary) + "\n")
    else:
        _print_summary(summary, report)
        if outcome.video and output is not None:
            stdout().print(f"wrote {output}")
    if error is not None:
        print_error(error, f"error[{error.code}]: ")
        return error.exit_code
    return 0


def _print_summary(summary: dict[str, Any], report: Report) -> None:
    console, times = stdout(), summary["latency_ms"]
    console.print(
        f"{report.frames} frames in {report.seconds:.1f} s ({summary['frames_per_second']:.1f} a second), "
        f"{report.dropped} dropped",
        style="bold",
    )
    if report.frames:
        console.print(f"latency: p50 {times['p50']:.1f} ms, p99 {times['p99']:.1f} ms, from a frame to its result")
    if said := verdict_counts(report.verdicts):
        console.print(f"{said}; {report.keyframes} keyframes")
    console.print(f"cuts: {_listed([f'frame {cut}' for cut in report.cuts], report.cut_count)}")
    spans = [
        f"{span.kind} {span.first}" + (f" to {span.last}" if span.last > span.first else "") for span in report.spans
    ]
    console.print(f"frames without a picture: {_listed(spans, report.span_count)}")
    if summary["features"] != "once a frame":
        console.print(f"each pair went through the whole engine: {summary['why_whole_pairs']}")


def _listed(items: list[str], count: int) -> str:
    """The first of some items in words."""
    if not count:
        return "none"
    more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
    return f"{count} ({', '.join(items[:_SHOWN])}{more})"
