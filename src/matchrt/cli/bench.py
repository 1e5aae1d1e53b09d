"""`matchrt bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matchrt.cli.completion import backends, engine_names
from matchrt.cli.options import (
    DeviceOption,
    JsonOption,
    MinScoreOption,
    NoCudaGraphOption,
    ResizeOption,
    StoreOption,
    ThreadsOption,
    known_device,
    store_at,
)
from matchrt.cli.output import print_json, print_written, stdout
from matchrt.cli.report_file import check_report, write_report
from matchrt.cli.sizes import parse_size
from matchrt.errors import MatchRTError
from matchrt.runtime.backend import building_backends
from matchrt.runtime.bundled import DEFAULT_MODEL

if TYPE_CHECKING:
    from matchrt.bench.compare import Baseline
    from matchrt.bench.folder import EvalFolder
    from matchrt.bench.report import Results

EPILOG = (
    "Example: matchrt bench eloftr-lite other.onnx --runs 50 --eval EVAL --baselines EVAL/baselines --output run.md\n\n"
    "Runtimes in turn: matchrt bench eloftr-lite --backend onnxruntime --backend openvino\n\n"
    "On a GPU: matchrt bench fp32.engine fp16.engine --runs 1000 --streams 4 --compare-launch --latency-plot ecdf.png"
)

# With more comparisons than this, each is printed as a line instead of a table, which would be too long.
_COMPARISONS_SHOWN = 2
# The smallest side of a generated pair, in pixels.
_SMALLEST_SIDE = 32


def bench(
    engines: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ENGINE...",
            help="Engine files, bundled models or models in the store.",
            autocompletion=engine_names,
        ),
    ] = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="IMG0 IMG1", help="Images for latency, decoding included; default: a generated pair."),
    ] = None,
    size: Annotated[str, typer.Option(metavar="HxW", help="Size of the generated pair in pixels.")] = "480x640",
    frames: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HxW",
            help="Measure whole calls on RGB frames of this size too, on the host and the GPU; repeat for several; "
            "default: 480x640, 720x1280 and 1080x1920, or none with --pairs; 'none' for none.",
        ),
    ] = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Measure each engine beside the same network in torch, and beside other runtimes of its graph.",
        ),
    ] = False,
    runs: Annotated[int, typer.Option(min=0, help="Measured runs of each engine, in turn; 0 for no latency.")] = 30,
    warm_up: Annotated[int, typer.Option(min=0, help="Runs of each engine before these, not counted.")] = 3,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", help="Measure accuracy too, on this evaluation folder.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Use only this set of the folder; repeat for several.")
    ] = None,
    first: Annotated[int | None, typer.Option(min=1, help="Use only the first N pairs of every set.")] = None,
    baselines: Annotated[
        Path | None, typer.Option(help="Compare accuracy with the figures in the .json files of this folder.")
    ] = None,
    pose_estimator: Annotated[
        str, typer.Option(help="Estimator of relative poses: ransac (OpenCV), magsac or poselib.")
    ] = "ransac",
    homography_px: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="Inlier threshold of homographies in pixels at a long side of 640; half a cell for coarse networks.",
        ),
    ] = 3.0,
    streams: Annotated[
        int,
        typer.Option(min=0, help="Measure throughput with 1 to N threads, each with its own session; 0 for none."),
    ] = 0,
    stream_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds for each number of streams.")] = 2.0,
    latency_plot: Annotated[
        Path | None,
        typer.Option(help="Plot the distribution of latencies to a .png, .svg or .pdf file (needs matplotlib)."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot recall curves to a .png, .svg or .pdf file (needs matplotlib).")
    ] = None,
    resize: ResizeOption = None,
    min_score: MinScoreOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Backend of engines given by name: {', '.join(building_backends())}; repeat to compare several.",
            autocompletion=backends,
        ),
    ] = None,
    compare_launch: Annotated[
        bool, typer.Option("--compare-launch", help="Measure TensorRT engines also without CUDA graphs.")
    ] = False,
    no_cuda_graph: NoCudaGraphOption = False,
    store: StoreOption = None,
    output: Annotated[Path | None, typer.Option(help="Write the report to this .md or .json file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure engines here: latency, whole calls on camera frames, throughput with --streams, accuracy with --eval."""
    from matchrt.bench.accuracy import AccuracyOptions
    from matchrt.bench.engines import name_engines, without_graphs
    from matchrt.bench.latency import LatencyOptions
    from matchrt.bench.pose import check_estimator
    from matchrt.bench.throughput import ThroughputOptions
    from matchrt.cli.bench_run import Plan, run_plan
    from matchrt.runtime.options import MatcherOptions

    measured_by = AccuracyOptions(check_estimator(pose_estimator), homography_px)
    _check_work(evaluation, runs, streams, {"--baselines": baselines, "--plot": plot}, latency_plot)
    _check_outputs(output, (plot, latency_plot))
    if compare_launch and no_cuda_graph:
        raise MatchRTError(
            "bench-nothing",
            "--no-cuda-graph leaves --compare-launch nothing to compare.",
            "Give one of the two options.",
        )
    options = MatcherOptions(
        fit_frames=True,
        resize=resize,
        min_score=min_score,
        apply_exif=False,  # the truth of evaluation folders is for the stored pixels
        threads=threads,
        device=known_device(device),
        cuda_graph=not no_cuda_graph,
    )
    opened = store_at(store)
    named = name_engines(engines or [DEFAULT_MODEL], backend or [None])
    choices = without_graphs(named, opened) if compare_launch else named
    plan = Plan(
        choices=choices,
        without_graphs=frozenset(choices) - frozenset(named),
        store=opened,
        options=options,
        images=_images(pairs, size),
        generated=None if pairs is not None else parse_size(size, "--size", _SMALLEST_SIDE),
        frames=_frames(frames, pairs is not None),
        peers=peers,
        latency=LatencyOptions(runs, warm_up),
        streams=streams,
        throughput=ThroughputOptions(stream_seconds),
        folder=_folder(evaluation, sets, first),
        measured_by=measured_by,
        baselines=_baselines(baselines),
    )
    _deliver(run_plan(plan, quiet=as_json), output, plot, latency_plot, as_json)


def _check_work(
    evaluation: Path | None, runs: int, streams: int, need_eval: dict[str, Path | None], latency_plot: Path | None
) -> None:
    """Refuses options that leave nothing to do, before any work. Error: bench-nothing."""
    without = next((name for name, path in need_eval.items() if path is not None), None)
    if not runs and not streams:
        without = "--runs 0"
    if evaluation is None and without is not None:
        raise MatchRTError("bench-nothing", f"{without} without --eval leaves nothing to do.", "Add --eval FOLDER.")
    if latency_plot is not None and not runs:
        raise MatchRTError(
            "bench-nothing", "--latency-plot with --runs 0 has nothing to draw.", "Leave one of the two options out."
        )


def _check_outputs(output: Path | None, plots: tuple[Path | None, ...]) -> None:
    """Checks before any work that all files can be written. Errors: output-*, package-missing."""
    from matchrt._util.atomic import require_writable
    from matchrt.bench.plots import check_plot

    check_report(output)
    for plot in plots:
        if plot is not None:
            check_plot(plot)
            require_writable(plot)


def _folder(evaluation: Path | None, sets: list[str] | None, first: int | None) -> EvalFolder | None:
    from matchrt.bench.folder import read_folder

    if evaluation is None:
        return None
    folder = read_folder(evaluation)
    folder = folder.only(tuple(sets)) if sets else folder
    return folder.first(first) if first is not None else folder


def _baselines(folder: Path | None) -> tuple[Baseline, ...]:
    from matchrt.bench.compare import read_baselines

    return () if folder is None else read_baselines(folder)


def _images(pairs: tuple[Path, Path] | None, size: str) -> tuple[Any, Any]:
    from matchrt.bench.scene import image_pair

    if pairs is not None:
        return pairs
    image0, image1, _ = image_pair(*parse_size(size, "--size", _SMALLEST_SIDE))
    return image0, image1


def _frames(given: list[str] | None, own_images: bool) -> tuple[tuple[int, int], ...]:
    from matchrt.bench.calls import FRAMES

    if given is None:
        return () if own_images else FRAMES
    return () if given == ["none"] else tuple(parse_size(size, "--frames", _SMALLEST_SIDE) for size in given)


def _deliver(
    results: Results, output: Path | None, plot: Path | None, latency_plot: Path | None, as_json: bool
) -> None:
    from matchrt.bench.plots import save_latency_plot, save_plot
    from matchrt.bench.report import report_markdown, report_value

    if output is not None:
        write_report(output, report_markdown(results), report_value(results))
    if plot is not None:
        save_plot(results.accuracy, plot)
    if latency_plot is not None and results.latency is not None:
        save_latency_plot(results.latency, results.engines, latency_plot)
    if as_json:
        print_json(report_value(results))
        return
    _print(results)
    print_written(output, plot, latency_plot)


def _print(results: Results) -> None:
    from dataclasses import replace

    from matchrt.bench.report import report_tables

    console = stdout()
    console.print(results.machine.line())
    for caution in results.cautions:
        console.print(f"Caution: {caution}", style="yellow")
    few = len(results.comparisons) <= _COMPARISONS_SHOWN
    for table, notes in report_tables(results if few else replace(results, comparisons=())):
        console.print(table.rich())
        for note in notes:
            console.print(note)
    if not few:
        for comparison in results.comparisons:
            console.print(comparison.line())
        console.print("Use --output FILE.md to get the tables.")
