"""`matchrt verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matchrt.cli.completion import backends, engine_names
from matchrt.cli.options import EmaOption, JsonOption, PrefixOption, StoreOption, ThreadsOption, store_at
from matchrt.cli.output import print_json, print_lines, print_written, stages, stdout
from matchrt.cli.report_file import check_report, write_report
from matchrt.cli.weights import downloaded_of
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.bench.gate import Verdict
    from matchrt.bench.per_block import Sensitivity

EPILOG = (
    "Example: matchrt verify eloftr-lite-int8.onnx --pairs my_pairs.txt --html report.html\n\n"
    "To find the parts that cost matches: matchrt verify eloftr-lite --per-block --plot blocks.png\n\n"
    "To compare Flax with torch: matchrt verify --flax loftr-lite --images a.jpg b.jpg"
)


def verify(
    engine: Annotated[
        str | None,
        typer.Argument(
            metavar="ENGINE", help="Engine file, bundled model or model in the store.", autocompletion=engine_names
        ),
    ] = None,
    reference: Annotated[
        str, typer.Option(help="Engine to compare with; fp32: the engine that ENGINE was made from.")
    ] = "fp32",
    pairs: Annotated[
        Path | None,
        typer.Option(metavar="DIR_OR_LIST", help="Pairs to match, or an evaluation folder; default: drawn scenes."),
    ] = None,
    first: Annotated[int | None, typer.Option(min=1, help="Use only the first N pairs.")] = None,
    per_block: Annotated[
        bool, typer.Option("--per-block", help="Instead, measure what each part costs if it alone is quantized.")
    ] = False,
    precision: Annotated[str, typer.Option(help="With --per-block: int8 or fp8.")] = "int8",
    backend: Annotated[
        str | None,
        typer.Option(
            help="Backend of ENGINE; with --per-block, backend to quantize for (default: onnxruntime).",
            autocompletion=backends,
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="DIR_OR_LIST", help="With --per-block: pairs to calibrate on.")
    ] = None,
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="With --per-block: modules that stay in floating point; repeat for several."
        ),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, help="Number of worst pairs to draw in the HTML report.")] = 3,
    gate: Annotated[
        bool, typer.Option("--gate", help="End with an error if ENGINE is beyond the limits of its precision.")
    ] = False,
    threads: ThreadsOption = None,
    html: Annotated[
        Path | None, typer.Option(help="Write an HTML report with pictures of the worst pairs to this file.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the report to this .json or .md file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="With --per-block: plot to a .png, .svg or .pdf file (needs matplotlib).")
    ] = None,
    store: StoreOption = None,
    flax: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Instead, compare this model in Flax with torch, stage by stage."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="With --flax: file of the weights; default: the bundled or downloaded ones.")
    ] = None,
    prefix: PrefixOption = None,
    ema: EmaOption = False,
    images: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="With --flax: a pair of images; default: a generated pair."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="With --flax: input size in pixels; default: the model's.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --flax: smallest confidence; default: the model's.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="With --flax: device of Flax, cpu or cuda; torch runs on the CPU.")
    ] = "cpu",
    as_json: JsonOption = False,
) -> int:
    """Compare an engine's matches with those of the fp32 engine that it was made from.

    With --flax, prove that the model in Flax computes what torch computes. The exit code is 0 if it does.
    """
    if flax is not None:
        from matchrt.cli.options import known_device
        from matchrt.cli.verify_flax import verify_flax

        checkpoint = checkpoint or downloaded_of(flax, store)
        on = known_device(device) or "cpu"
        return verify_flax(flax, checkpoint, images, size, threshold, on, prefix, ema, as_json)
    if engine is None:
        raise MatchRTError(
            "usage",
            "There is nothing to verify.",
            "Name an engine, or name a model as in: matchrt verify --flax loftr-lite.",
        )
    from matchrt.bench.verify_run import VerifyRequest, run_verify
    from matchrt.building.calibration.options import CalibrationOptions
    from matchrt.building.sensitivity import BlockRequest, run_per_block
    from matchrt.runtime.backends import DEFAULT_BACKEND

    _check(output, html, plot, per_block)
    verdict: Verdict | None = None
    sensitivity: Sensitivity | None = None
    pictures: list[tuple[str, bytes]] = []
    with stages(quiet=as_json) as tell:
        if per_block:
            options = CalibrationOptions(calibration, keep=tuple(keep_fp32 or ()))
            blocks = BlockRequest(engine, precision, backend or DEFAULT_BACKEND, reference, pairs, first, options)
            sensitivity = run_per_block(blocks, store_at(store), tell)
        else:
            drawn = worst if html is not None else 0
            request = VerifyRequest(engine, reference, pairs, first, drawn, threads, backend)
            verdict, pictures = run_verify(request, store_at(store), tell)
    _deliver(verdict, sensitivity, pictures, output, html, plot, as_json)
    if gate and verdict is not None:
        verdict.require(verdict.verification.engine)
    return 0


def _check(output: Path | None, html: Path | None, plot: Path | None, per_block: bool) -> None:
    """Checks before any work that all files can be written. Errors: bench-nothing, output-*, package-missing."""
    from matchrt._util.atomic import require_writable
    from matchrt.bench.plots import check_plot

    check_report(output)
    if plot is not None:
        if not per_block:
            raise MatchRTError(
                "bench-nothing", "--plot without --per-block has nothing to draw.", "Add --per-block, or omit --plot."
            )
        check_plot(plot)
    for path in (html, plot):
        if path is not None:
            require_writable(path)


def _deliver(
    verdict: Verdict | None,
    sensitivity: Sensitivity | None,
    pictures: list[tuple[str, bytes]],
    output: Path | None,
    html: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    from matchrt._util import atomic
    from matchrt.bench import verify_report as report
    from matchrt.bench.per_block import save_sensitivity_plot

    document = report.to_json(verdict, sensitivity)
    tables = [] if verdict is None else [report.verification_table(verdict)]
    tables += [] if sensitivity is None else [report.sensitivity_table(sensitivity)]
    line = None
    if verdict is not None:
        line = "\n".join(filter(None, (report.warp_line(verdict), report.verdict_line(verdict))))
    if output is not None:
        write_report(output, "\n".join([*(table.markdown() for table in tables), line or ""]), document)
    if html is not None:
        from matchrt.bench.verify_html import to_html

        atomic.write_text(html, to_html(verdict, sensitivity, pictures))
    if plot is not None and sensitivity is not None:
        save_sensitivity_plot(sensitivity, plot)
    if as_json:
        print_json(document)
        return
    for table in tables:
        stdout().print(table.rich())
    if line is not None:
        print_lines(stdout(), line)
    print_written(output, html, plot)
