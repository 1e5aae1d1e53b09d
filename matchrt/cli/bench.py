"""`matchrt bench`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matchrt.cli.options import known_device, store_at
from matchrt.cli.output import counter, print_json, stdout
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.bench.accuracy import AccuracyOptions, AccuracyReport
    from matchrt.bench.compare import Baseline, Comparison
    from matchrt.bench.folder import EvalFolder
    from matchrt.bench.latency import LatencyReport
    from matchrt.bench.machine import Machine
    from matchrt.runtime.matcher import Matcher, MatcherOptions

    _Opener = Callable[[MatcherOptions], Matcher]

EPILOG = "Example: matchrt bench loftr-lite other.onnx --runs 50 --eval EVAL --baselines EVAL/baselines --output run.md"

# More tables than this scroll the figures away; then each comparison gets a line.
_COMPARISONS_SHOWN = 2


@dataclass(frozen=True)
class _Results:
    """Everything that was measured."""

    machine: Machine
    latency: LatencyReport | None
    accuracy: list[AccuracyReport]
    comparisons: list[Comparison]


def bench(
    engines: Annotated[
        list[str] | None, typer.Argument(metavar="ENGINE...", help="Engine files, bundled models or ones in the store.")
    ] = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="IMG0 IMG1", help="Images for latency (decoding counts); default: a generated pair."),
    ] = None,
    size: Annotated[str, typer.Option(metavar="HxW", help="Size of the generated pair.")] = "480x640",
    runs: Annotated[int, typer.Option(min=0, help="Measured runs an engine, in turn; 0: no latency.")] = 30,
    warm_up: Annotated[int, typer.Option(min=0, help="Runs before, not counted.")] = 3,
    evaluation: Annotated[Path | None, typer.Option("--eval", help="Evaluation folder: measure accuracy too.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Of the folder, only this set; repeatable.")] = None,
    first: Annotated[int | None, typer.Option(min=1, help="Of every set, only the first N pairs.")] = None,
    baselines: Annotated[Path | None, typer.Option(help="Folder of figures by pair id to compare with.")] = None,
    pose_estimator: Annotated[str, typer.Option(help="ransac (OpenCV), magsac or poselib.")] = "ransac",
    homography_px: Annotated[
        float, typer.Option(min=0.1, help="Inlier threshold at a long side of 640; half a cell for coarse networks.")
    ] = 3.0,
    plot: Annotated[Path | None, typer.Option(help="Recall curves: .png, .svg or .pdf (needs matplotlib).")] = None,
    resize: Annotated[int | None, typer.Option(help="Long side at which dynamic engines see the images.")] = None,
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Drop matches with a lower confidence; default: the engine's.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: where the engine's flavour runs.")] = None,
    store: Annotated[Path | None, typer.Option(help="Store folder; default: $MATCHRT_STORE or a cache folder.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the report here: .md or .json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure engines on this machine: latency in turn on one pair and, with --eval, accuracy on known pairs."""
    from matchrt.bench.accuracy import AccuracyOptions
    from matchrt.bench.machine import this_machine
    from matchrt.bench.pose import check_estimator

    measured_by = AccuracyOptions(check_estimator(pose_estimator), homography_px)
    _check(device, evaluation, baselines, plot, output, runs)
    named = _named(engines or ["loftr-lite"], store)
    folder = _folder(evaluation, sets, first)
    others = _baselines(baselines)
    options = _options(resize, min_score, threads, device)
    machine = this_machine()  # before the run, which is load too
    latency = _latency(named, _images(pairs, size), options, (runs, warm_up), as_json) if runs else None
    accuracy = _accuracy(named, folder, options, measured_by, as_json) if folder is not None else []
    results = _Results(machine, latency, accuracy, _comparisons(accuracy, others))
    _deliver(results, output, plot, as_json)


def _check(
    device: str | None,
    evaluation: Path | None,
    baselines: Path | None,
    plot: Path | None,
    output: Path | None,
    runs: int,
) -> None:
    """Says before any work what could not be done after it."""
    from matchrt.atomic import require_writable
    from matchrt.bench.plots import check_plot

    known_device(device)
    if evaluation is None and (not runs or baselines is not None or plot is not None):
        what = "--runs 0" if not runs else "--baselines" if baselines is not None else "--plot"
        raise MatchRTError("bench-nothing", f"{what} without --eval leaves nothing to do.", "Add --eval FOLDER.")
    if output is not None and output.suffix.lower() not in (".md", ".json"):
        raise MatchRTError("output-format", f"--output '{output}' is of no known kind.", "Use .md or .json.")
    if plot is not None:
        check_plot(plot)
    for path in (output, plot):
        if path is not None:
            require_writable(path)


def _named(engines: list[str], store: Path | None) -> dict[str, _Opener]:
    """Engines by a short name that tells them apart: no folders, which are nobody's business in a report."""
    named: dict[str, _Opener] = {}
    for given in engines:
        name = Path(given).name
        label, repeat = name, 2
        while label in named:
            label, repeat = f"{name} #{repeat}", repeat + 1
        named[label] = partial(_open, given, store)
    return named


def _open(engine: str, store: Path | None, options: MatcherOptions) -> Matcher:
    from matchrt.runtime.matcher import Matcher

    return Matcher(engine, options, store_at(store))


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


def _options(resize: int | None, min_score: float | None, threads: int | None, device: str | None) -> MatcherOptions:
    from matchrt.runtime.matcher import MatcherOptions

    return MatcherOptions(
        resize=resize,
        min_score=min_score,
        apply_exif=False,  # the truth is given for the stored files
        threads=threads,
        device=known_device(device),
    )


def _images(pairs: tuple[Path, Path] | None, size: str) -> tuple[Any, Any]:
    from matchrt.bench.scene import image_pair

    if pairs is not None:
        return pairs
    try:
        height, width = (int(side) for side in size.lower().split("x"))
        if min(height, width) < 32:
            raise ValueError(f"{min(height, width)} pixels are too few")
    except ValueError as error:
        raise MatchRTError("size-syntax", f"--size '{size}' is not HxW: {error}.", "Write e.g. 480x640.") from error
    image0, image1, _ = image_pair(height, width)
    return image0, image1


def _latency(
    named: dict[str, _Opener],
    images: tuple[Any, Any],
    options: MatcherOptions,
    counts: tuple[int, int],
    quiet: bool,
) -> LatencyReport:
    from contextlib import ExitStack

    from matchrt.bench.latency import LatencyOptions, matcher_subject, measure

    runs, warm_up = counts
    with ExitStack() as stack, counter(runs + warm_up, "latency", quiet) as advance:
        matchers = {name: stack.enter_context(opener(options)) for name, opener in named.items()}
        subjects = {name: matcher_subject(matcher, *images) for name, matcher in matchers.items()}
        return measure(subjects, LatencyOptions(runs, warm_up), advance=advance)


def _accuracy(
    named: dict[str, _Opener], folder: EvalFolder, options: MatcherOptions, chosen: AccuracyOptions, quiet: bool
) -> list[AccuracyReport]:
    from matchrt.bench.accuracy import evaluate

    reports = []
    with counter(len(folder) * len(named), "accuracy", quiet) as advance:
        for name, opener in named.items():
            with opener(options) as matcher:
                reports.append(evaluate(matcher.match, folder, chosen, name=name, advance=advance))
    return reports


def _comparisons(reports: list[AccuracyReport], baselines: tuple[Baseline, ...]) -> list[Comparison]:
    """Every run beside every baseline, and beside the first run."""
    from matchrt.bench.compare import as_baseline, compare

    found = [compare(report, other) for report in reports for other in baselines]
    return found + [compare(report, as_baseline(reports[0])) for report in reports[1:]]


def _deliver(results: _Results, output: Path | None, plot: Path | None, as_json: bool) -> None:
    from matchrt import atomic
    from matchrt.bench.plots import save_plot
    from matchrt.bench.report import report_markdown, report_value

    parts = results.machine, results.latency, results.accuracy, results.comparisons
    if output is not None:
        as_text = (
            report_markdown(*parts) if output.suffix.lower() == ".md" else json.dumps(report_value(*parts), indent=2)
        )
        atomic.write_text(output, as_text.rstrip() + "\n")
    if plot is not None:
        save_plot(results.accuracy, plot)
    if as_json:
        print_json(report_value(*parts))
        return
    _print(results)
    for path in (output, plot):
        if path is not None:
            stdout().print(f"wrote {path}")


def _print(results: _Results) -> None:
    from matchrt.bench.report import report_tables

    console = stdout()
    console.print(results.machine.line())
    shown = results.comparisons if len(results.comparisons) <= _COMPARISONS_SHOWN else []
    for table, notes in report_tables(results.latency, results.accuracy, shown):
        console.print(table.rich())
        for note in notes:
            console.print(note)
    if not shown and results.comparisons:
        for comparison in results.comparisons:
            console.print(comparison.line())
        console.print("--output FILE.md has the tables.")
