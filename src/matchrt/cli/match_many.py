"""`matchrt match-many`."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from matchrt.cli.completion import engine_names
from matchrt.cli.options import (
    BackendOption,
    DeviceOption,
    EffortChoice,
    EffortOption,
    IgnoreExifOption,
    JsonOption,
    MaxMegapixelsOption,
    MinScoreOption,
    ResizeOption,
    RotateOption,
    SampleOption,
    SeedOption,
    StoreOption,
    StretchChoice,
    StretchOption,
    WindowOption,
    ZoomOption,
    matcher_options,
    store_at,
)
from matchrt.cli.output import error_json, print_json, print_written, progress_of, stderr, stdout, verdict_counts
from matchrt.cli.pairing import (
    By,
    LoopOption,
    MaxDistanceOption,
    MaxSecondsOption,
    MinSimilarityOption,
    NeighboursOption,
    Retrieval,
    RetrievalEngineOption,
    RunPairing,
    chosen_json,
    pairing_options,
    print_chosen,
    reading_options,
)
from matchrt.cli.run_summary import check_page, print_graph, print_map
from matchrt.errors import MatchRTError
from matchrt.runtime.bundled import DEFAULT_MODEL

if TYPE_CHECKING:
    from matchrt.batch.features import FeatureOptions
    from matchrt.batch.journal_rows import Counts, Failure
    from matchrt.batch.mapping import MapReport, MapWork
    from matchrt.batch.output import Output
    from matchrt.batch.pairing.choose import Chosen
    from matchrt.batch.run import BatchReport, BatchRun, Match
    from matchrt.runtime.engine_file import EngineFile
    from matchrt.runtime.options import MatcherOptions
    from matchrt.runtime.pairs import Skipped

EPILOG = (
    "Example: matchrt match-many pairs.txt --root images --output matches.h5; "
    "or: matchrt match-many images --by retrieval --output map.db --map sparse --report report.html"
)
_SHOWN = 10
# Why pairs are matched whole, if nobody asked for features.
_NO_FEATURES = ("split-graph", "split-missing", "option-range")


class Layout(str, Enum):
    """hloc's two layouts of .h5 files."""

    dense = "dense"
    sparse = "sparse"


class Cameras(str, Enum):
    """Which images share a camera."""

    per_image = "per-image"
    per_folder = "per-folder"
    single = "single"


class MapperChoice(str, Enum):
    """COLMAP's mappers."""

    incremental = "incremental"
    glob = "global"


def match_many(
    pairs: Annotated[Path, typer.Argument(help="Text file with two paths in each line, or folder of images.")],
    output: Annotated[
        Path, typer.Option(help="Output file: hloc's HDF5 (.h5), COLMAP database (.db) or Parquet table (.parquet).")
    ],
    engine: Annotated[
        str, typer.Option(help="Engine file, bundled model or model in the store.", autocompletion=engine_names)
    ] = DEFAULT_MODEL,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder from which image names start; default: the list's folder, or the folder of images."),
    ] = None,
    window: WindowOption = None,
    by: Annotated[
        By | None, typer.Option(help="With one folder: how pairs are chosen; default: all, or those of --window.")
    ] = None,
    loop: LoopOption = False,
    neighbours: NeighboursOption = 20,
    max_distance: MaxDistanceOption = 100.0,
    max_seconds: MaxSecondsOption = None,
    min_similarity: MinSimilarityOption = -1.0,
    retrieval_engine: RetrievalEngineOption = None,
    report: Annotated[
        Path | None, typer.Option(help="Page (.html) to write: numbers, view graph, worst pairs, images left alone.")
    ] = None,
    sparse_map: Annotated[
        Path | None, typer.Option("--map", help="For .db: folder to write COLMAP's map to, made of the database.")
    ] = None,
    mapper: Annotated[MapperChoice, typer.Option(help="With --map: COLMAP's mapper.")] = MapperChoice.incremental,
    journal: Annotated[
        Path | None, typer.Option(help="File that keeps results during the run; default: OUTPUT.journal.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try pairs again that failed in an earlier run.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of pairs matched at a time; default: what cores, memory and GPU allow."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each worker.")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Match on the Ray cluster of RAY_ADDRESS, or on Ray on this machine.")
    ] = False,
    ray_address: Annotated[str | None, typer.Option(help="With --ray: address of the Ray cluster.")] = None,
    layout: Annotated[
        Layout, typer.Option(help="For .h5: hloc's layout; dense keeps unmerged matches too.")
    ] = Layout.dense,
    features: Annotated[
        Path | None, typer.Option(help="For .h5: file of the keypoints; default: feats_OUTPUT.")
    ] = None,
    cell_size: Annotated[
        float, typer.Option(help="For .h5 and .db: side in pixels of a cell, whose points become one keypoint.")
    ] = 1.0,
    max_error: Annotated[
        float,
        typer.Option(help="For .h5 and .db: drop matches farther than this from their keypoint, in pixels; 0: none."),
    ] = 1.0,
    max_keypoints: Annotated[
        int | None, typer.Option(min=1, help="For .h5 and .db: keep only the N strongest keypoints of an image.")
    ] = None,
    camera_model: Annotated[str, typer.Option(help="For .db: COLMAP's name of the camera model.")] = "SIMPLE_RADIAL",
    cameras: Annotated[Cameras, typer.Option(help="For .db: which images share a camera.")] = Cameras.per_image,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="For .db: estimate no two-view geometries.")] = False,
    min_score: MinScoreOption = None,
    resize: ResizeOption = None,
    rotate: RotateOption = None,
    zoom: ZoomOption = None,
    effort: EffortOption = EffortChoice.normal,
    sample: SampleOption = None,
    seed: SeedOption = 0,
    max_megapixels: MaxMegapixelsOption = 50.0,
    ignore_exif: IgnoreExifOption = False,
    stretch: StretchOption = StretchChoice.none,
    device: DeviceOption = None,
    backend: BackendOption = None,
    feature_cache: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory for images' features, each computed once, such as 500MB (default 2GB); 0: match whole pairs.",
        ),
    ] = None,
    feature_spill: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep features that do not fit in this folder. All are in half precision then: other last digits.",
        ),
    ] = None,
    digest: Annotated[bool, typer.Option("--digest", help="Print the sha256 of the output's content.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Match many pairs. If the run is killed at any moment, the same command goes on where it ended.

    Failed pairs do not stop the others. They are listed in OUTPUT.failed.txt, and the exit code is 2 then.
    """
    from matchrt.batch.listing import PairSource
    from matchrt.batch.merging import MergeOptions
    from matchrt.batch.options import ColmapOptions, OutputOptions
    from matchrt.batch.output import Output
    from matchrt.batch.run import BatchRun, journal_of, run_places
    from matchrt.runtime.engine_file import read_engine

    if ray and (feature_cache is not None or feature_spill is not None):
        raise MatchRTError(
            "usage",
            "--ray is given with --feature-cache or --feature-spill.",
            "Leave one out: nodes match whole pairs.",
        )
    if ray_address is not None and not ray:
        raise MatchRTError("usage", "--ray-address is given without --ray.", "Add --ray, or leave --ray-address out.")
    merge = MergeOptions(cell_size, max_error or None, max_keypoints)
    colmap = ColmapOptions(camera_model, cameras.value, not no_verify)
    written = Output(output, OutputOptions(merge, layout.value, features, colmap))
    written.check()
    mapping = _map_work(sparse_map, written, root or pairs, mapper, no_verify)
    check_page(report)
    chosen, pairing, beside = None, None, () if report is None else (report,)
    if by is not None or loop:
        chosen_by = By.window if by is None else by
        wanted = pairing_options(chosen_by, window, loop, neighbours, max_distance, max_seconds, min_similarity)
        pairing = RunPairing.of(pairs, root, output, wanted)
        beside = (*beside, *pairing.files)
    if mapping is not None:
        mapping.check((*written.files, written.failed, journal_of(written, journal), *beside))
    if pairing is not None:
        pairing.require_apart(run_places(written, journal, beside))
        reading = reading_options(ignore_exif, max_megapixels, threads)
        chosen = pairing.choose(
            Retrieval(retrieval_engine, pairing.descriptors, reading, store_at(store), workers), as_json
        )
    source = PairSource(pairs, root, window) if pairing is None else pairing.source()
    run = BatchRun(source, written, journal, retry_failed, report, beside)
    places = run.places()
    if not pairs.is_dir():
        places.require_unread(pairs, "the list")
    options = matcher_options(
        resize=resize,
        min_score=min_score,
        sample=sample,
        seed=seed,
        ignore_exif=ignore_exif,
        max_megapixels=max_megapixels,
        stretch=stretch,
        threads=threads,
        device=device,
        backend=backend,
        rotate=rotate,
        zoom=zoom,
        effort=effort,
    )
    found = read_engine(engine, store_at(store), backend)
    skipped = run.source.skipped() if chosen is None else chosen.skipped
    places.require_unread(found.path, "the engine")
    if ray:
        done, how = _on_ray(run, found, options, workers, ray_address, as_json), _WHOLE_ON_RAY
    else:
        done, how = _here(run, found, options, workers, _feature_options(feature_cache, feature_spill), as_json)
    told, failures = done
    built = None if mapping is None else _mapped(mapping, written, as_json)
    page = () if report is None else (report,)
    _print(written, told, failures, skipped, digest, how, as_json, Extras(chosen, built, page))
    return 2 if told.counts.failed or (chosen is not None and chosen.failed) else 0


class Extras(NamedTuple):
    """What a run made beside its output. chosen: its pairs. built: the map. pages: files about it."""

    chosen: Chosen | None
    built: tuple[MapWork, MapReport] | None
    pages: tuple[Path, ...]


def _map_work(
    folder: Path | None, output: Output, images: Path, mapper: MapperChoice, unverified: bool
) -> MapWork | None:
    """The map to make of the output; None for none. Error: usage."""
    from matchrt.batch.mapping import MapWork

    if folder is None:
        return None
    if output.path.suffix.lower() != ".db" or unverified:
        raise MatchRTError(
            "usage",
            "--map needs a COLMAP database with two-view geometries.",
            "Name an --output with the suffix .db, and leave --no-verify out.",
        )
    return MapWork(output.path, images if images.is_dir() else images.parent, folder, mapper.value)


def _mapped(work: MapWork, output: Output, quiet: bool) -> tuple[MapWork, MapReport]:
    from matchrt.batch.content import content_digest

    with progress_of("mapping", quiet, "images") as tell:
        return work, work.run(content_digest(output), tell)


Done = tuple["BatchReport", list["Failure"]]


class How(NamedTuple):
    """How pairs were matched. from_features: whether from features that were computed once an image. why: if not."""

    from_features: bool
    why: str = ""


_WHOLE_ON_RAY = How(False, "nodes of a Ray cluster match whole pairs")


def _feature_options(cache: str | None, spill: Path | None) -> tuple[FeatureOptions, bool]:
    """How features are kept, and whether somebody asked for them. Errors: option-range, output-unwritable, usage."""
    from matchrt.batch.features import DEFAULT_BYTES, FeatureOptions, parse_bytes

    limit = DEFAULT_BYTES if cache is None else parse_bytes(cache)
    if limit == 0 and spill is not None:
        raise MatchRTError(
            "usage", "--feature-spill is given with --feature-cache 0.", "Leave one out: 0 keeps no features."
        )
    return FeatureOptions(limit, spill), (cache is not None and limit > 0) or spill is not None


def _here(
    run: BatchRun,
    engine: EngineFile,
    options: MatcherOptions,
    workers: int | None,
    wanted: tuple[FeatureOptions, bool],
    quiet: bool,
) -> tuple[Done, How]:
    from dataclasses import replace

    from matchrt.batch.feature_pool import match_from_features, require_features
    from matchrt.batch.pool import match_in_pool, pool_size
    from matchrt.runtime.matcher import Matcher

    size = pool_size(engine.manifest, options.device, workers, options.threads)
    options, root = replace(options, threads=size.threads), run.source.base
    kept, asked = wanted
    with Matcher(engine, options) as matcher:
        how = How(False, "--feature-cache is 0")
        if kept.limit:
            try:
                parts = require_features(matcher)
            except MatchRTError as error:
                if asked or error.code not in _NO_FEATURES:
                    raise
                how = How(False, error.message)
            else:
                plan = {"parts": list(parts), "half": kept.spill is not None}
                match = partial(match_from_features, matcher, root, size=size, options=kept)
                return _matched(run, engine, options, match, quiet, plan), How(True)
        return _matched(run, engine, options, lambda todo: match_in_pool(matcher, root, todo, size), quiet), how


def _on_ray(
    run: BatchRun, engine: EngineFile, options: MatcherOptions, workers: int | None, address: str | None, quiet: bool
) -> Done:
    from matchrt.batch.on_ray import RayWork, cluster, match_on_ray

    with cluster(address):
        work = RayWork.of(engine, options, run.source.base, workers)
        return _matched(run, engine, options, lambda todo: match_on_ray(work, todo), quiet)


def _matched(
    run: BatchRun,
    engine: EngineFile,
    options: MatcherOptions,
    match: Match,
    quiet: bool,
    features: dict[str, Any] | None = None,
) -> Done:
    from matchrt.batch.run import match_pairs, plan_of

    plan = plan_of(run, engine.manifest, options, features)
    with progress_of("matching", quiet) as tell:
        return match_pairs(run, plan, match, tell, partial(_begun, quiet))


def _begun(quiet: bool, counts: Counts) -> None:
    """Says what is to be done."""
    if not quiet:
        done = counts.pairs - counts.waiting
        earlier = f"; {done} of them done in an earlier run" if done else ""
        stderr().print(f"{counts.images} images, {counts.pairs} pairs{earlier}")


def _print(
    output: Output,
    report: BatchReport,
    failures: list[Failure],
    skipped: list[Skipped],
    digest: bool,
    how: How,
    as_json: bool,
    extras: Extras,
) -> None:
    from matchrt.batch.content import content_digest
    from matchrt.batch.names import one_line

    content = content_digest(output) if digest else None
    if as_json:
        _print_json(output, report, failures, skipped, content, how, extras)
        return
    counts, console, errors = report.counts, stdout(), stderr()
    if extras.chosen is not None:
        print_chosen(extras.chosen)
        skipped = []  # they are printed
    for failure in failures[:_SHOWN]:
        text = f"{failure.pair.first} {failure.pair.second}: {failure.message} {failure.remedy}"
        errors.print(one_line(text), style="red")
    if counts.failed > len(failures[:_SHOWN]):
        errors.print(f"… and more, all listed in {output.failed}", style="red")
    console.print(f"{counts.matched} pairs matched, {counts.failed} failed; {report.now} of them tried in this run")
    if said := verdict_counts(report.verdicts):
        console.print(said)
    print_graph(report.graph)
    if not how.from_features and report.now:
        console.print(f"each pair went through the whole engine: {one_line(how.why)}")
    if counts.listed > counts.pairs:
        console.print(f"{counts.listed - counts.pairs} lines named a pair again and were left out")
    _print_notes(report, skipped)
    what = "wrote" if report.written else "up to date:"
    console.print(f"{what} {' and '.join(str(path) for path in output.files)}")
    print_written(*extras.pages)
    if extras.built is not None:
        print_map(*extras.built)
    if content is not None:
        console.print(f"content sha256 {content}")


def _print_json(
    output: Output,
    report: BatchReport,
    failures: list[Failure],
    skipped: list[Skipped],
    content: str | None,
    how: How,
    extras: Extras,
) -> None:
    from matchrt.batch.names import readable

    listed = [{"pair": list(map(readable, f.pair[1:])), "error": _error(f, readable(f.message))} for f in failures]
    files = [str(path) for path in (*output.files, *extras.pages)]
    extra: dict[str, Any] = how._asdict() | ({} if content is None else {"content_sha256": content})
    if extras.chosen is not None:
        extra["chosen"] = chosen_json(extras.chosen)
    if extras.built is not None:
        extra["map"] = {"folder": str(extras.built[0].folder), **extras.built[1].to_json()}
    left_out = [vars(item) for item in skipped]
    print_json({**report.to_json(), "outputs": files, **extra, "skipped": left_out, "failures": listed})


def _print_notes(report: BatchReport, skipped: list[Skipped]) -> None:
    """Prints what a person should know of the images and of the journal."""
    from matchrt.batch.names import one_line

    console, errors = stdout(), stderr()
    for text in report.warnings[:_SHOWN]:
        errors.print(f"warning: {one_line(text)}", style="yellow")
    if len(report.warnings) > _SHOWN:
        errors.print("… and more warnings, in --json", style="yellow")
    for item in skipped:
        console.print(f"left out: {item}")
    if report.changed:
        shown = ", ".join(map(one_line, report.changed[:_SHOWN])) + (", …" if len(report.changed) > _SHOWN else "")
        console.print(f"{len(report.changed)} images have changed; their pairs were matched again: {shown}")
    if report.mended:
        console.print(f"{report.mended} damaged rows of the journal were matched again; check the disk")


def _error(failure: Failure, message: str) -> dict[str, str]:
    return error_json(MatchRTError(failure.code, message, failure.remedy))
